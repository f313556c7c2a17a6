//! The connection against a real WebSocket server that speaks the protocol, on loopback.

use super::*;
use crate::args::GlobalArgs;
use crate::config::{self, Environment};
use agentapi_shared::ViewerId;
use agentapi_shared::viewer::{Catchup, Resume};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

fn client(listener: &TcpListener) -> Client {
    let variables = [("AGENTAPI_URL", format!("http://{}", listener.local_addr().unwrap()))];
    let pairs: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let env = Environment::with(&[&pairs[..], &[("AGENTAPI_TOKEN", "aa_secret")]].concat());
    Client::new(config::server(&GlobalArgs::default(), &env).unwrap()).unwrap()
}

async fn listener() -> TcpListener {
    crate::install_tls_provider();
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
fn accept(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.headers()["authorization"], "Bearer aa_secret");
    assert!(
        request
            .uri()
            .query()
            .unwrap()
            .contains("mode=ro&catchup=screen&from=2%3A77&replaces=00000000-0000-0000-0000-000000000007"),
        "{}",
        request.uri()
    );
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

#[tokio::test]
async fn frames_arrive_typed_and_input_carries_its_number() {
    let listener = listener().await;
    let client = client(&listener);
    let server = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = accept_hdr_async(socket, accept).await.unwrap();
        let hello = ServerMessage::Hello {
            session: SessionId::generate(),
            viewer: 3,
            mode: ViewerMode::Ro,
            catchup: Catchup::Screen,
            window: 1,
            id: None,
        };
        let spawn = ServerMessage::Spawn {
            spawn: 2,
            state: agentapi_shared::SpawnState::Running,
            size: WindowSize::DEFAULT,
            resume: Resume::Gap,
            offset: 90,
        };
        let tomorrow = r#"{"type":"of_tomorrow"}"#.to_owned();
        for text in [serde_json::to_string(&hello).unwrap(), tomorrow, serde_json::to_string(&spawn).unwrap()] {
            socket.send(Message::text(text)).await.unwrap();
        }
        let keyframe = Keyframe { size: WindowSize::DEFAULT, bytes: b"screen" }.to_payload();
        socket.send(Message::binary(Header::new(FrameType::Keyframe, 2, 90).with_payload(&keyframe))).await.unwrap();
        socket.send(Message::binary(Header::new(FrameType::Output, 2, 90).with_payload(b"more"))).await.unwrap();
        let mut inputs = Vec::new();
        while inputs.len() < 2 {
            if let Message::Binary(frame) = socket.next().await.unwrap().unwrap() {
                let (header, payload) = Header::parse(&frame).unwrap();
                inputs.push((header.stream, header.position, payload.len()));
            }
        }
        socket.close(Some(CloseFrame { code: close::SESSION_GONE.into(), reason: "".into() })).await.unwrap();
        inputs
    };
    let viewer = async {
        let from = Some(Position { spawn: 2, offset: 77 });
        let mut stream =
            Stream::open(&client, SessionId::generate(), ViewerMode::Ro, from, Some(ViewerId::from_u128(7)))
                .await
                .unwrap();
        assert!(matches!(stream.next().await.unwrap(), Incoming::Message(ServerMessage::Hello { viewer: 3, .. })));
        assert!(matches!(stream.next().await.unwrap(), Incoming::Message(ServerMessage::Spawn { offset: 90, .. })));
        let at = Position { spawn: 2, offset: 90 };
        assert!(
            matches!(stream.next().await.unwrap(), Incoming::Keyframe(p, WindowSize::DEFAULT, b) if p == at && &b[..] == b"screen")
        );
        assert!(matches!(stream.next().await.unwrap(), Incoming::Output(p, b) if p == at && &b[..] == b"more"));
        stream.input(2, &vec![b'x'; agentapi_shared::frame::INPUT_BYTES_MAX + 1]).await.unwrap();
        stream.next().await.unwrap_err()
    };
    let (inputs, end) = tokio::join!(server, viewer);
    assert_eq!(inputs, [(2, 1, agentapi_shared::frame::INPUT_BYTES_MAX), (2, 2, 1)]);
    assert!(matches!(end, Closed::Final(failure) if failure.code() == ExitKind::NotFound as u8));
}

#[tokio::test]
async fn a_refused_upgrade_has_the_servers_words() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = listener().await;
    let client = client(&listener);
    let body = r#"{"type":"about:blank","title":"Not Found","status":404,"code":"session_not_found","detail":"no such session","request_id":"r"}"#;
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let _head = socket.read(&mut head).await.unwrap();
        let answer = format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
    };
    let (opened, ()) = tokio::join!(Stream::open(&client, SessionId::generate(), ViewerMode::Rw, None, None), server);
    let failure = opened.unwrap_err();
    assert_eq!((failure.code(), failure.to_string().as_str()), (3, "no such session"));
}

#[test]
fn close_codes_say_whether_to_come_again() {
    let close = |code: u16| closed(Some(CloseFrame { code: code.into(), reason: "".into() }));
    for lost in [close::GOING_AWAY, 1011, 1006] {
        assert!(matches!(close(lost), Closed::Lost), "{lost}");
    }
    for (code, exit) in [(close::UNAUTHORIZED, 5), (close::SESSION_GONE, 3), (close::MALFORMED, 1)] {
        assert!(matches!(close(code), Closed::Final(failure) if failure.code() == exit), "{code}");
    }
}
