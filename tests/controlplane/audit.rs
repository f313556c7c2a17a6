//! The audit trail over kills, and in the hands of whoever verifies it.

use std::path::Path;
use std::process::{Command, Output};

use agentapi_tests::process::binary;
use agentapi_tests::product::Product;
use agentapi_tests::wait::eventually;
use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

/// Changes in each life of the control plane.
const CHANGES: usize = 40;

fn agentapi(product: &Product, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("agentapi"));
    command.args(words).env("AGENTAPI_URL", format!("http://{}", product.address()));
    Ok(command.env("AGENTAPI_TOKEN", product.token()).output()?)
}

fn verify(product: &Product, file: &Path) -> Result<(Option<i32>, Value)> {
    let path = file.to_str().context("a path")?;
    let output = agentapi(product, &["audit", "verify", path, "--json"])?;
    Ok((output.status.code(), serde_json::from_slice(&output.stdout)?))
}

#[tokio::test]
async fn a_kill_between_writing_and_sealing_loses_nothing() -> Result<()> {
    let mut product = Product::start().await?;
    let mut answered = 0;
    for _life in 0..3 {
        for _change in 0..CHANGES {
            let (status, _) = product.raw(Method::POST, "/login-codes", &json!({})).await?;
            ensure!(status == 201, "{status}");
            answered += 1;
        }
        product.kill_plane().await?;
        product.start_plane().await?;
    }
    let numbers = eventually("every change has its number", || async {
        let page: Value = product.get("/audit?action=login_code.create&limit=200").await.ok()?;
        let found: Vec<u64> = page["data"].as_array()?.iter().filter_map(|record| record["number"].as_u64()).collect();
        (found.len() >= answered).then_some(found)
    })
    .await;
    assert_eq!(numbers.len(), answered, "each once");

    let file = product.path().join("trail.ndjson");
    let exported = agentapi(&product, &["audit", "export", "--output", file.to_str().context("a path")?])?;
    ensure!(exported.status.success(), "{exported:?}");
    let (code, report) = verify(&product, &file)?;
    assert_eq!((code, &report["ok"]), (Some(0), &json!(true)), "{report}");
    let last = report["last"].as_u64().context("a number")?;
    ensure!(last >= answered as u64 && report["unvouched"] == last, "no checkpoint yet: {report}");

    // One letter of one record: found, and named.
    let text = std::fs::read_to_string(&file)?;
    let number = numbers[answered / 2];
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let is_it = line.starts_with(&format!("{{\"number\":{number},"));
            if is_it { line.replacen("login_code.create", "login_code.creates", 1) } else { line.to_owned() }
        })
        .collect();
    let bad = product.path().join("bad.ndjson");
    std::fs::write(&bad, lines.join("\n"))?;
    let (code, report) = verify(&product, &bad)?;
    assert_eq!((code, &report["first_bad"]), (Some(8), &json!(number)), "{report}");
    assert_eq!(report["line"], json!(number + 1), "{report}");
    let told = agentapi(&product, &["audit", "verify", bad.to_str().context("a path")?])?;
    let told = String::from_utf8(told.stderr)?;
    ensure!(told.contains(&format!("record {number} is not what was sealed")), "{told}");
    // What was not there to be read is another matter.
    let nothing = agentapi(&product, &["audit", "verify", "/nowhere"])?;
    assert_eq!(nothing.status.code(), Some(1));
    Ok(())
}

