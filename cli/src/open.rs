//! `agentapi open`: the next login link, printed, and opened where there is a desktop.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

use crate::args::{GlobalArgs, OpenArgs};
use crate::client::Client;
use crate::config::{self, Environment};
use crate::output;

/// Makes a link, prints it and opens it.
pub(crate) async fn open(args: &OpenArgs, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let client = Client::new(config::server(global, env)?)?;
    let login = client.login_code().await?;
    if global.json {
        output::json(&login)?;
    } else {
        output::line(&login.url);
    }
    let desktop = env.get("DISPLAY").is_some() || env.get("WAYLAND_DISPLAY").is_some();
    if desktop && !args.no_browser && !global.json {
        // The link is printed; a browser that does not open is not an error.
        if let Err(error) = browse(&login.url, env).await {
            output::note(&format!("no browser was opened: {error:#}"));
        }
    }
    Ok(())
}

/// Opens a private page that leads to the link: on a command line every user of the machine could read the code.
async fn browse(url: &str, env: &Environment) -> anyhow::Result<()> {
    let dir = env.get("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let page = dir.join(format!("agentapi-login-{}.html", uuid::Uuid::now_v7()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&page)?;
    file.write_all(page_to(url).as_bytes())?;
    drop(file);
    let opened = Command::new("xdg-open")
        .arg(&page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .context("xdg-open")?;
    anyhow::ensure!(opened.success(), "xdg-open ended with {opened}");
    Ok(())
}

fn page_to(url: &str) -> String {
    let escaped = url.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url={escaped}\"><a href=\"{escaped}\">AgentAPI</a>\n"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_link_cannot_leave_its_attribute() {
        let page = super::page_to("http://h/#code=\"><script>");
        assert!(!page.contains("\"><script>"), "{page}");
    }
}
