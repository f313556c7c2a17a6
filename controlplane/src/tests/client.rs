//! A server on a free port and clients of it.

use std::path::PathBuf;
use std::time::Duration;

use agentapi_shared::frame::{FrameType, Header, Keyframe};
use agentapi_shared::viewer::{ClientMessage, SUBPROTOCOL, ServerMessage};
use agentapi_shared::{EventId, SessionId, WindowSize};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::config::Config;
use crate::server::Server;

/// Longer than anything takes here, short enough to fail in time.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub(super) struct Harness {
    pub(super) base: String,
    pub(super) metrics: String,
    pub(super) token: String,
    pub(super) host_token: String,
    pub(super) dir: PathBuf,
    pub(super) plane: std::sync::Arc<crate::plane::Plane>,
    http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

fn config(dir: &std::path::Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        metrics_listen: Some("127.0.0.1:0".parse().unwrap()),
        public_url: None,
        oidc: None,
        rates: crate::limits::Rates::DEFAULT,
        client_address_header: None,
        foundings: crate::domain::organizations::Foundings::DEFAULT,
        data_dir: dir.join("data"),
        credentials_file: Some(dir.join("credentials.json")),
        host_credential_file: Some(dir.join("host-credential.json")),
        audit_checkpoint_dir: None,
        log_format: agentapi_shared::runtime::LogFormat::Text,
        log_filter: "info".to_owned(),
    }
}

impl Harness {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// One that is configured differently.
    pub(super) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = std::env::temp_dir().join(format!("controlplane-{}", EventId::generate()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = config(&dir);
        change(&mut config);
        Self::start_in(dir, &config).await
    }

    async fn start_in(dir: PathBuf, config: &Config) -> Self {
        let server = Server::bind(config, None).await.unwrap();
        let token = |name: &str| -> String {
            let text = std::fs::read_to_string(dir.join(name)).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["token"].as_str().unwrap().to_owned()
        };
        let (token, host_token) = (token("credentials.json"), token("host-credential.json"));
        let base = format!("http://{}", server.address());
        let metrics = format!("http://{}/metrics", server.metrics_address().unwrap());
        let plane = server.plane();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = server.run(async move {
            let _stopped = stopped.await;
        });
        #[expect(clippy::disallowed_methods, reason = "a test owns it through its handle")]
        let task = tokio::spawn(run);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { base, metrics, token, host_token, dir, plane, http, stop: Some(stop), task: Some(task) }
    }

    /// Ends the server and starts another one on the same data.
    pub(super) async fn restart(mut self) -> Self {
        let _stopped = self.stop.take().unwrap().send(());
        self.task.take().unwrap().await.unwrap();
        let dir = std::mem::take(&mut self.dir);
        let config = config(&dir);
        Self::start_in(dir, &config).await
    }

    /// Asks the server to end and waits until it did.
    pub(super) async fn stop(&mut self) {
        let _stopped = self.stop.take().unwrap().send(());
        self.task.take().unwrap().await.unwrap();
    }

    pub(super) fn ws_url(&self, path: &str) -> String {
        format!("{}{path}", self.base.replace("http://", "ws://"))
    }

    pub(super) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        self.http.request(method, format!("{}{path}", self.base)).timeout(DEADLINE)
    }

    /// What a collector reads: lines by name and labels.
    pub(super) async fn metrics(&self) -> Vec<String> {
        let answer = self.http.get(&self.metrics).timeout(DEADLINE).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap().lines().map(str::to_owned).collect()
    }