/// Whoever has the file cuts it, dates it anew, takes a record out, or signs it with a key of their own.
fn manipulations(product: &Product, file: &Path, key: &str) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let name = product.path().join("changed.ndjson").to_str().context("a path")?.to_owned();
    let verify = |lines: &[String], words: &[&str]| -> Result<(Option<i32>, String)> {
        std::fs::write(&name, lines.join("\n"))?;
        let output = agentapi(product, &[&["audit", "verify", &name], words].concat())?;
        Ok((output.status.code(), String::from_utf8([output.stdout, output.stderr].concat())?))
    };
    let manifest: Value = serde_json::from_str(lines[0])?;
    let field = |name: &str| manifest[name].as_str().map(str::to_owned).context("a field");
    let (last, at) = (manifest["last"].as_u64().context("a number")?, field("exported_at")?);
    let whole = || lines.iter().map(|line| (*line).to_owned()).collect::<Vec<String>>();
    let (code, said) = verify(&whole(), &["--key", key])?;
    ensure!(
        code == Some(0) && said.contains("handed out then") && said.contains("nothing is said"),
        "the control: {said}"
    );
    let (code, said) = verify(&whole(), &[])?;
    ensure!(code == Some(0) && said.contains("no key was given"), "{said}");

    let mut cut = whole();
    cut.pop();
    let (code, said) = verify(&cut, &["--key", key])?;
    ensure!(code == Some(8) && said.contains(&format!("record {last} is missing")), "{said}");
    let before: Value = serde_json::from_str(&cut[cut.len() - 1])?;
    let head = before["hash"].as_str().context("a hash")?;
    cut[0] = cut[0]
        .replacen(&format!("\"last\":{last}"), &format!("\"last\":{}", last - 1), 1)
        .replacen(&format!("\"count\":{last}"), &format!("\"count\":{}", last - 1), 1)
        .replacen(&field("head")?, head, 1);
    let (code, said) = verify(&cut, &["--key", key])?;
    ensure!(code == Some(8) && said.contains("the trail was cut"), "{said}");
    let mut older = whole();
    older[0] = older[0].replacen(&at, &at.replacen("20", "21", 1), 1);
    let (code, said) = verify(&older, &["--key", key])?;
    ensure!(code == Some(8) && said.contains("dated anew"), "{said}");
    let mut without = whole();
    without.remove(2);
    let (code, said) = verify(&without, &["--key", key])?;
    ensure!(code == Some(8) && said.contains("record 2 is not where it should be"), "{said}");
    let mut bare = whole();
    let unsigned = bare[0].split(",\"range_signature\"").next().context("a manifest")?.to_owned() + "}";
    bare[0] = unsigned;
    let (code, said) = verify(&bare, &["--key", key])?;
    ensure!(code == Some(8) && said.contains("bears no signature"), "{said}");
    let (code, said) = verify(&bare, &[])?;
    ensure!(code == Some(0) && said.contains("not signed"), "{said}");
    // A key of somebody else: another than this one vouches for nothing.
    let (code, said) = verify(&whole(), &["--key", "ed25519:A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="])?;
    ensure!(code == Some(8) && said.contains("is signed with the key"), "{said}");
    // What the server says of itself is the same key.
    let served = agentapi(product, &["audit", "key"])?;
    assert_eq!(served.stdout, std::fs::read(key)?);
    Ok(())
}

#[tokio::test]
async fn checkpoints_of_the_server_vouch_against_its_own_database() -> Result<()> {
    let mut product = Product::start().await?;
    for _ in 0..5 {
        product.raw(Method::POST, "/login-codes", &json!({})).await?;
    }
    product.stop_plane().await?;
    product.start_plane().await?;
    let dir = product.path().join("controlplane");
    let path = |name: &str| dir.join(name).to_str().map(str::to_owned).context("a path");
    let (checkpoints, key) = (path("audit-checkpoints.jsonl")?, path("audit-checkpoints.pub")?);
    let file = product.path().join("trail.ndjson");
    let name = file.to_str().context("a path")?.to_owned();
    let trusting = ["audit", "verify", &name, "--checkpoints", &checkpoints, "--key", &key, "--json"];
    let export = || agentapi(&product, &["audit", "export", "--output", &name]);
    ensure!(export()?.status.success());
    let output = agentapi(&product, &trusting)?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.success() && report["key_is_known"] == true, "{report}");
    manipulations(&product, &file, &key)?;
    let vouched = report["checkpoint"]["number"].as_u64().context("a checkpoint")?;
    ensure!(vouched >= 5, "{report}");

    // Whoever owns the database makes the chain anew, and it fits itself.
    product.stop_plane().await?;
    let forge = "
import sqlite3, sys, hashlib, uuid
c = sqlite3.connect(sys.argv[1])
c.executescript('DROP TRIGGER audit_logs_fixed; DROP TRIGGER audit_seals_fixed')
c.execute(\"UPDATE audit_logs SET entry = replace(entry, 'login_code.create', 'nothing.at_all') WHERE n = (SELECT n FROM audit_seals WHERE seq = 2 LIMIT 1)\")
for (org,) in c.execute('SELECT org_id FROM audit_heads').fetchall():
    h = bytes(32)
    for n, seq, id, entry in c.execute('SELECT a.n, s.seq, a.id, a.entry FROM audit_seals s JOIN audit_logs a ON a.n = s.n WHERE s.org_id = ? ORDER BY s.seq', (org,)).fetchall():
        h = hashlib.sha256(h + seq.to_bytes(8, 'big') + uuid.UUID(org).bytes + uuid.UUID(id).bytes + hashlib.sha256(entry.encode()).digest()).digest()
        c.execute('UPDATE audit_seals SET hash = ? WHERE n = ?', (h.hex(), n))
    c.execute('UPDATE audit_heads SET hash = ? WHERE org_id = ?', (h.hex(), org))
c.commit()
";
    let forged = Command::new("python3").args(["-c", forge]).arg(dir.join("controlplane.db")).output()?;
    ensure!(forged.status.success(), "{forged:?}");
    product.start_plane().await?;
    ensure!(agentapi(&product, &["audit", "export", "--output", &name])?.status.success());
    let output = agentapi(&product, &trusting)?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (output.status.code(), report["fault"].as_str().map(|fault| fault.contains("made anew"))),
        (Some(8), Some(true)),
        "{report}"
    );
    Ok(())
}
