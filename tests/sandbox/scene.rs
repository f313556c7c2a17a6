//! A supervisor with sessions, as the tests need them: the real one, the real shim, and between them whatever changes the plan.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use agentapi_shared::api::{SandboxRequest, ScreenFormat, Workspace, WorkspaceSource};
use agentapi_shared::jail::{AGENT_ID, SLOT_UIDS};
use agentapi_shared::link::{Command as LinkCommand, CommandResult, SpawnReport};
use agentapi_shared::{SessionId, SpawnState};
use agentapi_tests::attempt::{EDITS_FILE, Edit};
use agentapi_tests::dir::TempDir;
use agentapi_tests::plane::{Link, Plane, custom};
use agentapi_tests::process::{Daemon, LOCAL_DEGRADED, ProcessInfo, binary, kill_survivors, processes, remove_groups};
use anyhow::{Context, Result, bail};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::world::{World, open_to_all};

/// Owner of the workspaces: neither root nor anybody's slot.
pub(crate) const OWNER: u32 = 4711;
/// What the supervisor's environment holds and no session may see.
pub(crate) const CREDENTIAL: &str = "sk-attempt-5f0c1d7e9b";
/// Processes and threads of a session.
pub(crate) const PIDS: u64 = 256;
/// Memory of a session.
pub(crate) const MEMORY: u64 = 192 << 20;
/// HOME and workspace of a session together.
pub(crate) const DISK: u64 = 64 << 20;
/// Processor time of a session, in percent of a core.
pub(crate) const CPU: u64 = 50;
/// What a session's journal keeps, in MiB: the least there is.
pub(crate) const JOURNAL_MB: u64 = 8;

/// Who the supervisor is, and what its host lets it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Root, with everything.
    Root,
    /// The owner of the workspaces: an ordinary user.
    User,
    /// Root on a host where nobody makes user namespaces.
    WithoutUserNamespaces,
    /// Root, on a host that cannot give its sessions disks of their own: what they write lies in directories of the host.
    WithoutDisks,
}

/// See the module.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) link: Link,
    pub(crate) daemon: Daemon,
    pub(crate) plane: Plane,
    /// Profile of the sessions that are begun.
    pub(crate) profile: &'static str,
    pub(crate) kind: Kind,
    args: Vec<&'static str>,
    credential: PathBuf,
    // Last: what runs in it goes first.
    pub(crate) dir: TempDir,
    _turn: OwnedMutexGuard<()>,
}

/// One scene at a time: each has a supervisor of its own, and all of them give their first session the same host ids. An attempt to signal
/// everybody, with the layer off that would stop it, reaches whoever has these.
static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

/// A running session.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) session: SessionId,
    /// Its workspace as the host sees it; one of its own only as long as it runs.
    pub(crate) workspace: PathBuf,
}

impl Scene {
    pub(crate) async fn new() -> Result<Self> {
        Self::of(Kind::Root).await
    }

    /// With a supervisor of this kind.
    pub(crate) async fn of(kind: Kind) -> Result<Self> {
        Ok(Self::with(kind, &settings(), &[], |_, _| Ok(())).await?.0)
    }

    /// Sessions go through the egress gateway to what `outside` makes.
    pub(crate) async fn behind_gateway<T>(outside: impl FnOnce(&World, &Path) -> Result<T>) -> Result<(Self, T)> {
        // Addresses of the test's own loopback stand for public ones. They are this host's own, so each has to be named by itself.
        const OPTION: &str = "--egress-allow-address";
        let own = [OPTION, "93.184.216.10/32", OPTION, "93.184.216.20/32", OPTION, "93.184.216.30/32"];
        let (mut scene, outside) = Self::with(Kind::Root, GATEWAY, &own, outside).await?;
        scene.profile = "gateway";
        Ok((scene, outside))
    }

