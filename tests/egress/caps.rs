//! Caps: a session that uses up its own leaves the others theirs.

use std::io::{Read as _, Write as _};

use agentapi_shared::SessionId;
use agentapi_shared::egress::{EgressLimits, EgressMode, EgressVerdict, ListenerRole};

use crate::network::Net;
use crate::supervisor::{Fixture, LIMITS, policy};

/// Connections that one session opens and leaves idle.
const IDLE: usize = 600;

#[test]
fn idle_connections_are_capped_and_another_session_is_served() {
    let mut rules = policy(EgressMode::Enforce, &["good.test"], &[]);
    rules.limits = EgressLimits { connections_max: 100, ..LIMITS };
    let fixture = Fixture::new(&rules);
    let idle: Vec<_> =
        fixture.inside.run(|| (0..IDLE).map(|_| std::net::TcpStream::connect("127.0.0.1:3128").unwrap()).collect());
    let neighbour = Net::new();
    let listener = neighbour.listen("127.0.0.1:3128");
    let session = SessionId::generate();
    fixture.supervisor.serve(session, &rules, &[ListenerRole::Proxy], &[&listener]).unwrap();
    let ca = fixture.dir.path().join("ca.pem");
    let said = neighbour.shell(&format!(
        "curl -sS --max-time 30 --cacert {} -x http://127.0.0.1:3128 https://good.test/n",
        ca.display()
    ));
    assert_eq!(said, "hello from /n\n");
    // Those beyond are closed, or told why; a flood of them is no flood of records.
    let decision = std::iter::repeat_with(|| fixture.supervisor.decision());
    let seen: Vec<_> = decision.take_while(|decision| decision.session != session).collect();
    assert!(!seen.is_empty() && seen.len() < 60, "{}", seen.len());
    assert!(seen.iter().all(|decision| decision.rule == "connections_max"), "{seen:?}");
    drop(idle);
    // The cap is of what is open, not of what was.
    let deadline = std::time::Instant::now() + agentapi_tests::wait::PATIENCE;
    while fixture.curl("-x http://127.0.0.1:3128 https://good.test/again") != "hello from /again\n" {
        assert!(std::time::Instant::now() < deadline, "closed connections still count");
    }
}

#[test]
fn connections_by_the_minute_and_bytes_in_all_have_an_end() {
    let mut rules = policy(EgressMode::Enforce, &["good.test"], &[]);
    rules.limits = EgressLimits { connections_per_minute: 3, bytes_max: Some(300_000), ..LIMITS };
    let fixture = Fixture::new(&rules);
    let said = fixture.curl("-x http://127.0.0.1:3128 https://good.test/large -o /dev/null");
    assert!(!said.is_empty(), "a megabyte is more than it may");
    let decision = fixture.supervisor.decision();
    assert_eq!((decision.verdict, decision.rule.as_str()), (EgressVerdict::Denied, "bytes_max"));
    let total = decision.bytes_up + decision.bytes_down;
    assert!((290_000..600_000).contains(&total), "{decision:?}");
    let said = fixture.curl("-x http://127.0.0.1:3128 http://good.test/");
    assert!(said.contains("as much as it may"), "{said}");
    // The operator gives more; the minute is not over.
    rules.limits.bytes_max = None;
    fixture.supervisor.serve(fixture.session, &rules, &[], &[]).unwrap();
    let mut answers = String::new();
    for _ in 0..4 {
        answers += &fixture.curl("-x http://127.0.0.1:3128 http://good.test/");
    }
    assert!(answers.contains("plain\n") && answers.contains("opens too many connections"), "{answers}");
}

#[test]
fn a_rate_holds_over_time() {
    let mut rules = policy(EgressMode::Enforce, &["good.test"], &[]);
    rules.limits = EgressLimits { bytes_per_second: Some(512 * 1024), ..LIMITS };
    let fixture = Fixture::new(&rules);
    let start = std::time::Instant::now();
    assert_eq!(fixture.curl("-x http://127.0.0.1:3128 https://good.test/large").len(), 1024 * 1024);
    // The first half a megabyte is the burst.
    assert!(start.elapsed().as_millis() > 900, "{:?}", start.elapsed());
}

#[test]
fn a_release_ends_everything_of_a_session() {
    let fixture = Fixture::new(&policy(EgressMode::Enforce, &["good.test:22"], &[]));
    let mut tunnel = fixture.tunnel("good.test:22");
    tunnel.read_exact(&mut [0; 15]).unwrap();
    let release = agentapi_shared::egress::GatewayRequest::Release { session: fixture.session, spawn: 1 };
    fixture.supervisor.send(&release, &[]);
    assert_eq!(fixture.supervisor.decision().bytes_down, 15);
    let _end = tunnel.write_all(b"x");
    assert_eq!(tunnel.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn malformed_requests_are_counted_and_recorded_now_and_then() {
    let mut rules = policy(EgressMode::Enforce, &["good.test"], &[]);
    rules.limits = EgressLimits { connections_per_minute: 20, ..LIMITS };
    let fixture = Fixture::new(&rules);
    let malformed = b"GET /x HTTP/1.1\r\nHost: good.test\r\n\r\n";
    let start = std::time::Instant::now();
    let answers: Vec<_> = (0..60)
        .map(|_| String::from_utf8_lossy(&fixture.raw(malformed)).lines().next().unwrap_or_default().to_owned())
        .collect();
    let of = |status: &str| answers.iter().filter(|answer| answer.contains(status)).count();
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
    assert!((20..=21 + seconds).contains(&of(" 400 ")) && of(" 429 ") > 0, "{answers:?}");
    // A record a second of each kind; the last is of another session, behind all of them.
    let neighbour = Net::new();
    let listener = neighbour.listen("127.0.0.1:3128");
    let session = SessionId::generate();
    fixture.supervisor.serve(session, &rules, &[ListenerRole::Proxy], &[&listener]).unwrap();
    neighbour.shell("curl -sS --max-time 30 -x http://127.0.0.1:3128 http://evil.test/");
    let decision = std::iter::repeat_with(|| fixture.supervisor.decision());
    let seen: Vec<_> = decision.take_while(|decision| decision.session != session).collect();
    let kinds = |rule: &str| seen.iter().filter(|decision| decision.rule == rule).count();
    let most = 2 + seconds;
    assert!((1..=most).contains(&kinds("malformed_request")), "{seen:?}");
    assert!((1..=most).contains(&kinds("connections_per_minute")), "{seen:?}");
}
