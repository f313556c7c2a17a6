//! A shim by itself, started as a supervisor does it, with a plan made here: its jail's network, and what it has given up once the agent runs.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agentapi_shared::jail::{
    CgroupStep, ExecStep, FilterStep, JailMode, JailPlan, MountStep, Namespace, SHIM_ID, SLOT_UID_BASE, SLOT_UIDS,
    ShimStep,
};
use agentapi_shared::shim::{
    EXIT_FILE, FINAL_FILE, JOURNAL_DIR, KEYFRAME_FILE, PACKET_HEADER_BYTES, PACKET_JSON, PROTOCOL, SOCKET, ShimEvent,
    ShimRequest, ShimStart, ShimStarted, packet_header, parse_packet_header,
};
use agentapi_shared::{Exit, ExitReason, SessionId, WindowSize};
use agentapi_tests::dir::TempDir;
use agentapi_tests::process::binary;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept, recv, recvmsg,
    sendmsg, socketpair,
};

/// Nothing here takes longer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// A slot that no supervisor of a test hands out.
pub(crate) const UID_BASE: u32 = SLOT_UID_BASE + 31_000 * SLOT_UIDS;
pub(crate) const PORT: u16 = 3128;

/// A shim and the directory of its spawn.
pub(crate) struct Shim {
    pub(crate) child: Child,
    pub(crate) dir: TempDir,
    pub(crate) init: i32,
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Shim {
    pub(crate) fn start(plan: JailPlan) -> Result<Self> {
        Self::start_by(Command::new(binary("agentapi-shim")), plan)
    }

    /// By a command of which the shim is what becomes of it in the end.
    pub(crate) fn start_by(command: Command, plan: JailPlan) -> Result<Self> {
        let (mut shim, control) = Self::begin(command, plan)?;
        shim.init = executed(&control)?;
        Ok(shim)
    }

    /// Sends what it is to do and does not wait for the answer, which comes by the socket.
    pub(crate) fn begin(mut command: Command, plan: JailPlan) -> Result<(Self, OwnedFd)> {
        let dir = TempDir::new();
        let listener = UnixListener::bind(dir.path().join(SOCKET))?;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let log = File::create(dir.path().join("shim.log"))?;
        let child = command.env_clear().current_dir("/").stdin(Stdio::from(theirs)).stderr(log).spawn()?;
        let shim = Self { child, dir, init: 0 };
        let session = SessionId::generate();
        let start = ShimStart { session, spawn: 1, size: WindowSize::DEFAULT, journal_bytes_max: 64 << 20, plan };
        let dir = File::open(shim.dir.path())?;
        let fds = [listener.as_raw_fd(), dir.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let message = serde_json::to_vec(&start)?;
        sendmsg::<UnixAddr>(ours.as_raw_fd(), &[IoSlice::new(&message)], &rights, MsgFlags::empty(), None)?;
        Ok((shim, ours))
    }

    /// Stops it as a supervisor does; how it ended.
    pub(crate) fn stop(&mut self, grace_ms: u64, force: bool) -> Result<Exit> {
        let mut supervisor = self.connect()?;
        greet(&mut supervisor)?;
        send(&mut supervisor, &ShimRequest::Stop { grace_ms, force })?;
        loop {
            if let ShimEvent::Exited { exit, .. } = receive(&mut supervisor)? {
                return Ok(exit);
            }
        }
    }

    fn connect(&self) -> Result<UnixStream> {
        let socket = UnixStream::connect(self.dir.path().join(SOCKET))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(socket)
    }
}

fn executed(control: &OwnedFd) -> Result<i32> {
    let mut buffer = vec![0; 64 * 1024];
    let length = recv(control.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    match serde_json::from_slice(&buffer[..length])? {
        ShimStarted::Executed { init_pid } => Ok(init_pid),
        other => bail!("{other:?}"),
    }
}

fn send(socket: &mut UnixStream, request: &ShimRequest) -> Result<()> {
    let body = serde_json::to_vec(request)?;
    socket.write_all(&[packet_header(PACKET_JSON, body.len()).as_slice(), &body].concat())?;
    Ok(())
}

fn receive(socket: &mut UnixStream) -> Result<ShimEvent> {
    let mut header = [0; PACKET_HEADER_BYTES];
    socket.read_exact(&mut header)?;
    let (length, _) = parse_packet_header(header).context("a packet")?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

fn greet(socket: &mut UnixStream) -> Result<()> {
    send(socket, &ShimRequest::Hello { protocol: PROTOCOL })?;
    let answer = receive(socket)?;
    ensure!(matches!(answer, ShimEvent::Hello { .. }), "{answer:?}");
    Ok(())
}

/// Ports and descriptors, as the gateway's side asks for them.
pub(crate) fn listeners(shim: &Shim) -> Result<(Vec<u16>, Vec<RawFd>)> {
    let mut socket = shim.connect()?;
    send(&mut socket, &ShimRequest::Listeners)?;
    let mut buffer = [0; 4096];
    let mut control = nix::cmsg_space!([RawFd; 16]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    let length = message.bytes;
    match serde_json::from_slice(&buffer[PACKET_HEADER_BYTES..length])? {
        ShimEvent::Listeners { ports } => Ok((ports, fds)),
        other => bail!("{other:?}"),
    }
}

pub(crate) fn plan(script: &str) -> JailPlan {
    let text = str::to_owned;
    let link = |target: &str| MountStep::Symlink { target: format!("/{target}"), to: format!("usr/{target}") };
    let device = |path: &str, major, minor| MountStep::Device { path: text(path), major, minor };
    let tmpfs = |target: &str| MountStep::Tmpfs { target: text(target), size_bytes: 1 << 20, mode: 0o1777, owner: 0 };
    JailPlan {
        mode: JailMode::Root { uid_base: UID_BASE },
        namespaces: vec![
            Namespace::User,
            Namespace::Pid,
            Namespace::Mount,
            Namespace::Network,
            Namespace::Ipc,
            Namespace::Uts,
            Namespace::Cgroup,
        ],
        cgroup: CgroupStep::default(),
        hostname: Some(text("inside")),
        listeners: vec![PORT, PORT + 1],
        mounts: vec![
            MountStep::Bind {
                source: text("/usr"),
                target: text("/usr"),
                read_only: true,
                identity: None,
                idmap: None,
            },
            link("bin"),
            link("lib"),
            link("lib64"),
            tmpfs("/dev"),
            device("/dev/null", 1, 3),
            device("/dev/zero", 1, 5),
            MountStep::Proc { target: text("/proc") },
            MountStep::Mask { target: text("/proc/kallsyms") },
            MountStep::Mask { target: text("/proc/scsi") },
            MountStep::ReadOnly { target: text("/proc/sys") },
            MountStep::DevPts { target: text("/dev/pts"), max: 4 },
            tmpfs("/tmp"),
            MountStep::SealReadOnly { target: text("/dev") },
            MountStep::SealReadOnly { target: text("/") },
        ],
        rlimits: Vec::new(),
        oom_score_adj: Some(500),
        landlock: None,
        filter: Some(FilterStep::Strict),
        shim: Some(ShimStep { host_id: Some(UID_BASE + SHIM_ID) }),
        exec: ExecStep {
            argv: vec![text("bash"), text("-c"), text(script)],
            env: vec![(text("PATH"), text("/usr/bin:/bin"))],
            cwd: text("/tmp"),
        },
    }
}

/// All that the first connection to a listener brings.
pub(crate) fn said_through(listener: RawFd) -> Result<String> {
    let (told, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let read = accept(listener).and_then(|socket| {
            let mut buffer = [0; 512];
            loop {
                match recv(socket, &mut buffer, MsgFlags::empty())? {
                    0 => return Ok(()),
                    count => all.extend_from_slice(&buffer[..count]),
                }
            }
        });
        // Nobody listens if it took too long.
        let _told = told.send(read.map(|()| all));
    });
    Ok(String::from_utf8(said.recv_timeout(TIMEOUT)??)?)
}

/// A field of `/proc/PID/status`.
pub(crate) fn status(pid: i32, field: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| field.to_owned())?.trim().to_owned())
}

#[test]
fn the_listeners_of_a_jail_are_all_its_network() -> Result<()> {
    let host = TcpListener::bind("127.0.0.1:0")?;
    let port = host.local_addr()?.port();
    // What it finds goes out through the listener.
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{PORT}; {{ hostname; tail -n +3 /proc/net/dev | cut -d: -f1; \
         (exec 4<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo host-reached || echo host-refused; \
         (exec 4<>/dev/tcp/192.0.2.1/80) 2>/dev/null && echo out || echo no-way-out; }} >&3; exec 3>&-; sleep 1000"
    );
    let shim = Shim::start(plan(&script))?;
    let mut supervisor = shim.connect()?;
    greet(&mut supervisor)?;
    let (ports, fds) = listeners(&shim)?;
    assert_eq!((ports, fds.len()), (vec![PORT, PORT + 1], 2));
    let said = said_through(fds[0])?;
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["inside", "lo", "host-refused", "no-way-out"]);
    // The one who asked for listeners was not taken for a new supervisor.
    greet(&mut supervisor)?;
    // As often as it is asked for: the shim keeps its own.
    assert_eq!(listeners(&shim)?.1.len(), 2);
    Ok(())
}

#[test]
fn a_shim_that_serves_is_nobody_and_still_writes_everything_down() -> Result<()> {
    // Three segments of the journal, two of which the shim has to make as whoever it is then.
    let mut shim = Shim::start(plan("head -c 9000000 /dev/zero | tr '\\0' 'x'; echo; exec sleep 1000"))?;
    let pid = i32::try_from(shim.child.id())?;
    let own = UID_BASE + SHIM_ID;
    for (pid, id) in [(pid, own), (shim.init, UID_BASE + 1000)] {
        for field in ["Uid", "Gid"] {
            assert_eq!(status(pid, field)?, vec![id.to_string(); 4].join("\t"), "{field} of {pid}");
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(pid, set)?, "0000000000000000", "{set} of {pid}");
        }
        assert_eq!((status(pid, "NoNewPrivs")?, status(pid, "Seccomp")?), ("1".to_owned(), "2".to_owned()));
        assert_eq!(status(pid, "Groups")?, "");
    }
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = task?.file_name().to_string_lossy().parse()?;
        assert_eq!((status(thread, "Seccomp")?, status(thread, "Uid")?), ("2".to_owned(), status(pid, "Uid")?));
    }
    let mut supervisor = shim.connect()?;
    greet(&mut supervisor)?;
    let dir = shim.dir.path().to_owned();
    wait_for("a longer journal", || Ok(segments(&dir)? >= 3))?;
    send(&mut supervisor, &ShimRequest::Stop { grace_ms: 0, force: true })?;
    let ended = loop {
        if let ShimEvent::Exited { exit, .. } = receive(&mut supervisor)? {
            break exit;
        }
    };
    assert_eq!(ended.reason, ExitReason::Killed);
    let status = shim.child.wait()?;
    assert!(status.success(), "{status}: {}", fs::read_to_string(dir.join("shim.log"))?);
    for name in [EXIT_FILE, FINAL_FILE, KEYFRAME_FILE] {
        assert_eq!(fs::metadata(dir.join(name))?.uid(), own, "{name}");
    }
    let exit: Exit = serde_json::from_slice(&fs::read(dir.join(EXIT_FILE))?)?;
    assert_eq!(exit.reason, ExitReason::Killed);
    // What is the supervisor's stays the supervisor's.
    assert_eq!((fs::metadata(dir.join(SOCKET))?.uid(), fs::metadata(&dir)?.uid()), (0, 0));
    assert_eq!(fs::metadata(&dir)?.mode() & 0o7777, 0o1770);
    Ok(())
}

fn segments(dir: &Path) -> Result<usize> {
    Ok(fs::read_dir(dir.join(JOURNAL_DIR))?.count())
}

/// Waits for a fact that nobody tells.
pub(crate) fn wait_for(what: &str, fact: impl Fn() -> Result<bool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(agentapi_tests::wait::eventually(what, || async { fact().ok()?.then_some(()) }));
    Ok(())
}
