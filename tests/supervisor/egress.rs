//! What sessions reach by the egress gateway while supervisors come and go.

use agentapi_shared::api::NetworkMode;
use agentapi_shared::link::PlaneMessage;
use agentapi_shared::{SessionId, SpawnState};
use agentapi_tests::plane::Link;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};

use crate::harness::{Host, Lack, NO_LIMIT};

/// In the session: a connection to its proxy, that stays.
const OPEN: &[u8] = b"exec 3<>/dev/tcp/127.0.0.1/3128\r";

/// In the session: a request on that connection, and what comes back up to the sentence of the gateway, or to the end of the connection.
fn ask(host: &str) -> Vec<u8> {
    format!(
        "printf 'GET http://{host}/ HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n' >&3; \
         while IFS= read -r line <&3; do echo \"$line\"; [[ $line == agentapi:* ]] && break; done; echo an''swered\r"
    )
    .into_bytes()
}

/// Types to a new stream of the session until it shows what is waited for; everything it has shown.
async fn type_until(link: &mut Link, session: SessionId, text: &[u8], what: &str) -> Result<String> {
    static STREAMS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let stream = STREAMS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    link.send(&PlaneMessage::Watch { stream, session, spawn: 1, from: None, limit: NO_LIMIT }).await?;
    link.input(stream, 1, text).await?;
    let seen = link.output(stream, |seen| String::from_utf8_lossy(seen).contains(what)).await?;
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

/// The words for what became of a name that leads nowhere: it was allowed.
const UNRESOLVED: &str = "(unresolved)";

/// What is said of a host that no rule allows.
fn refusal(host: &str) -> String {
    format!("agentapi: {host} port 80 is not reached (no_rule)")
}

#[tokio::test]
async fn a_shim_that_is_slow_to_answer_a_new_supervisor_keeps_its_connections() -> Result<()> {
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = link.start(&["bash", "--norc"]).await?;
    type_until(&mut link, session, OPEN, "$ ").await?;
    let seen = type_until(&mut link, session, &ask("one.example"), "answered").await?;
    assert!(seen.contains(&refusal("one.example")), "{seen}");
    let shim = host.shim(session)?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    drop(link);
    kill(shim, Signal::SIGSTOP)?;
    // Ready without this one, which it waited for as long as it waits for any.
    let (_daemon, mut link) = host.linked().await?;
    let known: Vec<_> = link.hello.inventory.iter().map(|spawn| (spawn.session, spawn.state)).collect();
    assert_eq!(known, [(session, SpawnState::Running)], "it is not taken for lost");
    // Something that goes through the gateway's broker, so that whatever the start had to tell it has been told.
    let other = link.start(&["bash", "--norc"]).await?;
    type_until(&mut link, other, OPEN, "$ ").await?;
    let seen = type_until(&mut link, other, &ask("other.example"), "answered").await?;
    assert!(seen.contains(&refusal("other.example")), "{seen}");
    kill(shim, Signal::SIGCONT)?;
    link.report(session, SpawnState::Running).await?;
    let seen = type_until(&mut link, session, &ask("two.example"), "answered").await?;
    assert!(seen.contains(&refusal("two.example")), "its connection was cut: {seen}");
    Ok(())
}

#[tokio::test]
async fn what_runs_follows_the_settings_of_the_supervisor_that_finds_it() -> Result<()> {
    let mut host = Host::new().await?;
    // An ordinary user has the machine's own, which may take its time.
    host.lacks = nix::unistd::geteuid().is_root().then_some(Lack::Resolver);
    let settings = host.dir.path().join("supervisor.toml");
    let write = |text: &str| std::fs::write(&settings, text);
    write("[egress]\nallow = [\"one.invalid\"]\n")?;
    host.arguments = vec!["--config".to_owned(), settings.display().to_string()];
    let (mut daemon, mut link) = host.linked().await?;
    let session = link.start(&["bash", "--norc"]).await?;
    let cases = [
        (None, NetworkMode::Filtered, UNRESOLVED, "(no_rule)"),
        (Some("[egress]\nallow = [\"two.invalid\"]\n"), NetworkMode::Filtered, "(no_rule)", UNRESOLVED),
        // Nothing is refused any more, but for what is in no profile.
        (
            Some("[egress]\nmode = \"observe\"\n[profiles.dev]\nnetwork = \"off\"\n"),
            NetworkMode::Off,
            "(no_rule)",
            "(no_rule)",
        ),
        (Some("[egress]\nallow = [\"one.invalid\"]\n"), NetworkMode::Filtered, UNRESOLVED, "(no_rule)"),
    ];
    for (text, network, one, two) in cases {
        if let Some(text) = text {
            write(text)?;
            daemon.signal(Signal::SIGTERM)?;
            daemon.ended().await?;
            (daemon, link) = host.linked().await?;
            let known = link.hello.inventory.first().context("the session")?;
            assert_eq!(known.posture.as_ref().map(|posture| posture.network), Some(network), "{text}");
        }
        for (name, word) in [("one.invalid", one), ("two.invalid", two)] {
            type_until(&mut link, session, OPEN, "$ ").await?;
            let seen = type_until(&mut link, session, &ask(name), "answered").await?;
            assert!(seen.contains(&format!("{name} port 80")) && seen.contains(word), "{text:?} {name}: {seen}");
        }
    }
    Ok(())
}
