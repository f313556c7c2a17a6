//! The broker with the real gateway: `cargo build -p agentapi-egress` comes first.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use agentapi_shared::egress::{EgressLimits, EgressMode, EgressRule};
use agentapi_shared::runtime::{OnEnd, TaskGroup};
use futures_util::FutureExt;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, listen, recv, sendmsg, socket,
};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::*;

/// How long a fact may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A state directory, what its broker took, and the gateways it started; those are killed at the end.
struct Host {
    dir: std::path::PathBuf,
    taken: Arc<Mutex<Vec<EgressDecision>>>,
    children: Arc<Mutex<Vec<Child>>>,
    /// How many times storing fails from here on.
    failures: Arc<AtomicUsize>,
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.children.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let _gone = child.kill();
            let _status = child.wait();
        }
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

impl Host {
    fn new() -> Self {
        // Longer than a socket's address may be.
        let name = format!("agentapi-gateway-{}-{}", SessionId::generate(), "x".repeat(80));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        Self { dir, taken: Arc::default(), children: Arc::default(), failures: Arc::default() }
    }

    fn program() -> std::path::PathBuf {
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("agentapi-egress");
        assert!(program.exists(), "{} is missing: run `cargo build -p agentapi-egress` first", program.display());
        program
    }

    /// A broker as a daemon has it; it ends with the group.
    fn broker(&self) -> (Gateway, TaskGroup) {
        self.broker_of(Self::program(), Vec::new())
    }

    /// One with another program, or other addresses.
    fn broker_of(&self, program: std::path::PathBuf, allow_addresses: Vec<String>) -> (Gateway, TaskGroup) {
        let children = Arc::clone(&self.children);
        let place = Place {
            dir: self.dir.join("gateway"),
            program,
            allow_addresses,
            keep: Arc::new(move |child| children.lock().unwrap_or_else(PoisonError::into_inner).push(child)),
        };
        let (taken, failures) = (Arc::clone(&self.taken), Arc::clone(&self.failures));
        let sink = move |more: Taken| {
            let fails = failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if fails {
                return async { Err("the disk is full".into()) }.boxed();
            }
            taken.lock().unwrap_or_else(PoisonError::into_inner).extend(more.decisions);
            async { Ok(()) }.boxed()
        };
        let (gateway, orders) = Gateway::new();
        let tasks = TaskGroup::new();
        tasks.spawn("broker", OnEnd::Continue, Broker::new(place, Box::new(sink)).run(orders, tasks.cancelled()));
        (gateway, tasks)
    }

    /// Those that run.
    fn alive(&self) -> usize {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.iter_mut().filter_map(|child| child.try_wait().unwrap().is_none().then_some(())).count()
    }

    /// Names of their sockets.
    fn sockets(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("gateway")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".sock")).collect()
    }

    fn pids(&self) -> Vec<u32> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Child::id).collect()
    }

    fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A session's egress: its listener, and a source that gives duplicates as a shim does.
fn egress(listener: &TcpListener) -> Egress {
    let listener = listener.try_clone().unwrap();
    let limits =
        EgressLimits { connections_max: 10, connections_per_minute: 1000, bytes_per_second: None, bytes_max: None };
    Egress {
        policy: EgressPolicy { mode: EgressMode::Enforce, allow: Vec::new(), deny: Vec::new(), limits },
        roles: vec![ListenerRole::Proxy],
        listeners: Arc::new(move || {
            let given = listener.try_clone().map(|listener| vec![OwnedFd::from(listener)]);
            async { given }.boxed()
        }),
    }
}

/// Asks the proxy for something that is denied; whether it was there to say so.
fn is_refused(listener: &TcpListener) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 403") && answer.contains("no_rule"))
}

