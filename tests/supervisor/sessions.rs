//! Sessions from start to end.

use std::os::unix::fs::MetadataExt;

use agentapi_shared::api::{ScreenFormat, Workspace, WorkspaceSource};
use agentapi_shared::link::{Command, CommandResult, PlaneMessage};
use agentapi_shared::{ExitReason, SessionId, SpawnState, WindowSize};
use agentapi_tests::plane::{Link, custom};
use agentapi_tests::process::processes;
use agentapi_tests::wait::eventually;
use anyhow::Result;

use crate::harness::{Host, NO_LIMIT};

async fn watch(link: &mut Link, session: SessionId) -> Result<()> {
    link.send(&PlaneMessage::Watch { stream: 1, session, spawn: 1, from: Some(0), limit: NO_LIMIT }).await
}

async fn until(link: &mut Link, what: &str) -> Result<String> {
    let seen = link.output(1, |seen| String::from_utf8_lossy(seen).contains(what)).await?;
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

#[tokio::test]
async fn a_command_runs_is_seen_and_typed_to_and_ends() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = link.start(&["bash", "--norc"]).await?;
    watch(&mut link, session).await?;
    link.input(1, 1, b"id -u; pwd; echo $HOME; tty\r").await?;
    let seen = until(&mut link, "/dev/pts/0\r\n").await?;
    assert!(seen.contains("1000\r\n/workspace\r\n/home/agent\r\n"), "{seen}");
    let screen = link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
    assert!(matches!(&screen, Ok(CommandResult::Screen(screen)) if screen.text.contains("/dev/pts/0")), "{screen:?}");
    link.input(1, 2, b"exit 7\r").await?;
    let exit = link.report(session, SpawnState::Exited).await?.exit.expect("an exit");
    assert_eq!((exit.code, exit.reason), (Some(7), ExitReason::Exited), "{exit:?}");
    // What it left stays.
    let screen = link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
    assert!(matches!(&screen, Ok(CommandResult::Screen(screen)) if screen.text.contains("exit 7")), "{screen:?}");
    Ok(())
}

#[tokio::test]
async fn an_agent_sees_neither_the_host_nor_other_sessions() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let other = link.start(&["sleep", "3290"]).await?;
    let script = "ls /root /proc/1/root /sys 2>&1; cat /etc/shadow 2>&1; ls /proc | grep -c '^[0-9]'; ls -d /home/* /var/lib 2>&1; \
                  env | cut -d= -f1 | sort | tr '\\n' ' '; echo; touch /usr/x /etc/x /x 2>&1; grep Cap /proc/self/status | tr -d '0\\t\\n'; \
                  grep NoNewPrivs /proc/self/status; unshare -m true 2>&1; echo done";
    // It may be over before anybody was told that it runs.
    let session = SessionId::generate();
    link.command(session, Command::Start(custom(&["bash", "-c", script]))).await??;
    link.report(session, SpawnState::Exited).await?;
    let screen =
        link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 100 }).await?;
    let Ok(CommandResult::Screen(screen)) = screen else { panic!("{screen:?}") };
    let text = screen.text;
    for wanted in [
        "cannot access '/root'",
        "'/proc/1/root': Permission denied",
        "cannot access '/sys'",
        "/etc/shadow: No such file",
        "cannot touch '/usr/x': Read-only file system",
        "cannot touch '/x': Read-only file system",
        "CapInh:CapPrm:CapEff:CapBnd:CapAmb:",
        "NoNewPrivs:  1",
        "done",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
    let variables = "ALL_PROXY COLORTERM HOME HTTPS_PROXY HTTP_PROXY LANG LOGNAME NODE_USE_ENV_PROXY NO_PROXY PATH PWD SHELL SHLVL TERM USER \
                     XDG_RUNTIME_DIR _ all_proxy http_proxy https_proxy no_proxy";
    // A row of the screen holds 120 characters.
    assert!(text.replace('\n', " ").contains(variables), "{text}");
    assert!(!text.contains("sleep") && !text.contains(&other.to_string()), "{text}");
    // On the host the agent is a user of the session's own, never root.
    let sleeper =
        processes().into_iter().find(|process| process.command == "sleep 3290").expect("the other session's process");
    assert!(sleeper.uid >= 0x4000_0000, "{sleeper:?}");
    Ok(())
}