    async fn with<T>(
        kind: Kind,
        settings: &str,
        args: &[&'static str],
        outside: impl FnOnce(&World, &Path) -> Result<T>,
    ) -> Result<(Self, T)> {
        let turn = Arc::clone(&TURN).lock_owned().await;
        let world = World::make()?;
        let dir = TempDir::new();
        let path = dir.path().to_owned();
        for name in ["tools", "shim", "work", "read-only"] {
            std::fs::create_dir(path.join(name))?;
        }
        std::fs::copy(binary("sandbox-probe"), path.join("tools/sandbox-probe"))?;
        std::fs::copy(binary("sandbox-probe"), path.join("shim/agentapi-shim"))?;
        // Copies: where they were built an ordinary user may not be able to look.
        for (name, to) in [("agentapi-shim", "shim/real-shim"), ("agentapi-supervisor", "tools/supervisor")] {
            match kind {
                Kind::User => std::fs::copy(binary(name), path.join(to)).map(drop)?,
                Kind::Root | Kind::WithoutUserNamespaces | Kind::WithoutDisks => symlink(binary(name), path.join(to))?,
            }
        }
        let key = path.join("model-key");
        std::fs::write(&key, crate::outside::MODEL_KEY)?;
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let settings = settings.replace("MODEL_KEY_FILE", &key.display().to_string());
        let settings = settings.replace("WORK_DIR", &path.join("work").display().to_string());
        std::fs::write(path.join("supervisor.toml"), settings)?;
        let outside = outside(&world, &path)?;
        let (plane, credential) = Plane::listen(&path).await?;
        std::fs::create_dir(path.join("state"))?;
        if kind == Kind::User {
            for path in [path.join("state"), credential.clone()] {
                std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER))?;
            }
        }
        write_edits(&path, &[])?;
        let mut daemon = start(kind, &path, &credential, args)?;
        daemon.line().await?;
        let link = plane.accept().await?;
        let args = args.to_vec();
        Ok((
            Self { world, link, daemon, plane, profile: "attempts", kind, args, credential, dir, _turn: turn },
            outside,
        ))
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The supervisor again, after it was killed.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        self.daemon = start(self.kind, self.dir.path(), &self.credential, &self.args)?;
        self.daemon.line().await?;
        self.link = self.plane.accept().await?;
        Ok(())
    }

    /// From now on plans are changed like this.
    pub(crate) fn edit(&self, edits: &[Edit]) -> Result<()> {
        write_edits(self.dir.path(), edits)
    }

    /// A directory of the host that may be a workspace.
    pub(crate) fn workspace(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join("work").join(name);
        std::fs::create_dir_all(&path)?;
        std::os::unix::fs::chown(&path, Some(OWNER), Some(OWNER))?;
        Ok(path)
    }

    /// A session that is not begun yet, with its workspace as the supervisor can give one, laid out already.
    pub(crate) fn place(&self, name: &str) -> Result<(SessionId, PathBuf, Workspace)> {
        let session = SessionId::generate();
        if self.kind == Kind::WithoutUserNamespaces {
            // No directory of the host is given for writing there.
            let path = self.session_dir(session).join("workspace");
            std::fs::create_dir_all(&path)?;
            return Ok((session, path, Workspace::default()));
        }
        let path = self.workspace(name)?;
        let place = Workspace { source: WorkspaceSource::Path, path: Some(path.display().to_string()) };
        Ok((session, path, place))
    }

    /// The probe as sessions see it.
    pub(crate) fn probe(&self) -> String {
        self.dir.path().join("tools/sandbox-probe").display().to_string()
    }

    /// Runs a command in a session whose workspace is a directory of the host.
    pub(crate) async fn run(&mut self, name: &str, command: &[&str]) -> Result<Running> {
        let workspace = self.workspace(name)?;
        self.run_in(&workspace, command).await
    }

    /// The same, whoever owns that directory.
    pub(crate) async fn run_in(&mut self, workspace: &Path, command: &[&str]) -> Result<Running> {
        let source = WorkspaceSource::Path;
        let place = Workspace { source, path: Some(workspace.display().to_string()) };
        self.begin(SessionId::generate(), 1, place, command).await
    }

    /// Runs a command in a session with a workspace of its own.
    pub(crate) async fn run_own(&mut self, command: &[&str]) -> Result<Running> {
        self.begin(SessionId::generate(), 1, Workspace::default(), command).await
    }

    /// Runs a spawn of a session.
    pub(crate) async fn begin(
        &mut self,
        session: SessionId,
        spawn: u32,
        place: Workspace,
        command: &[&str],
    ) -> Result<Running> {
        let report = self.try_begin(session, spawn, place.clone(), command).await?;
        if report.state != SpawnState::Running {
            bail!("it does not run: {report:?}");
        }
        let workspace = match place.path {
            Some(path) => PathBuf::from(path),
            None => self.inside(session, spawn)?.join("workspace"),
        };
        Ok(Running { session, workspace })
    }

    /// Asks for a spawn; the report of its running or of its end.
    pub(crate) async fn try_begin(
        &mut self,
        session: SessionId,
        spawn: u32,
        workspace: Workspace,
        command: &[&str],
    ) -> Result<SpawnReport> {
        let mut words = command.to_vec();
        let probe = self.probe();
        if words.first() == Some(&"sandbox-probe") {
            words[0] = &probe;
        }
        let sandbox = SandboxRequest { profile: Some(self.profile.to_owned()), ..SandboxRequest::default() };
        let generation = u64::from(spawn) * 2 - 1;
        let start = agentapi_shared::link::StartSpawn {
            spawn,
            generation,
            workspace,
            sandbox,
            env: Some(BTreeMap::new()),
            ..custom(&words)
        };
        if let Err(error) = self.link.command(session, LinkCommand::Start(start)).await? {
            bail!("start refused: {error}");
        }
        self.link.report(session, SpawnState::Running).await
    }

    /// Asks a spawn to end and waits for its end.
    pub(crate) async fn stop(&mut self, session: SessionId, spawn: u32, grace_ms: u64) -> Result<SpawnReport> {
        let generation = u64::from(spawn) * 2;
        let stop = LinkCommand::Stop { spawn, generation, grace_ms, force: grace_ms == 0 };
        if let Err(error) = self.link.command(session, stop).await? {
            bail!("stop refused: {error}");
        }
        self.link.report(session, SpawnState::Exited).await
    }

    /// Removes a session.
    pub(crate) async fn purge(&mut self, session: SessionId) -> Result<()> {
        match self.link.command(session, LinkCommand::Purge).await? {
            Ok(_) => Ok(()),
            Err(error) => bail!("purge refused: {error}"),
        }
    }

    /// What a session shows.
    pub(crate) async fn screen(&mut self, session: SessionId) -> Result<String> {
        let ask = LinkCommand::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 };
        match self.link.command(session, ask).await? {
            Ok(CommandResult::Screen(screen)) => Ok(screen.text),
            other => bail!("no screen: {other:?}"),
        }
    }

    pub(crate) fn session_dir(&self, session: SessionId) -> PathBuf {
        self.state_dir().join("sessions").join(session.to_string())
    }

    /// The root of a running spawn's jail. What is on its disk is to be seen nowhere else.
    fn inside(&self, session: SessionId, spawn: u32) -> Result<PathBuf> {
        let record = std::fs::read(self.session_dir(session).join(format!("spawns/{spawn}/spawn.json")))?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        Ok(PathBuf::from(format!("/proc/{}/root", record["init_pid"].as_i64().context("its init")?)))
    }

    /// First host id of a session's block.
    pub(crate) fn block(&self, session: SessionId) -> Result<u32> {
        let dir = self.session_dir(session);
        let agent = match std::fs::metadata(dir.join("disk.img")) {
            Ok(image) => image.gid(),
            Err(_) => std::fs::metadata(dir.join("home")).context("the session's HOME")?.uid(),
        };
        agent.checked_sub(AGENT_ID).context("the agent's id")
    }

    /// Processes with ids of a session's block, init among them.
    pub(crate) fn members(&self, session: SessionId) -> Result<Vec<ProcessInfo>> {
        let base = self.block(session)?;
        // The last id is that of the shim.
        let block = base..base + SLOT_UIDS - 1;
        Ok(processes().into_iter().filter(|process| block.contains(&process.uid)).collect())
    }

    /// The first process of a session: the numbers of processes start anew when they are used up, so it need not have the lowest.
    pub(crate) fn init(&self, session: SessionId) -> Result<ProcessInfo> {
        let is_init = |process: &ProcessInfo| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
            let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last());
            inside == Some("1")
        };
        self.members(session)?.into_iter().find(is_init).context("the session's init")
    }

    /// The shim of a session's first spawn.
    pub(crate) fn shim(&self, session: SessionId) -> Result<ProcessInfo> {
        let dir = self.session_dir(session);
        let shims = processes().into_iter().filter(|process| process.command.starts_with("agentapi-shim"));
        shims.filter(|process| process.holds(&dir)).max_by_key(|process| process.pid).context("the session's shim")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let stopped = Command::new(binary("agentapi-supervisor"))
            .args(["stop-all", "--grace-ms", "0", "--state-dir"])
            .arg(self.state_dir())
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("stopped"));
        if !stopped {
            kill_survivors(&self.state_dir());
        }
        remove_groups(&self.state_dir());
    }
}