#[tokio::test]
async fn a_gateway_is_started_when_needed_found_again_and_replaced_when_it_dies() {
    let host = Host::new();
    let (gateway, tasks) = host.broker();
    gateway.settled().await;
    let (listener, session) = (TcpListener::bind("127.0.0.1:0").unwrap(), SessionId::generate());
    assert!(host.pids().is_empty(), "nobody needs one yet");
    gateway.serve(session, 1, egress(&listener)).await.unwrap();
    assert!(is_refused(&listener));
    until("the decision is stored", || host.taken() == 1).await;
    // The supervisor dies, the gateway does not notice, and decides on.
    tasks.shutdown();
    assert!(tasks.drain(PATIENCE).await);
    assert!(is_refused(&listener));
    let (gateway, _tasks) = host.broker();
    until("what was decided meanwhile is stored", || host.taken() == 2).await;
    gateway.serve(session, 1, egress(&listener)).await.unwrap();
    gateway.settled().await;
    assert!(is_refused(&listener));
    until("the third", || host.taken() == 3).await;
    let [pid] = host.pids()[..] else { panic!("one gateway, found again: {:?}", host.pids()) };
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    until("another gateway", || host.pids().len() == 2).await;
    // The listener was open all the time: who connects meanwhile waits for the new one.
    assert!(is_refused(&listener));
    until("the fourth", || host.taken() == 4).await;
    gateway.release(session, 1).await;
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    gateway.serve(SessionId::generate(), 1, egress(&other)).await.unwrap();
    listener.set_nonblocking(true).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // Nobody else takes it any more.
    assert!(listener.accept().is_ok());
}

#[tokio::test]
async fn sessions_that_nobody_claims_are_released() {
    let host = Host::new();
    let (gateway, tasks) = host.broker();
    let (claimed, orphan) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (one, two) = (SessionId::generate(), SessionId::generate());
    gateway.serve(one, 1, egress(&claimed)).await.unwrap();
    gateway.serve(two, 1, egress(&orphan)).await.unwrap();
    tasks.shutdown();
    assert!(tasks.drain(PATIENCE).await);
    let (gateway, _tasks) = host.broker();
    gateway.serve(one, 1, egress(&claimed)).await.unwrap();
    gateway.settled().await;
    // Orders are obeyed in turn, so this one comes behind the releases.
    gateway.serve(one, 1, egress(&claimed)).await.unwrap();
    assert!(is_refused(&claimed));
    orphan.set_nonblocking(true).unwrap();
    let _client = TcpStream::connect(orphan.local_addr().unwrap()).unwrap();
    assert!(orphan.accept().is_ok(), "the gateway listens no longer");
}

#[tokio::test]
async fn a_gateway_of_another_release_retires_once_its_sessions_have_a_new_one() {
    let host = Host::new();
    let dir = host.dir.join("gateway");
    std::fs::create_dir(&dir).unwrap();
    let heard = older_gateway(&dir);
    let (gateway, _tasks) = host.broker();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    gateway.serve(SessionId::generate(), 1, egress(&listener)).await.unwrap();
    assert!(is_refused(&listener));
    assert_eq!(host.pids().len(), 1);
    gateway.settled().await;
    let retired = tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)).await.unwrap();
    assert_eq!(retired.as_deref(), Ok("retire"));
    assert!(dir.join("8.sock").exists(), "the newer one has the next number");
}

