//! The whole product on one machine: control plane and supervisor as processes of their own, in a directory of the test's.

use std::path::{Path, PathBuf};
use std::process::Command;

use agentapi_shared::api::{CreateSession, Page, Session};
use agentapi_shared::{SessionId, SpawnState};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::dir::TempDir;
use crate::process::{Daemon, LOCAL_DEGRADED, binary, kill_survivors, remove_groups};
use crate::viewer::{Viewer, ViewerOptions};
use crate::wait::eventually;

/// The product.
#[derive(Debug)]
pub struct Product {
    dir: TempDir,
    plane: Option<Daemon>,
    supervisor: Option<Daemon>,
    http: reqwest::Client,
    address: String,
    token: String,
    /// Further arguments of the supervisor.
    supervisor_args: Vec<String>,
    /// Where its binaries are, if not beside the test's own.
    binaries: Option<PathBuf>,
    /// Where its records are, if not in its own directory.
    project: Option<Project>,
}

/// A Supabase project, and an owner in it.
#[derive(Debug, Clone)]
pub struct Project {
    /// What the control plane is told of it.
    pub environment: Vec<(&'static str, String)>,
    /// The owner's API key.
    pub token: String,
}

impl Product {
    /// Starts it and waits until its host is connected.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with further arguments for the supervisor.
    pub async fn start_with(supervisor_args: &[&str]) -> Result<Self> {
        Self::start_from(None, supervisor_args).await
    }

    /// The same with the binaries of another build.
    pub async fn start_from(binaries: Option<&Path>, supervisor_args: &[&str]) -> Result<Self> {
        Self::start_as(binaries, supervisor_args, None).await
    }

    /// The same with its records in a project.
    pub async fn start_in(project: Project) -> Result<Self> {
        Self::start_as(None, &[], Some(project)).await
    }

    async fn start_as(binaries: Option<&Path>, supervisor_args: &[&str], project: Option<Project>) -> Result<Self> {
        let dir = TempDir::new();
        std::fs::create_dir(dir.path().join("work"))?;
        let mut product = Self {
            dir,
            plane: None,
            supervisor: None,
            http: reqwest::Client::builder().no_proxy().build()?,
            address: "127.0.0.1:0".to_owned(),
            token: String::new(),
            supervisor_args: supervisor_args.iter().map(|arg| (*arg).to_owned()).collect(),
            binaries: binaries.map(Path::to_owned),
            project,
        };
        product.start_plane().await?;
        product.start_supervisor().await?;
        product.connected().await;
        Ok(product)
    }

    /// The test's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory below which workspaces may lie.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path().join("work")
    }

    /// The directory of the credentials: what lies beside them is given to no session.
    fn keys(&self) -> PathBuf {
        self.path().join("keys")
    }

