//! The console in a real browser: the checks are in `tests/console`, which drives headless Chromium. Once on one machine, with two owners of
//! organisations to do it as; and once in a project, where people have passwords.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use agentapi_test_postgres::cluster::{Cluster, Release};
use agentapi_test_postgres::jwt;
use agentapi_tests::process::{LOCAL_DEGRADED, binary};
use agentapi_tests::product::Product;
use agentapi_tests::project::project;
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
fn owner(machine: &Machine, email: &str, organization: &str) -> Result<Value> {
    let mut command = Command::new(binary("agentapi-controlplane"));
    command.args(["admin", "create-owner", "--json", "--email", email, "--org", organization]);
    let made = command.arg("--data-dir").arg(machine.data().join("controlplane")).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(serde_json::from_slice(&made.stdout)?)
}

#[test]
fn the_console_does_what_a_person_wants() -> Result<()> {
    let machine = Machine::new()?;
    let (url, login) = machine.up(&[])?;
    let owners = machine.data().join("owners.json");
    let people =
        [owner(&machine, "ada@example.com", "Analytical Engines")?, owner(&machine, "grace@example.com", "Compilers")?];
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
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let lines = &mut BufReader::new(child.stdout.take().context("its output")?).lines();
    let said: Value = serde_json::from_str(&lines.next_line().await?.context("a line")?)?;
    Ok((child, said["url"].as_str().context("a URL")?.to_owned()))
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
    let output = tokio::process::Command::from(run(&url, &pictures, &[("--invited", &people)])?).output().await?;
    held(&output, "password");
    Ok(())
}