/// Name of a profile whose limits are so high that no attempt comes near.
pub(crate) const UNLIMITED: &str = "unlimited";
/// Name of a profile without debuggers, and otherwise as that of the attempts.
pub(crate) const STRICT: &str = "strict-attempts";

/// Name of a profile whose disk traffic is limited.
pub(crate) const SLOW_DISK: &str = "slow-disk";
/// Bytes that a session of it may read, and may write, in a second: less than any disk does.
pub(crate) const DISK_BYTES_PER_SECOND: u64 = 512 << 10;

/// Sessions whose network is filtered, and what they may reach.
const GATEWAY: &str = r#"
[profiles.gateway]
extends = "dev"
network = "filtered"
egress = []

[egress]
allow = ["allowed.example.com", "*.wild.example.com", "rebind.example.com", "private.example.com:80", "metadata.example.com:80", "loopback.example.com:80"]
deny = ["denied.wild.example.com"]
limits = { connections_max = 64, connections_per_minute = 600 }

[models.test]
upstream = "https://model.example.com"
header = "x-api-key"
key_file = "MODEL_KEY_FILE"
"#;

fn settings() -> String {
    let limits =
        format!("limits = {{ memory_bytes = {MEMORY}, pids = {PIDS}, cpu_percent = {CPU}, disk_bytes = {DISK} }}");
    format!(
        "[profiles.attempts]\nextends = \"dev\"\nnetwork = \"off\"\n{limits}\n\n\
         [profiles.{STRICT}]\nextends = \"strict\"\nnetwork = \"off\"\n{limits}\n\n\
         [profiles.{UNLIMITED}]\nextends = \"dev\"\nnetwork = \"off\"\n\n\
         [profiles.{SLOW_DISK}]\nextends = \"dev\"\nnetwork = \"off\"\nlimits = {{ io_bytes_per_second = {DISK_BYTES_PER_SECOND} }}\n\n[[mounts]]\npath = \"WORK_DIR\"\nmode = \"rw\"\n"
    )
}