#[tokio::test]
async fn stop_leaves_nothing_whatever_the_session_started() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let strays = "trap '' HUP TERM INT; setsid sh -c \"trap '' HUP TERM; sleep 2001\" & (setsid sh -c 'sleep 2002 & ' &) ; \
                  (trap '' HUP TERM; sleep 2003) & echo ready; kill -STOP $$; while :; do sleep 2004; done";
    let session = link.start(&["bash", "-c", strays]).await?;
    watch(&mut link, session).await?;
    until(&mut link, "ready").await?;
    let ours = || processes().into_iter().filter(|process| process.command.starts_with("sleep 200")).count();
    eventually("every stray runs", || async { (ours() >= 3).then_some(()) }).await;
    let stop = Command::Stop { spawn: 1, generation: 1, grace_ms: 200, force: false };
    link.command(session, stop.clone()).await?.expect("accepted");
    let report = link.report(session, SpawnState::Exited).await?;
    assert_eq!(report.exit.map(|exit| exit.reason), Some(ExitReason::Killed));
    assert_eq!(ours(), 0, "{:?}", processes());
    // Asked again it is done already.
    assert!(matches!(link.command(session, stop).await?, Ok(CommandResult::Done)));
    link.command(session, Command::Purge).await?.expect("purged");
    assert!(!host.session_dir(session).exists());
    Ok(())
}

#[tokio::test]
async fn a_command_that_cannot_run_says_why() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    std::fs::write(host.root().join("plain"), "text")?;
    for (command, wanted) in [
        (["no-such-program"].as_slice(), "No such file or directory (ENOENT): it is in none of the directories"),
        (&["/no/such/program"], "there is no such file inside the session"),
        (&["/etc/passwd"], "Permission denied (EACCES): it is not executable"),
    ] {
        let session = SessionId::generate();
        link.command(session, Command::Start(custom(command))).await?.expect("accepted");
        let report = link.report(session, SpawnState::Failed).await?;
        let exit = report.exit.expect("an exit");
        assert_eq!(exit.reason, ExitReason::ExecFailed, "{exit:?}");
        assert!(exit.detail.contains(wanted), "{}", exit.detail);
    }
    Ok(())
}

#[tokio::test]
async fn a_workspace_of_the_host_is_written_as_its_owner() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let project = host.root().join("project");
    std::fs::create_dir(&project)?;
    std::os::unix::fs::chown(&project, Some(4711), Some(4712))?;
    let mut start = custom(&["sh", "-c", "echo made > file && stat -c %u:%g . file"]);
    let path =
        |path: &std::path::Path| Workspace { source: WorkspaceSource::Path, path: Some(path.display().to_string()) };
    start.workspace = path(&project);
    let session = SessionId::generate();
    link.command(session, Command::Start(start.clone())).await?.expect("accepted");
    let report = link.report(session, SpawnState::Exited).await?;
    assert_eq!(report.exit.and_then(|exit| exit.code), Some(0));
    let made = std::fs::metadata(project.join("file"))?;
    assert_eq!((made.uid(), made.gid()), (4711, 4712));
    link.command(session, Command::Purge).await?.expect("purged");
    assert!(project.join("file").exists(), "a purge never touches a workspace of the host");
    // Outside of the roots nothing is given, and nothing is left behind.
    let outside = SessionId::generate();
    start.workspace = path(std::path::Path::new("/etc"));
    let refused = link.command(outside, Command::Start(start)).await?.expect_err("refused");
    assert_eq!(refused.code, "refused");
    assert!(refused.detail.contains("below none of this host's workspace roots"), "{}", refused.detail);
    assert!(!host.session_dir(outside).exists());
    Ok(())
}

