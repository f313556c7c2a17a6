//! The gateway outlives its supervisor, is replaced without a cut, and has nothing that it does not need.

use std::fs;
use std::io::{Read as _, Write as _};

use agentapi_shared::egress::{EgressMode, EgressVerdict, GatewayRequest, ListenerRole};

use crate::supervisor::{Fixture, Supervisor, policy, start};

fn usual() -> Fixture {
    Fixture::new(&policy(EgressMode::Enforce, &["good.test", "good.test:22"], &[]))
}

#[test]
fn a_supervisor_that_goes_cuts_no_tunnel_and_loses_no_decision() {
    let mut fixture = usual();
    let mut tunnel = fixture.tunnel("good.test:22");
    tunnel.read_exact(&mut [0; 15]).unwrap();
    for path in ["one", "two"] {
        fixture.curl(&format!("-x http://127.0.0.1:3128 https://good.test/{path}"));
    }
    let (first, one) = fixture.supervisor.numbered();
    fixture.supervisor.send(&GatewayRequest::Ack { seq: first }, &[]);
    let (second, two) = fixture.supervisor.numbered();
    assert_eq!((first, second), (1, 2));
    fixture.supervisor.hang_up();
    // Nobody is connected, and connections are decided all the same.
    assert_eq!(fixture.curl("-x http://127.0.0.1:3128 https://good.test/three"), "hello from /three\n");
    let (other, sessions) = Supervisor::connect(&fixture.gateway.socket);
    fixture.supervisor = other;
    assert_eq!(sessions, [(fixture.session, 1)]);
    tunnel.write_all(b"still here").unwrap();
    let mut echoed = [0; 10];
    tunnel.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"still here");
    let (seq, again) = fixture.supervisor.numbered();
    assert_eq!((seq, again.id), (second, two.id), "what was not acknowledged comes again");
    assert_ne!(one.id, two.id);
    assert_eq!(fixture.supervisor.numbered().0, 3, "and then what was decided meanwhile");
    drop(tunnel);
    let (seq, tunnelled) = fixture.supervisor.numbered();
    assert_eq!((seq, tunnelled.bytes_up, tunnelled.bytes_down), (4, 10, 25));
    // A supervisor that comes while the other is there replaces it.
    let (newest, _) = Supervisor::connect(&fixture.gateway.socket);
    assert!(fixture.supervisor.event().is_none());
    assert_eq!(newest.numbered().0, 2);
}

#[test]
fn a_retired_gateway_ends_with_its_last_tunnel() {
    let mut fixture = usual();
    let mut tunnel = fixture.tunnel("good.test:22");
    tunnel.read_exact(&mut [0; 15]).unwrap();
    let mut newer = start(&fixture.gate, fixture.dir.path(), "newer.sock", &[]);
    let (supervisor, _) = Supervisor::connect(&newer.socket);
    let rules = policy(EgressMode::Enforce, &["good.test"], &[]);
    supervisor.serve(fixture.session, &rules, &[ListenerRole::Proxy], &[&fixture.proxy]).unwrap();
    fixture.supervisor.send(&GatewayRequest::Retire, &[]);
    // It refuses new work from here on, so its listeners are closed.
    let refused = fixture.supervisor.serve(
        agentapi_shared::SessionId::generate(),
        &rules,
        &[ListenerRole::Proxy],
        &[&fixture.proxy],
    );
    assert!(refused.is_err_and(|detail| detail.contains("retires")));
    for number in 0..5 {
        assert_eq!(fixture.curl("-x http://127.0.0.1:3128 https://good.test/new"), "hello from /new\n");
        assert_eq!(supervisor.numbered().0, number + 1, "the newer one serves all that is new");
    }
    tunnel.write_all(b"on").unwrap();
    tunnel.read_exact(&mut [0; 2]).unwrap();
    drop(tunnel);
    let (seq, decision) = fixture.supervisor.numbered();
    assert_eq!((decision.verdict, decision.bytes_down), (EgressVerdict::Allowed, 17));
    fixture.supervisor.send(&GatewayRequest::Ack { seq }, &[]);
    assert!(fixture.gateway.ended().success());
    assert!(newer.child.try_wait().unwrap().is_none());
}

#[test]
fn a_bad_session_is_refused_and_harms_no_other() {
    let fixture = usual();
    let rules = policy(EgressMode::Enforce, &["good.test"], &[]);
    let id = agentapi_shared::SessionId::generate();
    let serve = |roles: &[ListenerRole], listeners: &[&std::net::TcpListener]| {
        fixture.supervisor.serve(id, &rules, roles, listeners).unwrap_err()
    };
    assert!(serve(&[ListenerRole::Proxy], &[]).contains("0 came"));
    assert!(serve(&[], &[]).contains("1 to 16"));
    let connected = std::net::TcpListener::from(std::os::fd::OwnedFd::from(fixture.tunnel("good.test:22")));
    assert!(serve(&[ListenerRole::Proxy], &[&connected]).contains("no listening socket"));
    let model = |upstream: &str, header: &str| ListenerRole::Model {
        name: "m".to_owned(),
        upstream: upstream.to_owned(),
        header: header.to_owned(),
        value: agentapi_shared::egress::SecretText::new("k".to_owned()),
    };
    for (upstream, header) in [
        ("http://good.test", "x-api-key"),
        ("https://93.184.216.34", "x-api-key"),
        ("https://user@good.test", "x-api-key"),
        ("https://good.test/?a=b", "x-api-key"),
        ("good.test", "x-api-key"),
        ("https://good.test", "x api key"),
    ] {
        let said = serve(&[model(upstream, header)], &[&fixture.proxy]);
        assert!(said.contains("cannot be set up"), "{upstream} {header}: {said}");
    }
    assert_eq!(fixture.curl("-x http://127.0.0.1:3128 https://good.test/x"), "hello from /x\n");
}

#[test]
fn it_has_no_privileges_and_keeps_its_memory_to_itself() {
    let fixture = usual();
    let pid = fixture.gateway.child.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("{name}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    // One below the first id of sessions.
    let id = "1073741823 1073741823 1073741823 1073741823";
    assert_eq!((line("Uid").as_str(), line("Gid").as_str(), line("Groups").as_str()), (id, id, ""));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!(line("NoNewPrivs"), "1");
    // What is not dumpable belongs to root in /proc, and cannot be read by its own user.
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/mem")).unwrap()), 0);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
    // A session leader of its own: a terminal that hangs up does not take it along.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string());
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "0\n");
    let socket = fs::metadata(&fixture.gateway.socket).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600);
}