fn start(kind: Kind, dir: &Path, credential: &Path, args: &[&str]) -> Result<Daemon> {
    let supervisor = dir.join("tools/supervisor");
    let mut command = match kind {
        Kind::Root => Command::new(supervisor),
        Kind::User => {
            let mut command = Command::new("setpriv");
            let id = OWNER.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(supervisor);
            command
        }
        Kind::WithoutUserNamespaces => {
            let mut command = Command::new(dir.join("tools/sandbox-probe"));
            command.arg("without-user-namespaces").arg(supervisor);
            command
        }
        Kind::WithoutDisks => {
            let mut command = Command::new("unshare");
            let script = "mount --bind /dev/null /dev/loop-control && exec \"$0\" \"$@\"";
            command.args(["--mount", "sh", "-c", script]).arg(supervisor);
            command
        }
    };
    command.arg("run").arg("--state-dir").arg(dir.join("state")).arg("--credential-file").arg(credential);
    command.arg("--shim").arg(dir.join("shim/agentapi-shim")).arg("--workspace-root").arg(dir.join("work"));
    command.arg("--read-only-path").arg(dir.join("tools")).arg("--read-only-path").arg(dir.join("read-only"));
    command.arg("--config").arg(dir.join("supervisor.toml")).arg("--journal-mb").arg(JOURNAL_MB.to_string());
    command.args(args);
    let allowed = match kind {
        Kind::Root | Kind::User | Kind::WithoutDisks => LOCAL_DEGRADED.1.to_owned(),
        Kind::WithoutUserNamespaces => format!("{},userns", LOCAL_DEGRADED.1),
    };
    command.env(LOCAL_DEGRADED.0, allowed).env("AWS_SECRET_ACCESS_KEY", CREDENTIAL);
    command.env("SSH_AUTH_SOCK", dir.join("host.sock"));
    Daemon::start(command, &dir.join("supervisor.log"))
}

fn write_edits(dir: &Path, edits: &[Edit]) -> Result<()> {
    let path = dir.join("shim").join(EDITS_FILE);
    std::fs::write(&path, serde_json::to_vec(edits)?)?;
    open_to_all(&path)
}
