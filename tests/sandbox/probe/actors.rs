//! Badly behaved agents: what the scenarios of the harness start as a session's command.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::setsid;

use crate::process::nap;
use crate::run::say;
use crate::sys;

/// Acts until it is ended, mostly.
pub(crate) fn act(actor: &str, rest: &[&str]) -> ExitCode {
    match (actor, rest) {
        ("strays", [count]) => strays(count.parse().unwrap_or(0)),
        ("stopped", []) => stopped(),
        ("answers", [bytes]) => answers(bytes.parse().unwrap_or(0)),
        ("typed", [file]) => typed(Path::new(file)),
        ("flood", []) => flood(),
        ("sizes", []) => sizes(),
        ("burn", [count]) => burn(count.parse().unwrap_or(1)),
        ("deep", [count, files, link]) => deep(count.parse().unwrap_or(0), files.parse().unwrap_or(0), link),
        ("idle", [..]) => until_end_of_input(),
        ("hold", [key, queue, secret]) => hold(key.parse().unwrap_or(0), queue, secret),
        ("listen", [name, port]) => listen(name, port),
        ("ask", [slowness]) => ask(slowness.parse().unwrap_or(1)),
        ("hoard", [port, count]) => hoard(port, count.parse().unwrap_or(0)),
        ("connect", paths) => connect(paths),
        _ => ExitCode::FAILURE,
    }
}

/// Ready, and then nothing until the end.
fn wait_for_end() -> ! {
    say("ready");
    loop {
        nix::unistd::pause();
    }
}

/// Processes in sessions of their own, orphans, deaf to every signal that can be ignored.
fn strays(count: u32) -> ExitCode {
    for signal in 1..32 {
        sys::ignore(signal);
    }
    for _ in 0..count {
        if sys::fork() == Ok(0) {
            let _own = setsid();
            if sys::fork() == Ok(0) {
                loop {
                    nix::unistd::pause();
                }
            }
            sys::exit_now(0);
        }
    }
    wait_for_end()
}

/// Stopped, with a child in `vfork`'s wait: neither can run a handler.
fn stopped() -> ExitCode {
    if sys::fork() == Ok(0) {
        let _stopped = raise(Signal::SIGSTOP);
        sys::exit_now(0);
    }
    say("ready");
    let _stopped = raise(Signal::SIGSTOP);
    ExitCode::SUCCESS
}

fn raw() {
    if let Ok(mut settings) = tcgetattr(std::io::stdin()) {
        cfmakeraw(&mut settings);
        let _set = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &settings);
    }
}

/// Asks the terminal for things it must not tell or do, then for its kind, which it does tell: what came before that is the harvest.
fn answers(length: usize) -> ExitCode {
    raw();
    let mut out = std::io::stdout();
    let title = "\x1b]0;typed by nobody\x07";
    let asked = ["\x1b[21t", "\x1b[20t", "\x1bP$q\"p\x1b\\", "\x1b]52;c;?\x07", "\x1bP+q544e\x1b\\", "\x1b[?26n"];
    let long = format!("\x1b]0;{}\x07\x1b]52;c;{}\x07", "t".repeat(length), "QUFB".repeat(length / 4));
    let _written =
        out.write_all(format!("{title}{}{long}\x1b[c", asked.concat()).as_bytes()).and_then(|()| out.flush());
    let mut seen = Vec::new();
    let mut byte = [0; 1];
    while std::io::stdin().read_exact(&mut byte).is_ok() {
        seen.push(byte[0]);
        if seen.starts_with(b"\x1b[?") && byte[0] == b'c'
            || seen.ends_with(b"c") && seen.windows(3).any(|w| w == b"\x1b[?")
        {
            break;
        }
    }
    let _told = fs::write("answers", &seen);
    wait_for_end()
}