    /// The supervisor's state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.path().join("supervisor")
    }

    /// `HOST:PORT` of the control plane.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The administrator's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Starts the control plane, on the same port as before.
    pub async fn start_plane(&mut self) -> Result<()> {
        std::fs::create_dir_all(self.keys())?;
        let (credentials, host) = (self.keys().join("credentials.json"), self.keys().join("host-credential.json"));
        let mut command = Command::new(self.binary("agentapi-controlplane"));
        command.args(["--listen", &self.address]).arg("--data-dir").arg(self.path().join("controlplane"));
        command.arg("--credentials-file").arg(&credentials).arg("--host-credential-file").arg(&host);
        for (name, value) in self.project.iter().flat_map(|project| &project.environment) {
            command.env(name, value);
        }
        let mut plane = Daemon::start(command, &self.path().join("controlplane.log"))?;
        let ready: Value = serde_json::from_str(&plane.line().await?)?;
        let url = ready["ready"].as_str().context("a URL")?;
        self.address = url.trim_start_matches("http://").to_owned();
        self.plane = Some(plane);
        if let Some(project) = &self.project {
            self.token.clone_from(&project.token);
            anyhow::ensure!(!credentials.exists(), "in a project nobody is an admin by themselves");
            return Ok(());
        }
        let credentials: Value = serde_json::from_slice(&std::fs::read(credentials)?)?;
        self.token = credentials["token"].as_str().context("a token")?.to_owned();
        Ok(())
    }

    /// Starts the supervisor; how many sessions it adopted.
    pub async fn start_supervisor(&mut self) -> Result<u64> {
        let mut command = Command::new(self.binary("agentapi-supervisor"));
        command.arg("run").arg("--state-dir").arg(self.state_dir());
        command
            .arg("--credential-file")
            .arg(self.keys().join("host-credential.json"))
            .arg("--workspace-root")
            .arg(self.root());
        command.args(&self.supervisor_args).env(LOCAL_DEGRADED.0, LOCAL_DEGRADED.1);
        let mut supervisor = Daemon::start(command, &self.path().join("supervisor.log"))?;
        let ready: Value = serde_json::from_str(&supervisor.line().await?)?;
        self.supervisor = Some(supervisor);
        ready["sessions"].as_u64().context("a number of sessions")
    }

    fn binary(&self, name: &str) -> PathBuf {
        self.binaries.as_ref().map_or_else(|| binary(name), |dir| dir.join(name))
    }

    /// Waits until the control plane has its host.
    pub async fn connected(&self) {
        eventually("the host is connected", || async {
            let hosts: Value = self.get("/hosts").await.ok()?;
            (hosts["data"][0]["connected"] == true).then_some(())
        })
        .await;
    }

    /// kill -9 of the control plane.
    pub async fn kill_plane(&mut self) -> Result<()> {
        end(self.plane.take(), Signal::SIGKILL).await
    }

    /// Asks the control plane to end, and waits until it did.
    pub async fn stop_plane(&mut self) -> Result<()> {
        end(self.plane.take(), Signal::SIGTERM).await
    }

    /// kill -9 of the supervisor.
    pub async fn kill_supervisor(&mut self) -> Result<()> {
        end(self.supervisor.take(), Signal::SIGKILL).await
    }

    /// Pid of the running supervisor, or of the control plane.
    #[must_use]
    pub fn pids(&self) -> (Option<i32>, Option<i32>) {
        (self.supervisor.as_ref().map(Daemon::pid), self.plane.as_ref().map(Daemon::pid))
    }

    /// A request with the administrator's token; the path is below `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}/api/v1{path}", self.address)).bearer_auth(&self.token)
    }

    /// A GET that must succeed.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read(self.request(Method::GET, path)).await
    }

    /// A POST of JSON that must succeed.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        read(self.request(Method::POST, path).json(body)).await
    }

    /// A request of JSON whatever comes of it: status and body.
    pub async fn raw(&self, method: Method, path: &str, body: &Value) -> Result<(StatusCode, Value)> {
        let answer = self.request(method, path).json(body).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Creates a session of a command and waits until it runs.
    pub async fn create(&self, command: &[&str]) -> Result<Session> {
        let create = CreateSession {
            agent: agentapi_shared::api::CUSTOM_AGENT.to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..CreateSession::default()
        };
        let session: Session = self.post("/sessions?wait=running", &serde_json::to_value(create)?).await?;
        if session.state != SpawnState::Running {
            bail!("the session is {:?}: {:?}", session.state, session.state_reason);
        }
        Ok(session)
    }

    /// The session now.
    pub async fn session(&self, id: SessionId) -> Result<Session> {
        self.get(&format!("/sessions/{id}")).await
    }

    /// Every session.
    pub async fn sessions(&self) -> Result<Vec<Session>> {
        let page: Page<Session> = self.get("/sessions?limit=200").await?;
        Ok(page.data)
    }

    /// Waits until a session has ended.
    pub async fn ended(&self, id: SessionId) -> Session {
        eventually("the session has ended", || async {
            self.session(id).await.ok().filter(|session| session.state.is_ended())
        })
        .await
    }

    /// Types text.
    pub async fn type_text(&self, id: SessionId, text: &str) -> Result<()> {
        self.post::<Value>(&format!("/sessions/{id}/input"), &serde_json::json!({ "text": text })).await.map(drop)
    }

    /// The screen's text.
    pub async fn screen(&self, id: SessionId) -> Result<String> {
        let screen: Value = self.get(&format!("/sessions/{id}/screen")).await?;
        Ok(screen["text"].as_str().context("text")?.to_owned())
    }

    /// Waits until the screen shows something.
    pub async fn shows(&self, id: SessionId, what: &str) -> String {
        eventually(&format!("the screen shows {what:?}"), || async {
            self.screen(id).await.ok().filter(|text| text.contains(what))
        })
        .await
    }

    /// Opens a terminal.
    pub async fn view(&self, id: SessionId, options: ViewerOptions) -> Result<Viewer> {
        Viewer::connect(&self.address, &self.token, id, options).await
    }
}

async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        bail!("{status}: {text}");
    }
    serde_json::from_str(&text).with_context(|| text.clone())
}

async fn end(daemon: Option<Daemon>, signal: Signal) -> Result<()> {
    let mut daemon = daemon.context("it is running")?;
    daemon.signal(signal)?;
    daemon.ended().await.map(drop)
}

impl Drop for Product {
    /// Nothing outlives its test.
    fn drop(&mut self) {
        kill_survivors(&self.state_dir());
        remove_groups(&self.state_dir());
    }
}
