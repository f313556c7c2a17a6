//! What the embedded store adds to the server: one session read, and the server's empty route, by turns at a steady rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agentapi_tests::dir::TempDir;
use agentapi_tests::process::{Daemon, binary};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Options;
use crate::stats::{Samples, Table};

const ROUNDS: usize = 5;
const CONNECTIONS: u32 = 16;
const REQUESTS_PER_SECOND: u32 = 1000;

/// A control plane on the embedded store, without a limit of requests and without a host.
pub(crate) struct Plane {
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) dir: TempDir,
    daemon: Option<Daemon>,
}

impl Plane {
    pub(crate) async fn start() -> Result<Self> {
        let mut plane = Self { url: String::new(), token: String::new(), dir: TempDir::new(), daemon: None };
        plane.run().await?;
        Ok(plane)
    }

    /// Once more, with the database as it is by now.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
            daemon.ended().await?;
        }
        self.run().await
    }

    async fn run(&mut self) -> Result<()> {
        let credentials = self.dir.path().join("credentials.json");
        let mut command = std::process::Command::new(binary("agentapi-controlplane"));
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(self.dir.path().join("controlplane"));
        command.arg("--credentials-file").arg(&credentials);
        for flag in ["--key-requests-per-minute", "--user-requests-per-minute", "--organization-requests-per-minute"] {
            command.args([flag, "0"]);
        }
        let mut daemon = Daemon::start(command, &self.dir.path().join("controlplane.log"))?;
        let ready: Value = serde_json::from_str(&daemon.line().await?)?;
        ready["ready"].as_str().context("a URL")?.clone_into(&mut self.url);
        let credentials: Value = serde_json::from_slice(&std::fs::read(credentials)?)?;
        credentials["token"].as_str().context("a token")?.clone_into(&mut self.token);
        self.daemon = Some(daemon);
        Ok(())
    }
}

/// Asks at the steady rate for a while, each connection by turns; times from when a request was due.
async fn measure(url: &str, token: &str, span: Duration) -> Result<Samples> {
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(CONNECTIONS as usize).build()?;
    let (url, token): (Arc<str>, Arc<str>) = (url.into(), token.into());
    let every = Duration::from_secs(1) * CONNECTIONS / REQUESTS_PER_SECOND;
    let (start, mut workers) = (Instant::now() + Duration::from_millis(50), JoinSet::new());
    for number in 0..CONNECTIONS {
        let (http, url, token) = (http.clone(), url.clone(), token.clone());
        workers.spawn(async move {
            let (mut times, mut due) = (Vec::new(), start + every * number / CONNECTIONS);
            while due < start + span {
                tokio::time::sleep_until(due.into()).await;
                // The timer's own lateness is not the server's.
                let before = Instant::now();
                let answer = http.get(&*url).bearer_auth(&token).send().await?;
                let status = answer.status();
                answer.bytes().await?;
                ensure!(status.is_success(), "{url}: {status}");
                times.push(before.elapsed());
                due += every;
            }
            Ok(times)
        });
    }
    let mut samples = Samples::default();
    while let Some(times) = workers.join_next().await {
        times??.into_iter().for_each(|time| samples.push_us(time));
    }
    Ok(samples)
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let plane = Plane::start().await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let body = json!({ "agent": "custom", "command": ["true"], "name": "name" });
    let made = http.post(format!("{}/api/v1/sessions", plane.url)).bearer_auth(&plane.token).json(&body).send().await?;
    let made: Value = made.error_for_status()?.json().await?;
    let session = made["id"].as_str().context("an id")?;
    let span = Duration::from_millis(options.count(5000, 200) as u64);
    let urls = [format!("{}/livez", plane.url), format!("{}/api/v1/sessions/{session}", plane.url)];
    let (mut p50s, mut p99s) = (<[Samples; 2]>::default(), <[Samples; 2]>::default());
    for _ in 0..options.count(ROUNDS, 1) {
        for (index, url) in urls.iter().enumerate() {
            let times = measure(url, &plane.token, span).await?;
            p50s[index].push(times.median());
            p99s[index].push(times.quantile(0.99));
        }
    }
    let mut table = Table::new("Embedded store: a read beside the empty route", &["route", "p50 us", "p99 us"]);
    for (index, name) in ["empty route (/livez)", "one session"].into_iter().enumerate() {
        let cells = [p50s[index].median(), p99s[index].median()].map(|value| format!("{value:.0}"));
        table.row(&[&[name.to_owned()][..], &cells].concat());
    }
    table.note(&format!(
        "{REQUESTS_PER_SECOND} requests a second over {CONNECTIONS} connections, medians of rounds by turns: p50 x {:.2}, p99 + {:.0} us. Bars: p50 at \
         most 2 x the empty route's, p99 at most its p99 + 1,000 us.",
        p50s[1].median() / p50s[0].median(),
        p99s[1].median() - p99s[0].median()
    ));
    table.print();
    Ok(())
}