    /// A request with the admin's token; gives status and JSON.
    pub(super) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request(method, path).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Creates a session of bash and gives its id.
    pub(super) async fn create(&self) -> SessionId {
        let body = serde_json::json!({ "agent": "custom", "command": ["bash"] });
        let (status, body) = self.call("POST", "/api/v1/sessions", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().parse().unwrap()
    }

    /// Creates one and waits until it runs.
    pub(super) async fn create_running(&self) -> SessionId {
        let id = self.create().await;
        self.until_state(id, "running").await;
        id
    }

    /// Waits until a session is in a state; every change is an event.
    pub(super) async fn until_state(&self, id: SessionId, state: &str) -> Value {
        self.until_session(id, state, |session| session["state"] == state).await
    }

    pub(super) async fn until_session(&self, id: SessionId, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut changed = self.plane.events.watch();
        let wait = async {
            loop {
                let session = self.get(&format!("/api/v1/sessions/{id}")).await;
                if is(&session) {
                    return session;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("session never {what}"))
    }

    pub(super) async fn until_host(&self, connected: bool) {
        let mut changed = self.plane.events.watch();
        let wait = async {
            loop {
                let hosts = self.get("/api/v1/hosts").await;
                let any = hosts["data"].as_array().unwrap().iter().any(|host| host["connected"] == true);
                if any == connected {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("host never connected={connected}"));
    }

    /// Opens a terminal.
    pub(super) async fn view(&self, id: SessionId, query: &str) -> Viewer {
        self.try_view(id, query).await.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    pub(super) async fn try_view(&self, id: SessionId, query: &str) -> Result<Viewer, SocketError> {
        self.open_terminal(id, query, &[("authorization", &format!("Bearer {}", self.token))]).await
    }

    /// Opens a terminal as a browser does.
    pub(super) async fn view_with_cookie(&self, id: SessionId, cookie: &str) -> Viewer {
        self.open_terminal(id, "", &[("cookie", cookie), ("origin", &self.base)]).await.unwrap()
    }

    pub(super) async fn open_terminal(
        &self,
        id: SessionId,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Viewer, SocketError> {
        self.open_socket(&format!("/api/v1/sessions/{id}/terminal?{query}"), headers).await
    }

    pub(super) async fn open_socket(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Viewer, SocketError> {
        let mut request = self.ws_url(path).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Viewer { socket, acks: true, spawn: 0, at: 0, bytes: Vec::new(), size: None })
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if !self.dir.as_os_str().is_empty() {
            let _gone = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Sends a request; gives status and JSON (null if the body is none).
pub(super) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert!(response.headers().contains_key("x-request-id"));
    if status >= 400 {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["request_id"], id);
        assert_eq!(body["status"], status);
        return (status, body);
    }
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// What a viewer received.
#[derive(Debug, PartialEq)]
pub(super) enum Got {
    Said(ServerMessage),
    Output(u64, Vec<u8>),
    Keyframe { offset: u64, skipped: bool, size: WindowSize, text: Vec<u8> },
    Closed(u16),
}

/// A client of a terminal; acknowledges what it gets, unless told not to.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(super) acks: bool,
    pub(super) spawn: u32,
    /// Next offset expected.
    pub(super) at: u64,
    /// Output since the last keyframe or SPAWN message.
    pub(super) bytes: Vec<u8>,
    pub(super) size: Option<WindowSize>,
}

impl Viewer {
    /// The next thing. Output must follow exactly on what was before.
    pub(super) async fn next(&mut self) -> Got {
        let message = tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("nothing arrived");
        match message {
            Some(Ok(Message::Text(text))) => {
                let message: ServerMessage = serde_json::from_str(&text).unwrap();
                if let ServerMessage::Spawn { spawn, size, offset, .. } = &message {
                    (self.spawn, self.at, self.size) = (*spawn, *offset, Some(*size));
                    self.bytes.clear();
                }
                if let ServerMessage::Resized { size, .. } = &message {
                    self.size = Some(*size);
                }
                Got::Said(message)
            }
            Some(Ok(Message::Binary(frame))) => self.frame(&frame).await,
            Some(Ok(Message::Close(frame))) => Got::Closed(frame.map_or(1005, |frame| frame.code.into())),
            Some(Ok(_)) => Box::pin(self.next()).await,
            Some(Err(_)) | None => Got::Closed(1006),
        }
    }

    async fn frame(&mut self, frame: &[u8]) -> Got {
        let (header, payload) = Header::parse(frame).unwrap();
        assert_eq!(header.stream, self.spawn);
        let got = match header.frame_type {
            FrameType::Output => {
                assert_eq!(header.position, self.at, "output must follow on output");
                self.at += payload.len() as u64;
                self.bytes.extend_from_slice(payload);
                Got::Output(header.position, payload.to_vec())
            }
            FrameType::Keyframe => {
                let keyframe = Keyframe::parse(payload).unwrap();
                self.at = header.position;
                self.bytes.clear();
                self.size = Some(keyframe.size);
                let text = keyframe.bytes.to_vec();
                Got::Keyframe { offset: header.position, skipped: header.flags != 0, size: keyframe.size, text }
            }
            other => panic!("{other:?}"),
        };
        if self.acks {
            self.ack(self.at).await;
        }
        got
    }

    pub(super) async fn ack(&mut self, offset: u64) {
        self.say(&ClientMessage::Ack { spawn: self.spawn, offset }).await;
    }

    pub(super) async fn say(&mut self, message: &ClientMessage) {
        let text = serde_json::to_string(message).unwrap();
        let _open = self.socket.send(Message::Text(text.into())).await;
    }

    pub(super) async fn input(&mut self, seq: u64, bytes: &[u8]) {
        let frame = Header::new(FrameType::Input, self.spawn, seq).with_payload(bytes);
        self.socket.send(Message::Binary(frame.into())).await.unwrap();
    }

    /// Reads on until something is as wanted, and gives it.
    pub(super) async fn until<T>(&mut self, what: &str, mut is: impl FnMut(&Self, &Got) -> Option<T>) -> T {
        loop {
            let got = self.next().await;
            if let Some(found) = is(self, &got) {
                return found;
            }
            assert!(!matches!(got, Got::Closed(_)), "closed before {what}: {got:?}");
        }
    }

    /// Reads until output up to `offset` is here.
    pub(super) async fn until_offset(&mut self, offset: u64) {
        while self.at < offset {
            let got = self.next().await;
            assert!(!matches!(got, Got::Closed(_)), "closed at {}", self.at);
        }
    }
}
