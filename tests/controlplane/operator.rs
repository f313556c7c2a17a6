//! What the operator does beside the running server: who is shut out and erased, the platform's own trail; and a host whose answer is lost.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agentapi_tests::process::binary;
use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Viewer, ViewerOptions};
use agentapi_tests::wait::eventually;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Whatever was taken from somebody ends within this time.
const WITHIN: Duration = Duration::from_secs(60);

fn admin(product: &Product, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("agentapi-controlplane"));
    command.arg("admin").args(words).arg("--data-dir").arg(product.path().join("controlplane"));
    Ok(command.output()?)
}

fn admin_json(product: &Product, words: &[&str]) -> Result<Value> {
    let output = admin(product, &[words, &["--json"]].concat())?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn refused(output: &Output) -> Result<String> {
    ensure!(!output.status.success(), "it was done: {output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn agentapi(product: &Product, key: &str, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("agentapi"));
    command.env("AGENTAPI_URL", format!("http://{}", product.address())).env("AGENTAPI_TOKEN", key);
    Ok(command.args(words).output()?)
}

fn done(product: &Product, key: &str, words: &[&str]) -> Result<Value> {
    let output = agentapi(product, key, &[&["--json"], words].concat())?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn get(product: &Product, key: &str, path: &str) -> reqwest::RequestBuilder {
    reqwest::Client::new().get(format!("http://{}/api/v1{path}", product.address())).bearer_auth(key)
}

/// Somebody who was made by the operator, with an organisation of theirs.
struct Person {
    key: String,
    org: String,
    id: String,
}

fn owner(product: &Product, email: &str, org: &str) -> Result<Person> {
    let made = admin_json(product, &["create-owner", "--email", email, "--org", org])?;
    let text = |name: &str| made[name].as_str().map(str::to_owned).context("text");
    Ok(Person { key: text("key")?, org: text("organization_id")?, id: text("user_id")? })
}

/// The second one becomes an owner of the first one's organisation too, and has their key there: keys are of one organisation.
fn together(product: &Product, first: &Person, second: &Person, email: &str) -> Result<()> {
    let invited = done(product, &first.key, &["invite", "create", email, "--role", "admin", "--expires", "1d"])?;
    let url = invited["url"].as_str().context("a link")?;
    let token = url.split("invitation=").nth(1).and_then(|rest| rest.split('&').next()).context("a token")?;
    let file = product.path().join("invitation");
    std::fs::write(&file, token)?;
    let path = file.to_str().context("a path")?;
    done(product, &second.key, &["invite", "accept", "--org", &first.org, path])?;
    done(product, &first.key, &["member", "role", email, "owner"])?;
    let moved = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('UPDATE api_keys SET org_id = ? WHERE user_id = ?', sys.argv[2:]); c.commit()";
    let database = product.path().join("controlplane/controlplane.db");
    let moved = Command::new("python3").args(["-c", moved]).arg(database).args([&first.org, &second.id]).output()?;
    ensure!(moved.status.success(), "{moved:?}");
    Ok(())
}

async fn closes(viewer: &mut Viewer, within: Duration) -> Result<()> {
    let closed = async { while viewer.next().await.is_ok() {} };
    tokio::time::timeout(within, closed).await.context("the terminal stays open")
}

fn verified(product: &Product, file: &Path, words: &[&str]) -> Result<(Option<i32>, String)> {
    let path = file.to_str().context("a path")?;
    let output = agentapi(product, "", &[&["audit", "verify", path], words].concat())?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[tokio::test]
async fn whoever_is_erased_has_nothing_within_a_minute_and_every_hash_holds() -> Result<()> {
    let product = Product::start().await?;
    let (ada, grace) = (owner(&product, "ada@example.com", "Engines")?, owner(&product, "grace@example.com", "Navy")?);
    let made = done(&product, &ada.key, &["session", "create", "--wait", "--", "sleep", "1000"])?;
    let session = made["id"].as_str().context("an id")?.parse()?;
    let mut terminal = Viewer::connect(product.address(), &ada.key, session, ViewerOptions::default()).await?;
    terminal.next().await?;
    // Nobody else owns it: refused, with what to do, and nothing was done.
    let said = refused(&admin(&product, &["erase-person", "--email", "ada@example.com", "--yes"])?)?;
    ensure!(said.contains("Engines") && said.contains("--force"), "{said}");
    let said = refused(&admin(&product, &["erase-person", "--email", "nobody@example.com", "--yes"])?)?;
    ensure!(said.contains("nobody@example.com"), "{said}");
    together(&product, &ada, &grace, "grace@example.com")?;
    // A script that does not say that it means it changes nothing.
    let said = refused(&admin(&product, &["erase-person", "--email", "ada@example.com"])?)?;
    ensure!(said.contains("--yes"), "{said}");

    let export = async |name: &str| {
        let file = product.path().join(name);
        let request = get(&product, &grace.key, "/audit/export");
        std::fs::write(&file, request.send().await?.error_for_status()?.bytes().await?)?;
        Ok::<_, anyhow::Error>(file)
    };
    let key = product.path().join("controlplane/audit-checkpoints.pub");
    let trusting = ["--key", key.to_str().context("a path")?];
    let of_ada = |text: &str| {
        let theirs = text.lines().filter(|line| line.contains(&format!("\\\"id\\\":\\\"{}\\\"", ada.id)));
        theirs.filter(|line| !line.contains("\"personal\":null")).count()
    };
    // The control. What was just done gets its number within a second.
    let before = eventually("what they did is in the trail", async || {
        let file = export("before.ndjson").await.ok()?;
        let text = std::fs::read_to_string(&file).ok()?;
        (of_ada(&text) >= 3 && text.contains("ada@example.com")).then_some(file)
    })
    .await;
    assert_eq!(verified(&product, &before, &trusting)?.0, Some(0));

    let (start, erased) =
        (Instant::now(), admin_json(&product, &["erase-person", "--email", "ada@example.com", "--yes"])?);
    assert_eq!(erased["sessions_stopped"], 1, "{erased}");
    assert_eq!(agentapi(&product, &ada.key, &["session", "list"])?.status.code(), Some(5), "the key is nobody's");
    closes(&mut terminal, WITHIN).await?;
    let running = || -> Result<u64> {
        let all = admin_json(&product, &["list-organizations"])?;
        let ours = all["data"].as_array().into_iter().flatten().find(|found| found["id"] == json!(ada.org));
        ours.and_then(|found| found["sessions_running"].as_u64()).context("the organisation is listed")
    };
    while running()? > 0 {
        ensure!(start.elapsed() < WITHIN, "the session runs on");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The end of their terminal is recorded after they were erased, and brings nothing back.
    let after = eventually("the end of the terminal is recorded", || async {
        let file = export("after.ndjson").await.ok()?;
        std::fs::read_to_string(&file).ok()?.contains("terminal.detach").then_some(file)
    })
    .await;
    assert_eq!(verified(&product, &after, &trusting)?.0, Some(0));
    assert_eq!(verified(&product, &before, &trusting)?.0, Some(0), "what was exported before verifies as it did");
    let text = std::fs::read_to_string(&after)?;
    assert_eq!((of_ada(&text), text.contains("ada@example.com")), (0, false), "{text}");
    for word in ["user.erase", "session.stop"] {
        ensure!(text.contains(&format!("\\\"action\\\":\\\"{word}\\\"")), "{word}: {text}");
    }
    // Let in again is nobody who was erased, and who was only shut out is.
    let said = refused(&admin(&product, &["enable-user", "--user", &ada.id])?)?;
    ensure!(said.contains("was erased"), "{said}");
    let shut = admin(&product, &["disable-user", "--user", &grace.id, "--yes", "--force"])?;
    ensure!(shut.status.success(), "{shut:?}");
    assert_eq!(agentapi(&product, &grace.key, &["session", "list"])?.status.code(), Some(5));
    admin_json(&product, &["enable-user", "--email", "grace@example.com"])?;
    // What was wrong a moment ago is taken to be wrong for a few seconds.
    eventually("they are let in again", async || done(&product, &grace.key, &["session", "list"]).ok()).await;
    Ok(())
}

#[tokio::test]
async fn the_platforms_trail_is_its_operators() -> Result<()> {
    let product = Product::start().await?;
    let said = refused(&agentapi(&product, "aa_wrong", &["session", "list"])?)?;
    ensure!(!said.is_empty());
    let person = owner(&product, "ada@example.com", "Engines")?;
    admin_json(&product, &["disable-user", "--user", &person.id, "--yes", "--force"])?;
    let shown = admin_json(&product, &["audit"])?;
    let found: Vec<(&Value, &Value)> = shown["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|record| (&record["entry"]["action"], &record["entry"]["actor"]["id"]))
        .collect();
    assert_eq!(
        found,
        [(&json!("user.disable"), &json!("operator")), (&json!("request.refused"), &json!("anonymous"))],
        "{shown}"
    );
    let table = String::from_utf8(admin(&product, &["audit", "--action", "user.disable"])?.stdout)?;
    ensure!(table.contains(&person.id) && !table.contains("request.refused"), "{table}");
    let file = product.path().join("platform.ndjson");
    let path = file.to_str().context("a path")?;
    let exported = admin(&product, &["audit", "export", "--output", path])?;
    ensure!(exported.status.success(), "{exported:?}");
    let key = product.path().join("controlplane/audit-checkpoints.pub");
    let trusting = ["--key", key.to_str().context("a path")?];
    let (code, said) = verified(&product, &file, &trusting)?;
    ensure!(code == Some(0) && said.contains("of the platform"), "{said}");
    // To standard output it is the same file, and nothing else; what was handed out is recorded.
    let streamed = admin(&product, &["audit", "export"])?.stdout;
    std::fs::write(&file, &streamed)?;
    ensure!(String::from_utf8_lossy(&streamed).contains("audit.export"), "the first export is in the second");
    assert_eq!(verified(&product, &file, &trusting)?.0, Some(0));
    let text = String::from_utf8(streamed)?.replacen("anonymous", "anybody", 1);
    std::fs::write(&file, text)?;
    let (code, said) = verified(&product, &file, &trusting)?;
    ensure!(code == Some(8) && said.contains("record 1 is not what was sealed"), "{said}");
    Ok(())
}

/// Before the control plane; it can swallow answers.
async fn proxy(to: String, swallows: Arc<AtomicBool>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (to, swallows) = (to.clone(), swallows.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(&to).await?;
                if !swallows.load(Ordering::Relaxed) {
                    return tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop);
                }
                // The request goes through, its answer comes, and nobody hears it.
                let (mut request, mut answer) = (vec![0; 16 * 1024], [0; 1]);
                let length = near.read(&mut request).await?;
                far.write_all(&request[..length]).await?;
                far.read_exact(&mut answer).await.map(drop)
            });
        }
    });
    Ok(port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_locks_no_host_out() -> Result<()> {
    let product = Product::start().await?;
    let person = owner(&product, "ada@example.com", "Engines")?;
    let swallows = Arc::new(AtomicBool::new(false));
    let port = proxy(product.address().to_owned(), swallows.clone()).await?;
    let dir = product.path().join("worker");
    std::fs::create_dir(&dir)?;
    let (token, credential) = (dir.join("token"), dir.join("host-credential.json"));
    let made = done(&product, &person.key, &["host", "enrol", "worker"])?;
    std::fs::write(&token, made["token"].as_str().context("a token")?)?;
    let supervisor = |words: &[&str]| {
        let mut command = Command::new(binary("agentapi-supervisor"));
        command.args(words).arg("--credential-file").arg(&credential).output()
    };
    let url = format!("http://127.0.0.1:{port}");
    let enrolled = supervisor(&["enrol", "--url", &url, "--token-file", token.to_str().context("a path")?])?;
    ensure!(enrolled.status.success(), "{enrolled:?}");
    let before = std::fs::read_to_string(&credential)?;
    let old = serde_json::from_str::<Value>(&before)?["token"].as_str().context("a token")?.to_owned();
    let rotations = || async {
        let page = get(&product, &person.key, "/audit?action=host.rotate").send().await.ok()?;
        page.json::<Value>().await.ok()?["data"].as_array().map(Vec::len)
    };
    swallows.store(true, Ordering::Relaxed);
    for lost in 1..3 {
        let said = refused(&supervisor(&["rotate"])?)?;
        ensure!(said.contains("cannot reach"), "{said}");
        assert_eq!(std::fs::read_to_string(&credential)?, before, "the file is as it was");
        eventually("the rotation was done", || async { (rotations().await? == lost).then_some(()) }).await;
    }
    // Not by time either: nothing is ended.
    let ended = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT COUNT(revoked_at), COUNT(*) FROM host_credentials WHERE org_id IS NOT NULL').fetchone())";
    let ended = || -> Result<String> {
        let database = product.path().join("controlplane/controlplane.db");
        let counted = Command::new("python3").args(["-c", ended]).arg(database).output()?;
        Ok(String::from_utf8(counted.stdout)?.trim().to_owned())
    };
    assert_eq!(ended()?, "(0, 3)");
    swallows.store(false, Ordering::Relaxed);
    let rotated = supervisor(&["rotate"])?;
    ensure!(rotated.status.success() && rotated.stderr.is_empty(), "{rotated:?}");
    let new = serde_json::from_str::<Value>(&std::fs::read_to_string(&credential)?)?;
    ensure!(new["token"] != json!(old), "a new one");
    // Of those that were lost one waits, and the older one is gone. The new one was used, so that one and the one before end.
    assert_eq!(ended()?, "(2, 3)");
    Ok(())
}
