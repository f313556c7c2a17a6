//! Real agents in the jail: what a person sees of them, what they leave behind, and what is said of one that is not there.

use std::fs;
use std::num::NonZeroU16;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentapi_shared::api::{Agent, Page, Session};
use agentapi_shared::{ExitReason, SessionId, SpawnState};
use agentapi_tests::dir::TempDir;
use agentapi_tests::process::processes;
use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, Viewer, ViewerOptions};
use agentapi_tests::wait::{PATIENCE, eventually};
use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

/// An agent that sends nothing for so long hangs. Shorter than the viewer's own patience, so that a failure shows the screen.
const SILENCE: Duration = PATIENCE.saturating_sub(Duration::from_secs(5));

/// Where `scripts/install-agents` has installed claude.
fn prefix() -> Result<PathBuf> {
    let told = std::env::var_os("AGENTAPI_TEST_AGENTS").map(PathBuf::from);
    let prefix = told.context("AGENTAPI_TEST_AGENTS is not set: run `make agents`, then set it to target/agents")?;
    let claude = prefix.join("node_modules/.bin/claude");
    ensure!(claude.exists(), "{} is missing: run `make agents` first", claude.display());
    Ok(prefix.canonicalize()?)
}

/// The product with the real claude.
async fn product() -> Result<Product> {
    let prefix = prefix()?;
    let (prefix, bin) = (prefix.display().to_string(), prefix.join("node_modules/.bin").display().to_string());
    Product::start_with(&["--read-only-path", &prefix, "--agent-path", &bin]).await
}

/// A viewer's screen, as a terminal emulator that is not ours draws it from what the viewer gets.
struct Screen {
    viewer: Viewer,
    parser: vt100::Parser,
    /// Everything received, for what a screen does not show.
    bytes: Vec<u8>,
}

impl Screen {
    async fn open(product: &Product, id: SessionId, options: ViewerOptions) -> Result<Self> {
        let size = product.session(id).await?.size;
        let (rows, cols) = (NonZeroU16::try_from(size.rows())?, NonZeroU16::try_from(size.cols())?);
        let viewer = product.view(id, options).await?;
        Ok(Self { viewer, parser: vt100::Parser::new(rows, cols, 0), bytes: Vec::new() })
    }

    /// Reads on until the screen is as wanted; what is on it then.
    async fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        loop {
            let text = self.text();
            if wanted(&text) {
                return Ok(text);
            }
            self.read(what).await?;
        }
    }

    fn text(&self) -> String {
        self.parser.screen().contents()
    }

    /// Reads on until this sequence has come.
    async fn sends(&mut self, what: &str) -> Result<()> {
        while !self.bytes.windows(what.len()).any(|window| window == what.as_bytes()) {
            self.read(&what.escape_debug().to_string()).await?;
        }
        Ok(())
    }

    async fn read(&mut self, what: &str) -> Result<()> {
        let seen = tokio::time::timeout(SILENCE, self.viewer.next()).await;
        let seen = seen.map_err(anyhow::Error::from).flatten();
        let seen = seen.with_context(|| format!("waiting for {what}; the screen is:\n{}", self.text()))?;
        if let Seen::Output(_, bytes) | Seen::Keyframe(_, _, bytes) = seen {
            self.parser.process(&bytes);
            self.bytes.extend(bytes);
        }
        Ok(())
    }

    async fn shows(&mut self, what: &str) -> Result<String> {
        self.until(what, |text| text.contains(what)).await
    }
}

async fn create(product: &Product, agent: &str) -> Result<Session> {
    let session: Session = product.post("/sessions?wait=running", &json!({ "agent": agent })).await?;
    ensure!(session.state == SpawnState::Running, "{:?}: {:?}", session.state, session.state_reason);
    Ok(session)
}

/// The processes in the jail of a session, by its pid namespace: found through the shim, which holds the session's directory open.
fn namespace_of(product: &Product, id: SessionId) -> Result<PathBuf> {
    let dir = product.state_dir().join("sessions").join(id.to_string());
    let shim = processes().into_iter().find(|process| process.holds(&dir)).context("a shim")?;
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", shim.pid))?;
    let init = children.split_whitespace().next().context("an init")?;
    Ok(fs::read_link(format!("/proc/{init}/ns/pid"))?)
}

