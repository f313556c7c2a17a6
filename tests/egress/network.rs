//! Three network namespaces: inside a session, where the gateway runs, and the world. A thread lives in each and does there what it is given.
//!
//! ```text
//! inside                gateway                     world
//! lo 127.0.0.1    -     veth 93.184.216.1    ---    93.184.216.34 and more, private and metadata addresses among them
//! ```

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{self, Sender};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

type Job = Box<dyn FnOnce() + Send>;

/// One namespace.
pub(crate) struct Net {
    jobs: Sender<Job>,
    thread: i32,
}

impl Net {
    /// A new one, with loopback up and a mount namespace of its own.
    pub(crate) fn new() -> Self {
        let (jobs, given) = mpsc::channel::<Job>();
        let (told, thread) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces: this test runs as root");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            told.send(gettid().as_raw()).unwrap();
            for job in given {
                job();
            }
        });
        let net = Self { jobs, thread: thread.recv().unwrap() };
        net.ip("link set lo up");
        net
    }

    /// Does something there.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs.send(Box::new(move || done.send(job()).unwrap())).unwrap();
        result.recv().expect("the job panicked")
    }

    /// Runs a program there.
    pub(crate) fn output(&self, mut command: Command) -> Output {
        // This machine may have a proxy of its own.
        let kept = ["PATH", "HOME"].map(|name| (name, std::env::var_os(name).unwrap_or_default()));
        command.env_clear().envs(kept);
        self.run(move || command.output().expect("the program runs"))
    }

    /// Runs a shell there; what it printed, whatever it said of its success.
    pub(crate) fn shell(&self, script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let output = self.output(command);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// `ip`, which has to succeed.
    pub(crate) fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        command.args(arguments.split_whitespace());
        let output = self.output(command);
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A listener there.
    pub(crate) fn listen(&self, address: &str) -> TcpListener {
        let address = address.to_owned();
        self.run(move || TcpListener::bind(&address).unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    /// Puts a file in the place of another, there only.
    pub(crate) fn bind_file(&self, source: &Path, target: &'static str) {
        let source = source.to_owned();
        self.run(move || {
            let none: Option<&str> = None;
            mount(Some(&source), target, none, MsFlags::MS_BIND, none)
                .unwrap_or_else(|error| panic!("{target}: {error}"));
        });
    }
}

/// Addresses of the world: two servers, a private one, and a metadata service.
pub(crate) const SERVER: &str = "93.184.216.34";
/// See [`SERVER`].
pub(crate) const OTHER: &str = "93.184.216.35";
/// See [`SERVER`].
pub(crate) const PRIVATE: &str = "10.1.2.3";
/// See [`SERVER`].
pub(crate) const METADATA: &str = "169.254.169.254";

/// Gateway and world, joined.
pub(crate) fn joined() -> (Net, Net) {
    let (gateway, world) = (Net::new(), Net::new());
    gateway.ip(&format!("link add gate type veth peer name world netns {}", world.thread));
    gateway.ip("addr add 93.184.216.1/24 dev gate");
    gateway.ip("link set gate up");
    for address in [SERVER, OTHER] {
        world.ip(&format!("addr add {address}/24 dev world"));
    }
    world.ip("link set world up");
    for address in [PRIVATE, METADATA] {
        world.ip(&format!("addr add {address}/32 dev lo"));
        gateway.ip(&format!("route add {address}/32 via {SERVER}"));
    }
    // Names: from the test's own file, then from the test's own server.
    (gateway, world)
}

/// Writes the names that the gateway's resolver knows.
pub(crate) fn write_hosts(path: &Path, names: &[(&str, &str)]) {
    let lines: String = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
    fs::write(path, lines).unwrap();
}
