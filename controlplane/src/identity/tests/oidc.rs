//! A real OpenID Connect issuer (`tests/oidc`), and a browser that follows redirects and keeps cookies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reqwest::Url;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::identity::fetch;
use crate::identity::login::Callback;

/// A client of it, with its secret: both need encoding.
pub(in crate::identity) const SECRET_CLIENT: (&str, &str) = ("secret+client/1", "s: e/c+r%e~t");
/// Where browsers come back to.
pub(in crate::identity) const BACK: &str = "http://127.0.0.1:3284/api/v1/login/issuer/callback";

/// The issuer's process; it ends with its standard input.
pub(in crate::identity) struct Issuer {
    pub(in crate::identity) url: String,
    _process: Child,
}

impl Issuer {
    pub(in crate::identity) async fn start(options: Value) -> Self {
        let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oidc");
        let is_installed = dir.join("node_modules/oidc-provider").exists();
        assert!(is_installed, "the issuer is missing. Install it with: cd tests/oidc && npm ci");
        let mut options = options;
        options["redirect_uris"] = json!([BACK]);
        let mut process = Command::new("node")
            .arg("issuer.mjs")
            .arg(options.to_string())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(std::time::Duration::from_secs(60), lines.next_line()).await;
        let said: Value = serde_json::from_str(&line.expect("the issuer starts").unwrap().unwrap()).unwrap();
        Self { url: said["issuer"].as_str().unwrap().to_owned(), _process: process }
    }
}

/// Follows a login to its end, as somebody of this name would. Gives what the browser comes back with.
pub(in crate::identity) async fn visit(url: &str, who: &str) -> Callback {
    let client = fetch::client().unwrap();
    let mut cookies: BTreeMap<String, String> = BTreeMap::new();
    let mut next = Url::parse(url).unwrap();
    next.query_pairs_mut().append_pair("login_hint", who);
    for _ in 0..12 {
        let jar: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = client.get(next.clone()).header("cookie", jar.join("; ")).send().await.unwrap();
        for set in answer.headers().get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        let status = answer.status();
        let location = answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        let Some(location) = location else {
            panic!("{next} led nowhere ({status}): {}", answer.text().await.unwrap())
        };
        next = next.join(&location).unwrap();
        if next.as_str().starts_with(BACK) {
            let query: BTreeMap<String, String> = next.query_pairs().into_owned().collect();
            return serde_json::from_value(json!(query)).unwrap();
        }
    }
    panic!("no end of redirects at {next}");
}