fn living_in(namespace: &Path) -> Vec<String> {
    let inside = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link == namespace);
    processes().into_iter().filter(|process| inside(process.pid)).map(|process| process.command).collect()
}

#[tokio::test]
async fn claude_stands_in_a_viewer_takes_keys_and_leaves_nothing() -> Result<()> {
    let product = product().await?;
    let session = create(&product, "claude").await?;
    let id = session.id;
    let all = ViewerOptions { all_bytes: true, from: Some((1, 0)), ..ViewerOptions::default() };
    let mut screen = Screen::open(&product, id, all).await?;

    // Onboarded, the workspace trusted, nobody logged in: the first thing that a new user sees.
    let start =
        screen.until("the start screen", |text| text.contains("Claude Code v") && text.contains("/login")).await?;
    assert!(start.contains("/workspace") && start.contains('❯') && !start.contains('⚠'), "{start}");
    product.shows(id, "Claude Code v").await;
    // It asks for this mode only once the terminal has said what it is, and tells its state only to one that asks for it.
    screen.sends("\x1b[?2026$p").await?;
    screen.sends("\x1b]7501;state=").await?;

    screen.viewer.input("typed by a viewer".as_bytes()).await?;
    screen
        .until("the text in the input box", |text| text.replace('\u{a0}', " ").contains("❯ typed by a viewer"))
        .await?;
    product.shows(id, "typed by a viewer").await;
    screen.viewer.input(b"\x15").await?;
    screen.until("an empty line", |text| !text.contains("typed by")).await?;
    // A dialog, by keys through the API, and out of it again.
    product.type_text(id, "/help").await?;
    screen.shows("/help").await?;
    product.post::<Value>(&format!("/sessions/{id}/input"), &json!({ "keys": ["Enter"] })).await?;
    screen.shows("Shortcuts").await?;
    screen.viewer.input(b"\x1b").await?;
    screen.shows("Help dialog dismissed").await?;

    let namespace = namespace_of(&product, id)?;
    let living = living_in(&namespace);
    assert!(living.iter().any(|command| command.contains("claude")), "{living:?}");
    assert_eq!(starts_of(&product, id), Some(1));
    product.raw(Method::DELETE, &format!("/sessions/{id}"), &Value::Null).await?;
    let ended = product.ended(id).await;
    assert_eq!(ended.state, SpawnState::Exited);
    assert_eq!(ended.exit.map(|exit| exit.reason), Some(ExitReason::Stopped));
    assert_eq!(living_in(&namespace), Vec::<String>::new());

    restarted(&product, id).await
}

/// How often claude has started in the HOME of a session, as the running one has written down. That may be to be seen in its jail alone.
fn starts_of(product: &Product, id: SessionId) -> Option<u64> {
    let namespace = namespace_of(product, id).ok()?;
    let inside = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link == namespace);
    let pid = processes().into_iter().find(|process| inside(process.pid))?.pid;
    let own = product.state_dir().join("sessions").join(id.to_string()).join("home/.claude.json");
    let settings = fs::read(format!("/proc/{pid}/root/home/agent/.claude.json")).or_else(|_| fs::read(own)).ok()?;
    serde_json::from_slice::<Value>(&settings).ok()?["numStartups"].as_u64()
}

/// A second spawn comes up in the HOME of the first.
async fn restarted(product: &Product, id: SessionId) -> Result<()> {
    let dir = product.state_dir().join("sessions").join(id.to_string());
    product.post::<Session>(&format!("/sessions/{id}/restart"), &json!({})).await?;
    let running = async || product.session(id).await.ok().filter(|session| session.state == SpawnState::Running);
    let session = eventually("the second spawn runs", running).await;
    assert_eq!(session.spawns.len(), 2);
    let mut screen = Screen::open(product, id, ViewerOptions::default()).await?;
    screen.shows("Claude Code v").await?;
    eventually("claude counts its starts", async || starts_of(product, id).filter(|starts| *starts == 2)).await;
    product.raw(Method::DELETE, &format!("/sessions/{id}?force=true&purge=true"), &Value::Null).await?;
    eventually("everything of it is gone", async || (!dir.exists()).then_some(())).await;
    Ok(())
}