/// Writes down every byte that is typed.
fn typed(file: &Path) -> ExitCode {
    raw();
    let Ok(mut file) = File::create(file) else { return ExitCode::FAILURE };
    say("ready");
    let mut buffer = [0; 256];
    while let Ok(length) = std::io::stdin().read(&mut buffer) {
        if length == 0 || file.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _marked = file.write_all(b"<end>");
    wait_for_end()
}

/// Output without end.
fn flood() -> ExitCode {
    let line = "y\n".repeat(4096);
    let mut out = std::io::stdout();
    while out.write_all(line.as_bytes()).is_ok() {}
    ExitCode::SUCCESS
}

/// Sizes that no window has.
fn sizes() -> ExitCode {
    for (rows, columns) in [(0_u16, 0_u16), (u16::MAX, u16::MAX), (1, u16::MAX), (u16::MAX, 1)] {
        let size = [rows, columns, 0, 0];
        let _set = sys::call(libc::SYS_ioctl, &[0, libc::TIOCSWINSZ as usize, sys::at(&size)]);
        say(&"w".repeat(300));
    }
    wait_for_end()
}

/// Processor time, on every core.
fn burn(count: u32) -> ExitCode {
    for _ in 0..count {
        if sys::fork() == Ok(0) {
            loop {
                std::hint::black_box(0);
            }
        }
    }
    wait_for_end()
}

/// Directories within directories, a hole of many bytes, a link out, and many files.
fn deep(depth: u32, files: u32, link: &str) -> ExitCode {
    let _hole = File::create("hole").and_then(|file| file.set_len(i64::MAX as u64 / 2));
    let _link = std::os::unix::fs::symlink(link, "link-out");
    let _made = fs::create_dir("many");
    for number in 0..files {
        if File::create(format!("many/{number}")).is_err() {
            break;
        }
    }
    for _ in 0..depth {
        if fs::create_dir("d").and_then(|()| std::env::set_current_dir("d")).is_err() {
            break;
        }
    }
    nap(1);
    wait_for_end()
}

fn until_end_of_input() -> ExitCode {
    let mut rest = Vec::new();
    let _end = std::io::stdin().read_to_end(&mut rest);
    ExitCode::SUCCESS
}

/// Bait: objects of System V, a message queue and a key that everybody may use, gone with the end of input.
fn hold(key: i32, queue: &str, secret: &str) -> ExitCode {
    use sys::{at, c, call};
    /// `IPC_CREAT` and permissions for all.
    const FOR_ALL: usize = 0o1000 | 0o666;
    let key = key as usize;
    let memory = call(libc::SYS_shmget, &[key, 4096, FOR_ALL]);
    let semaphores = call(libc::SYS_semget, &[key, 1, FOR_ALL]);
    let messages = call(libc::SYS_msgget, &[key, FOR_ALL]);
    let name = c(queue);
    let attributes = [0_i64, 1, 64, 0, 0, 0, 0, 0];
    let flags = (libc::O_CREAT | libc::O_RDWR) as usize;
    let made = call(libc::SYS_mq_open, &[at(name.to_bytes_with_nul()), flags, 0o666, at(&attributes)]);
    // The mode of a queue is cut by the umask.
    if let Ok(fd) = made {
        let _open = call(libc::SYS_fchmod, &[fd as usize, 0o666]);
    }
    let (kind, label) = (c("user"), c(queue));
    /// `KEYCTL_JOIN_SESSION_KEYRING`: only who possesses a key may open it to others, and services of systemd do not possess their user's.
    const JOIN: usize = 1;
    let _own = call(libc::SYS_keyctl, &[JOIN, 0]);
    /// `KEY_SPEC_SESSION_KEYRING`.
    const RING: usize = -3_isize as usize;
    let added = call(
        libc::SYS_add_key,
        &[at(kind.to_bytes_with_nul()), at(label.to_bytes_with_nul()), at(secret.as_bytes()), secret.len(), RING],
    );
    let serial = added.unwrap_or(0);
    /// `KEYCTL_SETPERM`: possessor everything, everybody else may look, read and search.
    const SET_PERMISSIONS: usize = 5;
    let _open = call(libc::SYS_keyctl, &[SET_PERMISSIONS, serial as usize, 0x3f0b_0b0b]);
    say(&serial.to_string());
    let ended = until_end_of_input();
    for (number, object, command) in [
        (libc::SYS_shmctl, memory, [0_usize, 0].as_slice()),
        (libc::SYS_semctl, semaphores, [0, 0].as_slice()),
        (libc::SYS_msgctl, messages, [0].as_slice()),
    ] {
        // IPC_RMID is 0; a semaphore's comes after its number, which is 0 as well.
        let _gone = call(number, &[[object.unwrap_or(-1) as usize].as_slice(), command].concat());
    }
    let _gone = call(libc::SYS_mq_unlink, &[at(name.to_bytes_with_nul())]);
    /// `KEYCTL_INVALIDATE`.
    const INVALIDATE: usize = 21;
    let _gone = call(libc::SYS_keyctl, &[INVALIDATE, serial as usize]);
    ended
}

/// Listens on an abstract socket and on a port of loopback, and writes down what it hears; first of all itself.
fn listen(name: &str, port: &str) -> ExitCode {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    let Ok(address) = SocketAddr::from_abstract_name(name) else { return ExitCode::FAILURE };
    let Ok(listener) = UnixListener::bind_addr(&address) else { return ExitCode::FAILURE };
    let Ok(tcp) = std::net::TcpListener::bind(format!("127.0.0.1:{port}")) else { return ExitCode::FAILURE };
    if sys::fork() == Ok(0) {
        for mut stream in tcp.incoming().flatten() {
            note_heard(&mut stream);
        }
        return ExitCode::SUCCESS;
    }
    if sys::fork() == Ok(0) {
        let _said = UnixStream::connect_addr(&address).and_then(|mut stream| stream.write_all(b"self"));
        let _said =
            std::net::TcpStream::connect(format!("127.0.0.1:{port}")).and_then(|mut stream| stream.write_all(b"self"));
        sys::exit_now(0);
    }
    for mut stream in listener.incoming().flatten() {
        note_heard(&mut stream);
    }
    ExitCode::SUCCESS
}

fn note_heard(stream: &mut impl Read) {
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).unwrap_or(0);
    let file = File::options().create(true).append(true).open("heard");
    let _noted = file.and_then(|mut file| file.write_all(&[&buffer[..length], b"\n".as_slice()].concat()));
}

