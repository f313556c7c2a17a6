//! The console in a real browser: the checks are in `tests/console`, which drives headless Chromium. Once on one machine, with two owners of
//! organisations to do it as; once in a project, where people have passwords; and once with an issuer that people come from.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use agentapi_test_postgres::cluster::{Cluster, Release};
use agentapi_test_postgres::jwt;
use agentapi_tests::dir::TempDir;
use agentapi_tests::process::{Daemon, LOCAL_DEGRADED, binary};
use agentapi_tests::product::Product;
use agentapi_tests::project::project;
use agentapi_tests::wait::soon;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use uuid::Uuid;

use crate::machine::Machine;

/// Wrong passwords that are said to be wrong, for one address; then there are no more tries.
const TRIES: u32 = 3;

fn checks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("console")
}

/// The checks with these options; pictures go to `pictures`.
fn run(url: &str, pictures: &Path, options: &[(&str, &Path)]) -> Result<Command> {
    std::fs::create_dir_all(pictures)?;
    let mut command = Command::new("node");
    command.args(["run.mjs", "--url", url, "--out"]).arg(pictures).current_dir(checks());
    for (name, value) in options {
        command.arg(name).arg(value);
    }
    // For the supervisor of a host that is enrolled in the console.
    command.env(LOCAL_DEGRADED.0, LOCAL_DEGRADED.1);
    Ok(command)
}

/// All of them held, and some of this group were there.
fn held(output: &Output, group: &str) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" 0 failed") && text.contains(&format!("ok - {group}: ")), "{text}");
}

/// An owner of a new organisation, made beside the running server; what was printed of them.
fn owner(data: &Path, email: &str, organization: &str) -> Result<Value> {
    let mut command = Command::new(binary("agentapi-controlplane"));
    command.args(["admin", "create-owner", "--json", "--email", email, "--org", organization]);
    let made = command.arg("--data-dir").arg(data).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(serde_json::from_slice(&made.stdout)?)
}

#[test]
fn the_console_does_what_a_person_wants() -> Result<()> {
    let machine = Machine::new()?;
    let (url, login) = machine.up(&[])?;
    let owners = machine.data().join("owners.json");
    let data = machine.data().join("controlplane");
    let people =
        [owner(&data, "ada@example.com", "Analytical Engines")?, owner(&data, "grace@example.com", "Compilers")?];
    std::fs::write(&owners, serde_json::to_string(&people)?)?;
    let programs = binary("agentapi");
    let programs = programs.parent().context("a directory")?;
    let options = [("--login-url", Path::new(&login)), ("--owners", &owners), ("--bin", programs)];
    held(&run(&url, &machine.data().join("pictures"), &options)?.output()?, "organization");
    Ok(())
}

/// What logs people in where a project has Supabase Auth, and its URL. Ends when it is dropped.
async fn auth(people: &Value) -> Result<(Child, String)> {
    let options = json!({ "secret": jwt::SECRET, "people": people, "tries": TRIES });
    let mut command = tokio::process::Command::new("node");
    command.arg("auth.mjs").arg(options.to_string()).current_dir(checks());
    let (child, said) = said(command).await?;
    Ok((child, said["url"].as_str().context("a URL")?.to_owned()))
}

/// Starts something that ends with its standard input; the line that it says first.
async fn said(mut command: tokio::process::Command) -> Result<(Child, Value)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let line = soon("its first line", lines.next_line()).await?.context("a line")?;
    Ok((child, serde_json::from_str(&line)?))
}

/// The link of an invitation into the owner's organisation.
async fn invited(product: &Product, email: &str) -> Result<String> {
    let body = json!({ "email": email, "role": "admin" });
    let made: Value = product.post("/invitations", &body).await?;
    Ok(made["url"].as_str().context("a link")?.to_owned())
}

#[tokio::test]
async fn people_of_a_project_log_in_with_a_password() -> Result<()> {
    let mut cluster = Cluster::start(Release::System).await?;
    // What stands for Supabase Auth keeps its users elsewhere; nobody is to be taken for deleted.
    cluster.sql_as("supabase_admin", "alter table auth.users rename to users_elsewhere").await?;
    cluster.serve("agentapi").await?;
    let person = |name: &str, confirmed: bool| {
        let email = format!("{name}@example.com");
        json!({ "id": Uuid::now_v7(), "email": email, "password": format!("the password of {name}"), "confirmed": confirmed })
    };
    let (mut ada, mut bob, eve) = (person("ada", true), person("bob", false), person("eve", true));
    let (_auth, auth_url) = auth(&json!([ada, bob, eve])).await?;
    let mut project = project(&cluster).await?;
    project.environment.push(("SUPABASE_URL", auth_url));
    project.environment.push(("SUPABASE_ANON_KEY", "sb_publishable_a".to_owned()));
    let product = Product::start_in(project).await?;
    for who in [&mut ada, &mut bob] {
        let email = who["email"].as_str().context("an address")?.to_owned();
        who["link"] = invited(&product, &email).await?.into();
    }
    let people = product.path().join("invited.json");
    std::fs::write(&people, json!({ "ada": ada, "bob": bob, "eve": eve }).to_string())?;
    let (url, pictures) = (format!("http://{}", product.address()), product.path().join("pictures"));
    // The product's own tasks go on meanwhile.
    let options = [("--invited", people.as_path()), ("--only", Path::new("password"))];
    let output = tokio::process::Command::from(run(&url, &pictures, &options)?).output().await?;
    held(&output, "password");
    Ok(())
}

/// An OpenID Connect issuer, whose browsers come back to `back`, and its URL. Ends when it is dropped.
async fn issuer(back: &str) -> Result<(Child, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("oidc");
    ensure!(dir.join("node_modules/oidc-provider").exists(), "the issuer is missing: cd tests/oidc && npm ci");
    let mut command = tokio::process::Command::new("node");
    command
        .arg("issuer.mjs")
        .arg(json!({ "redirect_uris": [back] }).to_string())
        .current_dir(dir)
        .stderr(Stdio::null());
    let (child, said) = said(command).await?;
    Ok((child, said["issuer"].as_str().context("a URL")?.to_owned()))
}

#[tokio::test]
async fn people_of_an_issuer_come_into_an_organization() -> Result<()> {
    let dir = TempDir::new();
    // The issuer is told where browsers come back to before there is anything.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (_issuer, issuer_url) = issuer(&format!("http://{address}/api/v1/login/issuer/callback")).await?;
    let data = dir.path().join("controlplane");
    let mut command = Command::new(binary("agentapi-controlplane"));
    command.args(["--listen", &address.to_string(), "--oidc-issuer", &issuer_url, "--oidc-client-id", "public"]);
    command.args(["--sign-up", "open", "--data-dir"]).arg(&data);
    let mut plane = Daemon::start(command, &dir.path().join("controlplane.log"))?;
    plane.line().await?;
    let owner = owner(&data, "owner@example.com", "Analytical Engines")?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let body = json!({ "email": "ada@example.com", "role": "viewer" });
    let asked = http.post(format!("http://{address}/api/v1/invitations")).json(&body);
    let made = asked.bearer_auth(owner["key"].as_str().context("a key")?).send().await?.error_for_status()?;
    let made: Value = made.json().await?;
    let people = dir.path().join("invited.json");
    std::fs::write(&people, json!({ "ada": { "link": made["url"] } }).to_string())?;
    let options = [("--invited", people.as_path()), ("--only", Path::new("issuer"))];
    let run = run(&format!("http://{address}"), &dir.path().join("pictures"), &options)?;
    held(&tokio::process::Command::from(run).output().await?, "issuer");
    Ok(())
}