/// As an older release would be: it says its version, and hears that it should retire.
fn older_gateway(dir: &Path) -> std::sync::mpsc::Receiver<String> {
    let made = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    crate::files::with_short_path(dir, "7.sock", |path| Ok(bind(made.as_raw_fd(), &UnixAddr::new(path)?)?)).unwrap();
    listen(&made, Backlog::new(4).unwrap()).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let connection = accept(made.as_raw_fd()).unwrap();
        let hello =
            serde_json::json!({ "type": "hello", "protocol": 1, "version": "0.0.1", "sessions": [] }).to_string();
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = recv(connection, &mut buffer, MsgFlags::empty()) {
            let request: serde_json::Value = serde_json::from_slice(&buffer[..length]).unwrap();
            if request["type"] == "hello" {
                let parts = [IoSlice::new(hello.as_bytes())];
                sendmsg::<UnixAddr>(connection, &parts, &[], MsgFlags::empty(), None).unwrap();
            } else {
                told.send(request["type"].as_str().unwrap().to_owned()).unwrap();
            }
        }
    });
    heard
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_clear_error() {
    let host = Host::new();
    let place = Place {
        dir: host.dir.join("gateway"),
        program: "/nonexistent/agentapi-egress".into(),
        allow_addresses: Vec::new(),
        keep: Arc::new(drop),
    };
    let (gateway, orders) = Gateway::new();
    let tasks = TaskGroup::new();
    let sink = |_| async { Ok(()) }.boxed();
    tasks.spawn("broker", OnEnd::Continue, Broker::new(place, Box::new(sink)).run(orders, tasks.cancelled()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let served = gateway.serve(SessionId::generate(), 1, egress(&listener)).await;
    assert!(matches!(served, Err(GatewayError::Gone)), "{served:?}");
    let mut short = egress(&listener);
    short.listeners = Arc::new(|| async { Ok(Vec::new()) }.boxed());
    let served = gateway.serve(SessionId::generate(), 1, short).await;
    assert!(matches!(served, Err(GatewayError::Listeners(_))), "{served:?}");
}

#[tokio::test]
async fn a_gateway_of_another_configuration_is_replaced_and_one_is_left() {
    let host = Host::new();
    let (gateway, tasks) = host.broker_of(Host::program(), vec!["10.1.2.0/24".to_owned()]);
    let (listener, session) = (TcpListener::bind("127.0.0.1:0").unwrap(), SessionId::generate());
    gateway.serve(session, 1, egress(&listener)).await.unwrap();
    tasks.shutdown();
    assert!(tasks.drain(PATIENCE).await);
    let (gateway, _tasks) = host.broker();
    gateway.serve(session, 1, egress(&listener)).await.unwrap();
    gateway.settled().await;
    until("the first has ended", || host.alive() == 1).await;
    until("its socket is gone", || host.sockets() == ["2.sock"]).await;
    // The newer one is still the one that is spoken to: what it decides arrives, and nobody starts a third.
    assert!(is_refused(&listener));
    until("a decision of the newer one", || host.taken() == 1).await;
    gateway.serve(session, 1, egress(&listener)).await.unwrap();
    assert!(is_refused(&listener));
    assert_eq!((host.pids().len(), host.alive()), (2, 1));
}

#[tokio::test]
async fn a_gateway_whose_program_was_replaced_is_replaced() {
    let host = Host::new();
    let (program, newer) = (host.dir.join("agentapi-egress"), host.dir.join("newer"));
    let (listener, session) = (TcpListener::bind("127.0.0.1:0").unwrap(), SessionId::generate());
    std::fs::copy(Host::program(), &program).unwrap();
    for gateways in [1, 1, 2] {
        if gateways == 2 {
            // As an installation does it, with the same release.
            std::fs::copy(Host::program(), &newer).unwrap();
            std::fs::rename(&newer, &program).unwrap();
        }
        let (gateway, tasks) = host.broker_of(program.clone(), Vec::new());
        gateway.serve(session, 1, egress(&listener)).await.unwrap();
        gateway.settled().await;
        until("one is left", || host.alive() == 1).await;
        assert_eq!(host.pids().len(), gateways);
        tasks.shutdown();
        assert!(tasks.drain(PATIENCE).await);
    }
}

#[tokio::test]
async fn a_connection_that_ends_is_made_again_and_no_other_gateway_is_started() {
    let host = Host::new();
    let (gateway, _tasks) = host.broker();
    let (listener, session) = (TcpListener::bind("127.0.0.1:0").unwrap(), SessionId::generate());
    gateway.serve(session, 1, egress(&listener)).await.unwrap();
    // Somebody else connects, which ends the broker's connection.
    let stranger = socket::Socket::connect(&host.dir.join("gateway"), "1.sock").unwrap();
    // The broker comes back, which ends this one.
    assert!(tokio::time::timeout(PATIENCE, stranger.receive()).await.unwrap().is_err());
    gateway.serve(session, 1, egress(&listener)).await.unwrap();
    assert!(is_refused(&listener));
    until("a decision", || host.taken() == 1).await;
    assert_eq!(host.pids().len(), 1);
}

#[tokio::test]
async fn a_session_that_could_not_be_served_is_served_once_it_can_be() {
    let host = Host::new();
    let program = host.dir.join("agentapi-egress");
    let (gateway, _tasks) = host.broker_of(program.clone(), Vec::new());
    let (listener, session) = (TcpListener::bind("127.0.0.1:0").unwrap(), SessionId::generate());
    let there = Arc::new(AtomicBool::new(false));
    let (usual, shim) = (egress(&listener), Arc::clone(&there));
    let listeners = Arc::clone(&usual.listeners);
    let slow = Egress {
        listeners: Arc::new(move || {
            if shim.load(Ordering::Relaxed) {
                listeners()
            } else {
                async { Err(io::ErrorKind::TimedOut.into()) }.boxed()
            }
        }),
        ..usual
    };
    let served = gateway.serve(session, 1, slow.clone()).await;
    assert!(matches!(served, Err(GatewayError::Listeners(_))), "{served:?}");
    there.store(true, Ordering::Relaxed);
    let served = gateway.serve(session, 1, slow).await;
    assert!(matches!(served, Err(GatewayError::Gone)), "{served:?}");
    // Nobody asks again, and it is served all the same.
    std::os::unix::fs::symlink(Host::program(), &program).unwrap();
    until("it is served", || host.pids().len() == 1).await;
    let asked = tokio::task::spawn_blocking(move || is_refused(&listener)).await.unwrap();
    assert!(asked);
}

#[tokio::test]
async fn decisions_that_could_not_be_stored_are_stored_later() {
    let host = Host::new();
    let (gateway, _tasks) = host.broker();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    gateway.serve(SessionId::generate(), 1, egress(&listener)).await.unwrap();
    host.failures.store(2, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(is_refused(&listener));
    }
    until("all three are stored", || host.taken() == 3).await;
    assert_eq!(host.failures.load(Ordering::Relaxed), 0);
}

/// Both sides have more to say than their sockets hold.
#[tokio::test]
async fn decisions_that_nobody_takes_hold_no_session_up() {
    let host = Host::new();
    let (gateway, _tasks) = host.broker();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut loud = egress(&listener);
    loud.policy.limits.connections_per_minute = 100_000;
    gateway.serve(SessionId::generate(), 1, loud).await.unwrap();
    // Nothing is read while what was read is not stored: some seconds, by the broker's waits.
    host.failures.store(3, Ordering::Relaxed);
    let decided = 1500;
    for _ in 0..decided {
        assert!(is_refused(&listener));
    }
    let rule = |number: usize| format!("{}.{}.{number}.example.com", "a".repeat(60), "b".repeat(40)).parse().unwrap();
    let rules: Vec<EgressRule> = (0..1000).map(rule).collect();
    let listeners: Vec<TcpListener> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let served = listeners.iter().map(|listener| {
        let mut large = egress(listener);
        large.policy.deny.clone_from(&rules);
        gateway.serve(SessionId::generate(), 1, large)
    });
    for served in futures_util::future::join_all(served).await {
        served.unwrap();
    }
    until("all decisions are stored", || host.taken() == decided).await;
    assert!(is_refused(&listeners[7]));
}

#[tokio::test]
async fn a_program_that_never_gets_ready_is_ended() {
    let host = Host::new();
    let program = host.dir.join("agentapi-egress");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (gateway, _tasks) = host.broker_of(program, Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let served = gateway.serve(SessionId::generate(), 1, egress(&listener)).await;
    assert!(matches!(served, Err(GatewayError::Gone)), "{served:?}");
    assert!(!host.pids().is_empty());
    until("it has ended", || host.alive() == 0).await;
}
