//! Requests that two readers could read differently do not pass.

use agentapi_shared::egress::EgressMode;

use crate::supervisor::{Fixture, policy};

/// What must never arrive as a request of its own.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: good.test\r\n\r\n";

#[test]
fn what_could_be_two_requests_is_none() {
    let fixture = Fixture::new(&policy(EgressMode::Enforce, &["good.test"], &[]));
    let length = HIDDEN.len();
    let head = "POST http://good.test/shown HTTP/1.1\r\nHost: good.test\r\n";
    for request in [
        format!("{head}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("{head}Content-Length: 0, {length}\r\n\r\n{HIDDEN}"),
        format!("{head}Content-Length: +{length}\r\n\r\n{HIDDEN}"),
        format!("{head}Content-Length : {length}\r\n\r\n{HIDDEN}"),
        format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
        format!("{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
        format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{HIDDEN}"),
        format!("{head}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
        format!("{head}X: a\rContent-Length: {length}\r\n\r\n{HIDDEN}"),
        "GET http://good.test/shown HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(),
        "GET http://good.test/shown HTTP/1.1\r\nHost: good.test\r\nHost: evil.test\r\n\r\n".to_owned(),
        "GET http://good.test/shown HTTP/1.1\r\n\r\n".to_owned(),
        "GET http://evil.test@good.test/shown HTTP/1.1\r\nHost: good.test\r\n\r\n".to_owned(),
        "GET /shown HTTP/1.1\r\nHost: good.test\r\n\r\n".to_owned(),
        "GET https://good.test/shown HTTP/1.1\r\nHost: good.test\r\n\r\n".to_owned(),
        "GET ftp://good.test/shown HTTP/1.1\r\nHost: good.test\r\n\r\n".to_owned(),
        "GET http://good.test/a b HTTP/1.1\r\nHost: good.test\r\n\r\n".to_owned(),
        "GET http://good.test\\@evil.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n".to_owned(),
        "CONNECT good.test HTTP/1.1\r\nHost: good.test\r\n\r\n".to_owned(),
        "CONNECT good.test:80\r\nX: evil.test:80 HTTP/1.1\r\n\r\n".to_owned(),
        "CONNECT good.test:80 HTTP/1.1\r\nHost: evil.test:80\r\n\r\n".to_owned(),
        "CONNECT good.test:80 HTTP/1.1\r\nHost: good.test:80\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "CONNECT evil.test@good.test:80 HTTP/1.1\r\nHost: good.test:80\r\n\r\n".to_owned(),
        "CONNECT good.test\0.evil.test:80 HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let answer = String::from_utf8_lossy(&fixture.raw(request.as_bytes())).into_owned();
        let statuses = answer.matches("HTTP/1.1 ").count();
        assert!(!answer.contains("HTTP/1.1 200") && statuses <= 1, "{request:?}: {answer}");
    }
    let came = fixture.origin.plain();
    assert!(came.iter().all(String::is_empty), "{came:?}");
    // Both framings: one of them counts, the other is not sent on, and what follows is not read.
    for framing in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
    ] {
        let answer = fixture.raw(format!("{head}{framing}\r\n\r\n0\r\n\r\n{HIDDEN}").as_bytes());
        assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count(), 1);
        let came = fixture.origin.plain().pop().unwrap();
        assert!(came.starts_with("POST /shown") && !came.contains("hidden"), "{came}");
        assert!(!came.to_lowercase().contains("content-length"), "{came}");
    }
}

#[test]
fn a_request_is_written_anew_and_without_what_is_the_proxys() {
    let fixture = Fixture::new(&policy(EgressMode::Enforce, &["good.test"], &[]));
    let request = format!(
        "POST http://GOOD.test:80/shown?q=1 HTTP/1.1\r\nHost: good.test\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n\
         Connection: X-Private, close\r\nX-Private: 1\r\nX-Kept: yes\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n",
        HIDDEN.len()
    );
    let answer = String::from_utf8(fixture.raw(request.as_bytes())).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("x-origin: yes"), "{answer}");
    let came = fixture.origin.plain().join("|");
    let (head, body) = came.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /shown?q=1 HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    for kept in ["host: good.test", "x-kept: yes", "transfer-encoding: chunked"] {
        assert!(head.contains(kept), "{kept}: {head}");
    }
    for dropped in ["proxy-", "x-private", "upgrade", "c2vjcmv0"] {
        assert!(!head.contains(dropped), "{dropped}: {head}");
    }
    // What is in the body is in the body.
    assert!(body.contains(&format!("{:x}\r\n{HIDDEN}", HIDDEN.len())), "{body}");
    let decision = fixture.supervisor.decision();
    assert_eq!((decision.bytes_up, decision.bytes_down), (HIDDEN.len() as u64, 6));
}
