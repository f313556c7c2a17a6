//! The client against a real, tiny HTTP server on loopback.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;
use crate::config::Environment;

/// Answers one request after the other with what it is given, and returns what it was asked.
fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            requests.push(head + &String::from_utf8(body).unwrap());
            socket.write_all(answer.as_bytes()).unwrap();
        }
        requests
    });
    (url, server)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn client(url: &str) -> Client {
    crate::install_tls_provider();
    let file = std::env::temp_dir().join(format!("agentapi-token-{}", uuid::Uuid::now_v7()));
    std::fs::write(&file, "aa_secret").unwrap();
    let args = crate::args::GlobalArgs {
        url: Some(url.to_owned()),
        token_file: Some(file.clone()),
        ..crate::args::GlobalArgs::default()
    };
    let server = crate::config::server(&args, &Environment::default()).unwrap();
    std::fs::remove_file(file).unwrap();
    Client::new(server).unwrap()
}

#[tokio::test]
async fn every_page_is_read_with_the_token_in_a_header() {
    let pages = vec![
        answer("200 OK", r#"{"data":[],"next_cursor":"next one"}"#),
        answer("200 OK", r#"{"data":[],"next_cursor":null}"#),
    ];
    let (url, server) = serve(pages);
    let query = vec![("label", "a:b c".to_owned())];
    assert_eq!(client(&url).sessions(&query).await.unwrap(), []);
    let requests = server.join().unwrap();
    assert!(requests[0].starts_with("GET /api/v1/sessions?label=a%3Ab+c HTTP/1.1"), "{}", requests[0]);
    assert!(requests[1].starts_with("GET /api/v1/sessions?label=a%3Ab+c&cursor=next+one HTTP/1.1"), "{}", requests[1]);
    assert!(requests.iter().all(|request| request.contains("authorization: Bearer aa_secret\r\n")));
}

#[tokio::test]
async fn a_refusal_keeps_its_words_and_gets_its_code() {
    let body = r#"{"type":"about:blank","title":"Conflict","status":409,"code":"running","detail":"it still runs","request_id":"r"}"#;
    let (url, server) = serve(vec![answer("409 Conflict", body)]);
    let failure = client(&url).restart(SessionId::generate(), false).await.unwrap_err();
    assert_eq!(crate::failure::describe(&failure.into()), (6, Some("it still runs".to_owned())));
    assert!(server.join().unwrap()[0].ends_with(r#"{"stop":false}"#));
}

#[tokio::test]
async fn nobody_there_and_nonsense_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (code, words) = crate::failure::describe(&client(&url).hosts().await.unwrap_err().into());
    assert_eq!(code, 4);
    assert!(words.unwrap().contains("Connection refused"));

    let (url, server) = serve(vec![answer("200 OK", "<html>")]);
    let (code, words) = crate::failure::describe(&client(&url).hosts().await.unwrap_err().into());
    assert_eq!(code, 1);
    assert!(words.unwrap().contains("not what this version expects"));
    server.join().unwrap();
}

#[tokio::test]
async fn events_end_when_the_server_ends() {
    let body = "data: {\"event\":\"hello\",\"resume\":\"gap\"}\n\ndata: {\"event\":\"of_tomorrow\"}\n\n";
    let (url, server) = serve(vec![answer("200 OK", body)]);
    let mut events = client(&url).events().await.unwrap();
    assert!(matches!(events.next().await.unwrap(), Some(agentapi_shared::api::ServerEvent::Hello { .. })));
    assert_eq!(events.next().await.unwrap(), None);
    server.join().unwrap();
}