/// Says what came of connecting to each path.
fn connect(paths: &[&str]) -> ExitCode {
    for path in paths {
        match crate::ipc::connect(path) {
            Ok(_) => say("connected"),
            Err(error) => say(&format!("{:?}", crate::outcome::errno(&error))),
        }
    }
    ExitCode::SUCCESS
}

/// Says what `asks.json` holds to ports of loopback, one after the other, and writes down the answers.
fn ask(slowness: u32) -> ExitCode {
    let Ok(text) = fs::read("asks.json") else { return ExitCode::FAILURE };
    let Ok(asks) = serde_json::from_slice::<Vec<Ask>>(&text) else { return ExitCode::FAILURE };
    let answers: std::collections::BTreeMap<String, String> = asks
        .into_iter()
        .map(|ask| (ask.id.clone(), say_and_hear(&ask, slowness).unwrap_or_else(|error| format!("error: {error}"))))
        .collect();
    let Ok(mut text) = serde_json::to_vec(&answers) else { return ExitCode::FAILURE };
    text.push(b'\n');
    let _told = fs::write("answers.json", text);
    wait_for_end()
}

#[derive(serde::Deserialize)]
struct Ask {
    id: String,
    port: u16,
    first: Vec<u8>,
    then: Vec<u8>,
}

fn say_and_hear(ask: &Ask, slowness: u32) -> std::io::Result<String> {
    /// An answer comes at once, or none is to come.
    const PATIENCE: std::time::Duration = std::time::Duration::from_millis(1500);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", ask.port))?;
    stream.set_read_timeout(Some(PATIENCE * slowness))?;
    let (mut heard, mut buffer) = (Vec::new(), [0; 16_384]);
    stream.write_all(&ask.first)?;
    for then in [&ask.then, &Vec::new()] {
        match stream.read(&mut buffer) {
            Ok(length) => heard.extend(&buffer[..length]),
            Err(error) => heard.extend(format!("<{:?}>", error.kind()).as_bytes()),
        }
        if then.is_empty() {
            break;
        }
        stream.write_all(then)?;
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

/// Opens connections and says nothing on them.
fn hoard(port: &str, count: usize) -> ExitCode {
    let held: Vec<_> =
        (0..count).map_while(|_| std::net::TcpStream::connect(format!("127.0.0.1:{port}")).ok()).collect();
    let _told = fs::write("hoarded", format!("{}\n", held.len()));
    wait_for_end()
}
