//! Addresses that no session reaches, however they are written and whatever a name says.

use std::sync::atomic::Ordering;

use agentapi_shared::egress::{EgressMode, EgressVerdict};

use crate::dns;
use crate::network::{METADATA, OTHER, PRIVATE, SERVER};
use crate::supervisor::{Fixture, policy};

const NAMES: [&str; 7] =
    ["good.test", "inside.test", "meta.test", "local.test", "mixed.test", "rebind.test", "localhost.test"];

fn usual(allow_addresses: &[&str]) -> Fixture {
    Fixture::with(&policy(EgressMode::Enforce, &NAMES, &[]), allow_addresses)
}

fn connect(fixture: &Fixture, target: &str) -> (String, EgressVerdict, String) {
    let answer = fixture.raw(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes());
    let status = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    let decision = fixture.supervisor.decision();
    (status, decision.verdict, decision.rule)
}

#[test]
fn no_form_of_an_address_passes() {
    let fixture = usual(&[]);
    // Both are there, and the gateway's own namespace reaches them.
    for address in [PRIVATE, METADATA] {
        assert_eq!(fixture.gate.shell(&format!("curl -sS --max-time 10 http://{address}/")), "plain\n");
    }
    for (host, rule) in [
        (PRIVATE, "ip_literal"),
        (METADATA, "ip_literal"),
        (SERVER, "ip_literal"),
        ("127.0.0.1", "ip_literal"),
        ("127.1", "ip_literal"),
        ("2130706433", "ip_literal"),
        ("0x7f000001", "ip_literal"),
        ("0177.0.0.1", "ip_literal"),
        ("0xa9fea9fe", "ip_literal"),
        ("2852039166", "ip_literal"),
        ("169.254.169.254.", "ip_literal"),
        ("[::1]", "ip_literal"),
        ("[::ffff:169.254.169.254]", "ip_literal"),
        ("[fd00:ec2::254]", "ip_literal"),
        ("inside.test", "private_address"),
        ("INSIDE.test.", "private_address"),
        ("meta.test", "metadata_address"),
        ("local.test", "private_address"),
        // One of its addresses is fine, and it is not chance that decides.
        ("mixed.test", "private_address"),
        ("localhost", "no_rule"),
    ] {
        let (status, verdict, found) = connect(&fixture, &format!("{host}:80"));
        assert_eq!((verdict, found.as_str()), (EgressVerdict::Denied, rule), "{host}: {status}");
        assert!(status.starts_with("HTTP/1.1 403"), "{host}: {status}");
    }
    for host in [PRIVATE, METADATA, "127.0.0.1"] {
        let said = fixture.curl(&format!("-x socks5://127.0.0.1:3128 http://{host}/"));
        assert!(said.contains("(2)"), "{said}");
        assert_eq!(fixture.supervisor.decision().rule, "ip_literal");
    }
    assert_eq!(fixture.origin.plain().len(), 2, "only what the gateway's namespace asked for itself");
}

#[test]
fn an_operator_allows_a_private_address_and_never_metadata() {
    let fixture = usual(&["10.1.2.0/24", "169.254.0.0/16"]);
    assert_eq!(fixture.curl("-x http://127.0.0.1:3128 http://inside.test/"), "plain\n");
    assert_eq!(fixture.supervisor.decision().verdict, EgressVerdict::Allowed);
    for (host, rule) in [("local.test", "private_address"), ("meta.test", "metadata_address"), (PRIVATE, "ip_literal")]
    {
        let (_, _, found) = connect(&fixture, &format!("{host}:80"));
        assert_eq!(found, rule, "{host}");
    }
}

#[test]
fn the_address_that_was_judged_is_the_one_that_is_dialled() {
    let fixture = usual(&[]);
    // Public first, private for whoever asks a second time.
    let asked = dns::serve(&fixture.world, "test", &[SERVER, PRIVATE, OTHER]);
    assert_eq!(fixture.curl("-x http://127.0.0.1:3128 http://rebind.test/one"), "plain\n");
    let decision = fixture.supervisor.decision();
    assert_eq!((decision.verdict, decision.address.as_deref()), (EgressVerdict::Allowed, Some(SERVER)));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a name is asked for once");
    let (_, verdict, rule) = connect(&fixture, "rebind.test:80");
    assert_eq!((verdict, rule.as_str()), (EgressVerdict::Denied, "private_address"));
    assert_eq!(fixture.origin.plain().len(), 1);
}

/// What a domain of the host's search list has is not what was asked for, and allowed.
#[test]
fn a_name_is_never_taken_for_one_of_the_hosts_own_domain() {
    let rules = policy(EgressMode::Enforce, &["good.test", "wiki.example"], &[]);
    let fixture = Fixture::new(&rules);
    let asked = dns::serve(&fixture.world, "corp.test", &[SERVER]);
    let found = fixture.gate.shell("getent ahostsv4 wiki.example");
    assert!(found.contains(SERVER), "the host's own programs find it by the search list: {found}");
    let before = asked.load(Ordering::SeqCst);
    let (status, verdict, rule) = connect(&fixture, "wiki.example:80");
    assert_eq!((verdict, rule.as_str()), (EgressVerdict::Failed, "unresolved"), "{status}");
    assert_eq!(asked.load(Ordering::SeqCst), before);
}
