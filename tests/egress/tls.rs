//! The hello of TLS has to name the host that was asked for.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use agentapi_shared::egress::{EgressDecision, EgressMode, EgressVerdict};

use crate::supervisor::{Fixture, policy};

fn usual(mode: EgressMode) -> Fixture {
    Fixture::new(&policy(mode, &["good.test", "good.test:8443", "good.test:22"], &[]))
}

fn openssl(fixture: &Fixture, port: u16, name: &str) -> (String, EgressDecision) {
    let ca = fixture.dir.path().join("ca.pem");
    let said = fixture.inside.shell(&format!(
        "printf 'GET /x HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | timeout 20 openssl s_client -quiet \
         -proxy 127.0.0.1:3128 -connect good.test:{port} -CAfile {} {name}",
        ca.display()
    ));
    (said, fixture.supervisor.decision())
}

#[test]
fn a_hello_with_another_name_or_none_reaches_nobody() {
    let fixture = usual(EgressMode::Enforce);
    for (port, name, rule) in [
        (443, "-servername good.test", None),
        (443, "-servername GOOD.test", None),
        (443, "-servername evil.test", Some("sni_mismatch")),
        (443, "-noservername", Some("no_sni")),
        (8443, "-servername evil.test", Some("sni_mismatch")),
        (8443, "-noservername", None),
    ] {
        let before = fixture.origin.seen().len();
        let (said, decision) = openssl(&fixture, port, name);
        let reached = fixture.origin.seen().len() - before;
        match rule {
            None => {
                assert_eq!((decision.verdict, reached), (EgressVerdict::Allowed, 1), "{port} {name}: {said}");
                assert!(said.contains("hello from /x"), "{said}");
            }
            Some(rule) => {
                assert_eq!((decision.verdict, decision.rule.as_str()), (EgressVerdict::Denied, rule), "{port} {name}");
                assert_eq!((reached, decision.bytes_up, decision.bytes_down), (0, 0, 0), "{port} {name}: {decision:?}");
                assert!(said.contains("unrecognized name"), "the alert says why: {said}");
            }
        }
    }
}

#[test]
fn other_ports_speak_what_they_like_and_443_speaks_tls() {
    let fixture = usual(EgressMode::Enforce);
    // The server speaks first.
    let mut tunnel = fixture.tunnel("good.test:22");
    let mut line = [0; 15];
    tunnel.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"SSH-2.0-first\r\n");
    tunnel.write_all(b"answer").unwrap();
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    let mut echoed = String::new();
    tunnel.read_to_string(&mut echoed).unwrap();
    assert_eq!(echoed, "answer");
    drop(tunnel);
    let decision = fixture.supervisor.decision();
    assert_eq!((decision.verdict, decision.bytes_up, decision.bytes_down), (EgressVerdict::Allowed, 6, 21));
    let mut tunnel = fixture.tunnel("good.test:443");
    tunnel.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    tunnel.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _closed = tunnel.read_to_end(&mut Vec::new());
    let decision = fixture.supervisor.decision();
    assert_eq!((decision.verdict, decision.rule.as_str()), (EgressVerdict::Denied, "not_tls"));
    // Half a hello, and then the end.
    let mut tunnel = fixture.tunnel("good.test:443");
    tunnel.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).unwrap();
    drop(tunnel);
    assert_eq!(fixture.supervisor.decision().rule, "malformed_client_hello");
    let said = fixture.curl("-x http://127.0.0.1:3128 http://good.test:443/");
    assert!(said.contains("only TLS"), "{said}");
    assert_eq!(fixture.supervisor.decision().rule, "not_tls");
}

#[test]
fn observe_lets_a_wrong_name_pass_and_says_so() {
    let fixture = usual(EgressMode::Observe);
    let (said, decision) = openssl(&fixture, 443, "-servername evil.test");
    assert!(said.contains("hello from /x"), "{said}");
    assert_eq!((decision.verdict, decision.rule.as_str()), (EgressVerdict::WouldDeny, "sni_mismatch"));
}