#[tokio::test]
async fn a_workspace_that_holds_our_own_data_is_refused_and_the_refusal_says_why() -> Result<()> {
    let mut host = Host::new().await?;
    // As when it is started in HOME, with the data below.
    host.arguments = vec!["--workspace-root".to_owned(), host.dir.path().display().to_string()];
    let (_daemon, mut link) = host.linked().await?;
    for (dir, word) in [(host.dir.path().to_owned(), "contains"), (host.state_dir().join("sessions"), "lies in")] {
        let (session, mut start) = (SessionId::generate(), custom(&["true"]));
        start.workspace =
            Workspace { source: WorkspaceSource::Path, path: Some(dir.canonicalize()?.display().to_string()) };
        let refused = link.command(session, Command::Start(start)).await?.expect_err("refused");
        assert!(refused.detail.starts_with("workspace.path: "), "{}", refused.detail);
        for part in [word, "where AgentAPI keeps its data and keys", "name a directory"] {
            assert!(refused.detail.contains(part), "{}", refused.detail);
        }
        assert!(!host.session_dir(session).exists());
    }
    Ok(())
}

/// A workspace of the host is written as its owner, so a set-ID file in it would be a way to become that owner.
#[tokio::test]
async fn no_set_id_file_is_made_in_any_way() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let project = host.root().join("project");
    std::fs::create_dir(&project)?;
    let attempts = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
open("plain", "w").close()
d = os.open(".", os.O_RDONLY)
f = os.open("plain", os.O_RDWR)
def attempt(name, call):
    try:
        result = call()
        print(name, "done" if result in (None, 0) or result > 2 else os.strerror(ctypes.get_errno()))
    except OSError as error:
        print(name, error.strerror)
raw = lambda *words: libc.syscall(*[ctypes.c_long(w) if isinstance(w, int) else w for w in words])
attempt("control", lambda: os.chmod("plain", 0o755))
for bits in (0o4755, 0o2755):
    attempt("chmod", lambda: os.chmod("plain", bits))
    attempt("fchmod", lambda: os.fchmod(f, bits))
    attempt("fchmodat", lambda: os.chmod("plain", bits, dir_fd=d))
    attempt("fchmodat2", lambda: raw(452, d, b"plain", bits, 0))
    attempt("open", lambda: os.open("new%o" % bits, os.O_CREAT | os.O_WRONLY, bits))
    attempt("tmpfile", lambda: os.open(".", os.O_TMPFILE | os.O_WRONLY, bits))
    attempt("mknod", lambda: os.mknod("node%o" % bits, 0o100000 | bits))
attempt("openat2", lambda: raw(437, d, b"plain", ctypes.byref(ctypes.c_ulong(0)), 24))
attempt("io_uring", lambda: raw(425, 1, ctypes.byref((ctypes.c_char * 120)())))
print("over")
"#;
    let mut start = custom(&["python3", "-c", attempts]);
    start.workspace = Workspace { source: WorkspaceSource::Path, path: Some(project.display().to_string()) };
    let session = SessionId::generate();
    link.command(session, Command::Start(start)).await?.expect("accepted");
    link.report(session, SpawnState::Exited).await?;
    let screen = link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
    let Ok(CommandResult::Screen(screen)) = screen else { panic!("{screen:?}") };
    let lines: Vec<&str> = screen.text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        (lines.first(), lines.last(), lines.len()),
        (Some(&"control done"), Some(&"over"), 18),
        "{}",
        screen.text
    );
    for line in &lines[1..17] {
        let refused = ["Operation not permitted", "Function not implemented"].iter().any(|word| line.ends_with(word));
        assert!(refused, "{line}\nof\n{}", screen.text);
    }
    for entry in std::fs::read_dir(&project)? {
        let file = entry?;
        assert_eq!(file.metadata()?.mode() & 0o6000, 0, "{file:?}");
    }
    Ok(())
}

#[tokio::test]
async fn sizes_reach_the_program_and_the_stream_in_order() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = link.start(&["sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"]).await?;
    watch(&mut link, session).await?;
    until(&mut link, "ready").await?;
    let size = WindowSize::new(91, 23)?;
    link.command(session, Command::Resize { spawn: 1, size }).await?.expect("resized");
    let seen = until(&mut link, "\r\n").await?;
    assert!(seen.contains("23 91") || until(&mut link, "23 91").await?.contains("23 91"), "{seen}");
    let (offset, told) = link
        .wait_for(|received| match received {
            agentapi_tests::plane::Received::Message(agentapi_shared::link::HostMessage::Resized {
                offset,
                size,
                ..
            }) => Some((*offset, *size)),
            _ => None,
        })
        .await?;
    assert_eq!((offset, told), (7, size));
    Ok(())
}
