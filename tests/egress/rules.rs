//! What rules allow and deny, by real clients in every protocol of the proxy, and what is recorded.

use agentapi_shared::egress::{EgressMode, EgressVerdict};

use crate::supervisor::{Fixture, policy};

fn usual() -> Fixture {
    Fixture::new(&policy(
        EgressMode::Enforce,
        &["good.test", "*.star.test", "nobody.test", "missing.test", "good.test:22", "good.test:8443"],
        &["bad.star.test"],
    ))
}

#[test]
fn clients_reach_what_is_allowed_by_every_way() {
    let fixture = usual();
    for (arguments, expected, port) in [
        ("-x http://127.0.0.1:3128 https://good.test/a", "hello from /a\n", 443),
        ("-x http://127.0.0.1:3128 https://GOOD.test/a", "hello from /a\n", 443),
        ("-x http://127.0.0.1:3128 https://a.star.test/b", "hello from /b\n", 443),
        ("-x socks5h://127.0.0.1:3128 https://good.test/c", "hello from /c\n", 443),
        ("-x http://127.0.0.1:3128 http://good.test/d", "plain\n", 80),
        ("-x socks5h://127.0.0.1:3128 http://good.test/e", "plain\n", 80),
        ("-x http://127.0.0.1:3128 -p http://good.test/f", "plain\n", 80),
        ("-x http://127.0.0.1:3128 https://good.test:8443/g", "hello from /g\n", 8443),
    ] {
        assert_eq!(fixture.curl(arguments), expected, "{arguments}");
        let decision = fixture.supervisor.decision();
        assert_eq!((decision.verdict, decision.port), (EgressVerdict::Allowed, port), "{arguments}: {decision:?}");
        assert_eq!(decision.address.as_deref(), Some("93.184.216.34"), "{arguments}");
        assert!(decision.bytes_down > 0 && decision.session == fixture.session, "{decision:?}");
    }
    assert_eq!(fixture.curl("-x http://127.0.0.1:3128 https://good.test/large").len(), 1024 * 1024);
    let decision = fixture.supervisor.decision();
    assert!(decision.bytes_down > 1024 * 1024 && decision.bytes_up > 500, "{decision:?}");
    // A program that takes its proxy from the environment.
    let script = "import urllib.request,ssl;print(urllib.request.urlopen('https://good.test/p',\
                  context=ssl.create_default_context(cafile='CA')).read())";
    let script = script.replace("CA", &fixture.dir.path().join("ca.pem").display().to_string());
    let said = fixture.inside.shell(&format!("HTTPS_PROXY=http://127.0.0.1:3128 python3 -c \"{script}\""));
    assert_eq!(said, "b'hello from /p\\n'\n");
}

#[test]
fn what_is_not_allowed_is_refused_with_the_reason_and_recorded() {
    let fixture = usual();
    for (host, port, status, rule) in [
        ("evil.test", 443, 403, "no_rule"),
        ("star.test", 443, 403, "no_rule"),
        ("bad.star.test", 443, 403, "deny bad.star.test"),
        ("BAD.star.test.", 443, 403, "deny bad.star.test"),
        ("good.test", 25, 403, "port"),
        ("good.test.evil.test", 443, 403, "no_rule"),
        ("nobody.test", 443, 502, "unreachable"),
        ("missing.test", 443, 502, "unresolved"),
    ] {
        let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        let answer = String::from_utf8(fixture.raw(request.as_bytes())).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        assert!(body.contains(host) && body.contains(&format!("({rule})")), "{host}: {body}");
        let decision = fixture.supervisor.decision();
        let verdict = if status == 403 { EgressVerdict::Denied } else { EgressVerdict::Failed };
        assert_eq!((decision.verdict, decision.rule.as_str()), (verdict, rule), "{host}");
        assert_eq!((decision.host.as_str(), decision.port), (host, port));
    }
    let said = fixture.curl("-x http://127.0.0.1:3128 http://evil.test/");
    assert!(said.contains("no rule of this session allows this host"), "{said}");
    assert_eq!(fixture.supervisor.decision().rule, "no_rule");
    // curl's error for reply 2, "connection not allowed by ruleset".
    let said = fixture.curl("-x socks5h://127.0.0.1:3128 https://evil.test/");
    assert!(said.contains("(2)"), "{said}");
    assert_eq!(fixture.supervisor.decision().rule, "no_rule");
    assert!(fixture.origin.seen().is_empty() && fixture.origin.plain().is_empty());
}

#[test]
fn observe_refuses_by_no_rule_and_says_what_it_would_have() {
    let fixture = Fixture::new(&policy(EgressMode::Observe, &["good.test"], &[]));
    for (arguments, expected, verdict, rule) in [
        ("https://good.test/a", "hello from /a\n", EgressVerdict::Allowed, "good.test"),
        ("https://evil.test/b", "hello from /b\n", EgressVerdict::WouldDeny, "no_rule"),
        ("http://93.184.216.34/c", "plain\n", EgressVerdict::WouldDeny, "ip_literal"),
        ("https://good.test:8443/d", "hello from /d\n", EgressVerdict::WouldDeny, "port"),
    ] {
        assert_eq!(fixture.curl(&format!("-x http://127.0.0.1:3128 {arguments}")), expected);
        let decision = fixture.supervisor.decision();
        assert_eq!((decision.verdict, decision.rule.as_str()), (verdict, rule), "{arguments}");
    }
    for (host, rule) in
        [("inside.test", "private_address"), ("meta.test", "metadata_address"), ("10.1.2.3", "private_address")]
    {
        fixture.curl(&format!("-x http://127.0.0.1:3128 http://{host}/"));
        let decision = fixture.supervisor.decision();
        assert_eq!((decision.verdict, decision.rule.as_str()), (EgressVerdict::Denied, rule), "{host}");
    }
}
