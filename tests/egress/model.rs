//! Model listeners: the key reaches the provider and nobody inside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use agentapi_shared::egress::{EgressMode, EgressVerdict, ListenerRole, SecretText};
use agentapi_tests::wait::PATIENCE;

use crate::supervisor::{Fixture, policy};

/// What must be seen by the provider alone.
const KEY: &str = "sk-the-real-key-4711";

fn role(upstream: &str, header: &str) -> ListenerRole {
    ListenerRole::Model {
        name: "anthropic".to_owned(),
        upstream: upstream.to_owned(),
        header: header.to_owned(),
        value: SecretText::new(KEY.to_owned()),
    }
}

/// A session with a proxy that reaches nothing, and a model listener.
fn usual(upstream: &str) -> (Fixture, TcpListener) {
    let rules = policy(EgressMode::Enforce, &[], &[]);
    let fixture = Fixture::new(&rules);
    let listener = fixture.inside.listen("127.0.0.1:3200");
    let roles = [ListenerRole::Proxy, role(upstream, "x-api-key")];
    fixture.supervisor.serve(fixture.session, &rules, &roles, &[&fixture.proxy, &listener]).unwrap();
    (fixture, listener)
}

#[test]
fn the_key_is_put_in_outside_and_never_comes_back() {
    let (fixture, _listener) = usual("https://model.test/base/");
    for (arguments, inside) in [
        ("http://127.0.0.1:3200/v1/messages?beta=true", "HTTP/1.1"),
        ("--http2-prior-knowledge http://127.0.0.1:3200/v1/messages?beta=true", "HTTP/2"),
    ] {
        let said = fixture.curl(&format!(
            "-i -d '{{\"a\":1}}' -H 'X-Api-Key: placeholder' -H 'Authorization: Bearer placeholder' -H 'Proxy-Authorization: Basic x' \
             -H 'Api-Key: placeholder' -H 'X-Goog-Api-Key: placeholder' \
             -H 'anthropic-version: 2023-06-01' -H 'Connection: x-api-key' {arguments}"
        ));
        assert!(said.starts_with(inside) && said.ends_with("hello from /base/v1/messages\n"), "{said}");
        assert!(!said.contains(KEY), "{said}");
        let seen = fixture.origin.seen().pop().unwrap();
        let of = |name: &str| -> Vec<&str> {
            seen.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!((seen.uri.as_str(), seen.body.as_str()), ("/base/v1/messages?beta=true", "{\"a\":1}"));
        assert_eq!((of("x-api-key"), of("anthropic-version")), (vec![KEY], vec!["2023-06-01"]));
        assert!(of("authorization").is_empty() && of("proxy-authorization").is_empty(), "{seen:?}");
        assert!(!format!("{seen:?}").contains("placeholder"), "{seen:?}");
        assert_eq!(seen.version, "HTTP/2.0", "the provider has it, so it is spoken");
        let decision = fixture.supervisor.decision();
        assert_eq!((decision.verdict, decision.rule.as_str()), (EgressVerdict::Allowed, "model:anthropic"));
        assert_eq!((decision.host.as_str(), decision.bytes_up, decision.bytes_down), ("model.test", 7, 29));
    }
    // Nothing that is written down has it, and nothing that others may read of the process.
    let pid = fixture.gateway.child.id();
    for path in [format!("/proc/{pid}/environ"), format!("/proc/{pid}/cmdline")] {
        assert!(!String::from_utf8_lossy(&fs::read(path).unwrap()).contains(KEY));
    }
    let log = fs::read_to_string(fixture.dir.path().join("gateway.log")).unwrap();
    assert!(log.contains("session served") && !log.contains(KEY) && !log.contains("v1/messages"), "{log}");
}

#[test]
fn the_key_goes_nowhere_else() {
    let (fixture, _listener) = usual("https://model.test");
    // A redirect is the client's business, and it has no key.
    let said = fixture.curl("-i http://127.0.0.1:3200/redirect");
    assert!(said.starts_with("HTTP/1.1 302") && said.contains("location: https://evil.test/taken"), "{said}");
    assert_eq!(fixture.origin.seen().len(), 1);
    let said =
        fixture.curl("-L --max-redirs 1 -x http://127.0.0.1:3128 --noproxy 127.0.0.1 http://127.0.0.1:3200/redirect");
    assert!(said.contains("403"), "{said}");
    assert!(fixture.origin.seen().iter().all(|seen| seen.uri == "/redirect"));
    // However the request says where it wants to go, it goes to the one upstream.
    let raw = |request: &'static str| {
        fixture.inside.run(move || {
            let mut stream = std::net::TcpStream::connect("127.0.0.1:3200").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let answer = raw("GET http://evil.test/there HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n");
    assert!(answer.ends_with("hello from /there\n"), "{answer}");
    let seen = fixture.origin.seen().pop().unwrap();
    assert!(seen.headers.iter().all(|(_, value)| value != "evil.test"), "{seen:?}");
    for request in [
        "TRACE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nConnection: close\r\n\r\n",
    ] {
        let answer = raw(request);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("neither TRACE nor CONNECT"), "{answer}");
    }
    assert_eq!(fixture.origin.seen().len(), 3);
}

#[test]
fn an_answer_passes_piece_by_piece() {
    let (fixture, _listener) = usual("https://model.test");
    let mut stream = fixture.inside.run(|| {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:3200").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    });
    // The server sends the next piece only when this one is here: a buffer in between would wait for ever.
    let mut answer = String::new();
    for piece in ["piece 0\n", "piece 1\n", "piece 2\n"] {
        while !answer.contains(piece) {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "{answer}");
            answer += std::str::from_utf8(&buffer[..count]).unwrap();
        }
        fixture.origin.next_piece.blocking_send(()).unwrap();
    }
}

#[test]
fn a_provider_that_is_not_there_is_a_clear_error() {
    let (fixture, _listener) = usual("https://nobody.test");
    let said = fixture.curl("-i http://127.0.0.1:3200/v1/messages");
    assert!(said.starts_with("HTTP/1.1 502") && said.contains("nobody.test port 443 is not reached"), "{said}");
    let decision = fixture.supervisor.decision();
    assert_eq!((decision.verdict, decision.rule.as_str()), (EgressVerdict::Failed, "model:anthropic"));
    // And one that leads inside is refused like any other name.
    let (fixture, _listener) = usual("https://inside.test");
    assert!(fixture.curl("-i http://127.0.0.1:3200/").starts_with("HTTP/1.1 502"));
}
