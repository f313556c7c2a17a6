//! What is said at the start of a control plane that can be used, and yet not as it was meant.

use std::path::Path;
use std::process::Command;

use agentapi_test_postgres::dir::TempDir;
use agentapi_tests::process::{Daemon, binary};
use anyhow::{Result, ensure};

/// The log of a start, up to where it serves.
async fn said(dir: &Path, options: &[&str]) -> Result<String> {
    let log = dir.join(format!("log-{}", options.len()));
    let mut command = Command::new(binary("agentapi-controlplane"));
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.join("data")).args(options);
    let mut server = Daemon::start(command, &log)?;
    let ready = server.line().await?;
    ensure!(ready.contains("ready"), "{ready}");
    Ok(std::fs::read_to_string(&log)?)
}

#[tokio::test]
async fn a_public_url_without_the_address_of_clients_is_told_once() -> Result<()> {
    let dir = TempDir::new();
    let told = |log: &str| log.lines().filter(|line| line.contains("WARN") && line.contains(HEADER)).count();
    let public = ["--public-url", "https://agents.example.com"];
    assert_eq!(told(&said(dir.path(), &public).await?), 1);
    assert_eq!(told(&said(dir.path(), &[&public[..], &[HEADER, "x-forwarded-for"]].concat()).await?), 0);
    assert_eq!(told(&said(dir.path(), &[]).await?), 0);
    Ok(())
}

const HEADER: &str = "--client-address-header";