async fn agents(product: &Product) -> Result<Vec<Agent>> {
    let page: Page<Agent> = product.get("/agents").await?;
    Ok(page.data)
}

/// Where an agent is there: its version, if known.
async fn found(product: &Product, name: &str) -> Option<Option<String>> {
    let agent = agents(product).await.ok()?.into_iter().find(|agent| agent.name == name)?;
    agent.installed_on.first().map(|at| at.version.clone())
}

#[tokio::test]
async fn an_agents_version_is_asked_once() -> Result<()> {
    let mut product = product().await?;
    let package = fs::read(prefix()?.join("node_modules/@anthropic-ai/claude-code/package.json"))?;
    let package: Value = serde_json::from_slice(&package)?;
    let wanted = package["version"].as_str().context("a version")?;
    let told = eventually("claude's version", async || found(&product, "claude").await.flatten()).await;
    assert!(told.starts_with(wanted), "{told}");
    // Nothing of the question is left, and the next supervisor knows the answer before it could ask.
    eventually("the question is over", async || (!product.state_dir().join("probe").exists()).then_some(())).await;
    product.kill_supervisor().await?;
    product.kill_plane().await?;
    product.start_plane().await?;
    product.start_supervisor().await?;
    product.connected().await;
    assert_eq!(found(&product, "claude").await, Some(Some(told)));
    Ok(())
}

#[tokio::test]
async fn a_missing_agent_is_named_with_the_command_that_installs_it() -> Result<()> {
    let product = Product::start().await?;
    let missing = agents(&product).await?.into_iter().find(|agent| agent.installed_on.is_empty());
    let missing = missing.context("this machine has every agent in its PATH: run the test on one that has not")?;
    let (status, body) = product.raw(Method::POST, "/sessions?wait=running", &json!({ "agent": missing.name })).await?;
    let install = missing.install.context("a command that installs it")?;
    assert!(install.starts_with("npm install -g "), "{install}");
    assert!(body.to_string().contains(&install), "{status}: {body}");
    for session in product.sessions().await? {
        assert_eq!(session.state, SpawnState::Failed);
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_that_comes_later_is_noticed() -> Result<()> {
    let dir = TempDir::new();
    let (bin, elsewhere) = (dir.path().join("bin"), dir.path().join("elsewhere"));
    fs::create_dir(&bin)?;
    fs::create_dir(&elsewhere)?;
    let shown = bin.display().to_string();
    let product = Product::start_with(&["--read-only-path", &shown, "--agent-path", &shown]).await?;
    let program = |dir: &Path| -> Result<PathBuf> {
        let path = dir.join("droid");
        fs::write(dir.join("new"), "#!/bin/sh\necho droid 9.9.9\n")?;
        fs::set_permissions(dir.join("new"), fs::Permissions::from_mode(0o755))?;
        fs::rename(dir.join("new"), &path)?;
        Ok(path)
    };
    let outside = program(&elsewhere)?;
    // A link to where no session sees it is no agent, and says why.
    symlink(&outside, bin.join("droid"))?;
    let (status, body) = product.raw(Method::POST, "/sessions?wait=running", &json!({ "agent": "droid" })).await?;
    assert!(body.to_string().contains("--read-only-path"), "{status}: {body}");
    fs::remove_file(bin.join("droid"))?;
    program(&bin)?;
    let version = eventually("droid is noticed", async || found(&product, "droid").await.flatten()).await;
    assert_eq!(version, "droid 9.9.9");
    fs::remove_file(bin.join("droid"))?;
    eventually("it is gone again", async || found(&product, "droid").await.is_none().then_some(())).await;
    Ok(())
}
