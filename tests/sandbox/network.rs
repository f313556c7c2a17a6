//! Attempts on the gateway, from inside: its rules, its names, its requests, its key. Judged by what arrived anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use agentapi_shared::egress::{MODEL_PORT_BASE, PROXY_PORT};
use agentapi_tests::wait::{eventually, slowness};
use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::outside::{MODEL_KEY, Outside};
use crate::scene::Scene;

/// A supervisor whose sessions go through the gateway, and what lies behind it.
struct Behind {
    scene: Scene,
    outside: Outside,
}

/// One thing said to a port inside: first this, then, after an answer, that.
fn ask(id: &str, port: u16, first: impl AsRef<[u8]>, then: impl AsRef<[u8]>) -> Value {
    json!({ "id": id, "port": port, "first": first.as_ref(), "then": then.as_ref() })
}

fn connect(id: &str, target: &str) -> Value {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    ask(id, PROXY_PORT, request, format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

fn get(id: &str, url: &str, host: &str, more: &str) -> Value {
    ask(id, PROXY_PORT, format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"), "")
}

fn socks(id: &str, host: &str, port: u16) -> Value {
    let length = u8::try_from(host.len()).unwrap_or(0);
    let request = [[5, 1, 0, 3, length].as_slice(), host.as_bytes(), port.to_be_bytes().as_slice()].concat();
    ask(id, PROXY_PORT, [5_u8, 1, 0], request)
}

impl Behind {
    async fn new() -> Result<Self> {
        let (scene, outside) = Scene::behind_gateway(Outside::make).await?;
        Ok(Self { scene, outside })
    }

    /// Says these things from inside a session; the answers by id, and everything that arrived anywhere.
    async fn say(&mut self, name: &str, asks: &[Value]) -> Result<(Value, BTreeSet<String>)> {
        let workspace = self.scene.workspace(name)?;
        fs::write(workspace.join("asks.json"), serde_json::to_vec(asks)?)?;
        let _before = self.scene.world.heard.take();
        let running = self.scene.run(name, &["sandbox-probe", "act", "ask", &slowness().to_string()]).await?;
        let answers = answers(&workspace).await?;
        self.scene.stop(running.session, 1, 0).await?;
        Ok((answers, self.scene.world.heard.take()))
    }
}

async fn answers(workspace: &Path) -> Result<Value> {
    let path = workspace.join("answers.json");
    let text =
        eventually("everything is said", || async { fs::read(&path).ok().filter(|text| text.ends_with(b"\n")) }).await;
    serde_json::from_slice(&text).context("answers")
}

fn text_of<'a>(answers: &'a Value, id: &str) -> &'a str {
    answers[id].as_str().unwrap_or_default()
}

/// What arrived at a server, or was asked of the name server.
fn arrived<'a>(heard: &'a BTreeSet<String>, tag: &str) -> Vec<&'a str> {
    heard.iter().filter_map(|text| text.strip_prefix(tag)?.strip_prefix('|')).collect()
}

#[tokio::test]
async fn a_name_that_is_not_listed_is_reached_in_no_disguise() -> Result<()> {
    let mut behind = Behind::new().await?;
    let disguises = [
        "other.example.org:80",
        "other.example.org:443",
        "OTHER.example.org:80",
        "other.example.org.:80",
        "93.184.216.20:80",
        "1572395028:80",
        "0x5db8d814:80",
        "0135.0270.0330.024:80",
        "93.184.55316:80",
        "[::ffff:93.184.216.20]:80",
        "[::ffff:5db8:d814]:80",
        "allowed.example.com@other.example.org:80",
        "other.example.org#allowed.example.com:80",
        "other.example.org/allowed.example.com:80",
        "allowed.example.com%00.other.example.org:80",
        "\u{430}llowed.example.com:80",
        "xn--llowed-2of.example.com:80",
        "wild.example.com:80",
        "denied.wild.example.com:80",
        "badallowed.example.com:80",
        "allowed.example.com.evil.example.org:80",
        "allowed.example.com:22",
        "example.com:80",
        "169.254.169.254:80",
        "metadata.example.com:80",
        "private.example.com:80",
        "loopback.example.com:80",
        "localhost:80",
        "127.0.0.1:80",
        "10.99.0.1:80",
        "[fd00:ec2::254]:80",
        "100.100.100.200:80",
        "168.63.129.16:80",
    ];
    let mut asks: Vec<Value> = disguises.iter().map(|target| connect(&format!("connect {target}"), target)).collect();
    asks.extend(disguises.iter().map(|target| get(&format!("get {target}"), &format!("http://{target}/"), target, "")));
    for (host, port) in
        [("other.example.org", 80), ("93.184.216.20", 80), ("metadata.example.com", 80), ("private.example.com", 80)]
    {
        asks.push(socks(&format!("socks {host}"), host, port));
    }
    asks.push(get("control", "http://allowed.example.com/control", "allowed.example.com", ""));
    asks.push(get("control wild", "http://a.b.wild.example.com/wild", "a.b.wild.example.com", ""));
    let (answers, heard) = behind.say("disguises", &asks).await?;
    // The controls get through, or nothing else says anything.
    assert!(
        text_of(&answers, "control").contains(" 200 ") && text_of(&answers, "control wild").contains(" 200 "),
        "{answers:#}"
    );
    let got: Vec<&str> = arrived(&heard, "allowed");
    assert!(got.iter().all(|text| text.starts_with("GET /control") || text.starts_with("GET /wild")), "{got:?}");
    assert_eq!((arrived(&heard, "other"), arrived(&heard, "private")), (Vec::new(), Vec::new()));
    assert!(heard.iter().all(|text| text.contains('|')), "nothing came to the host's own listeners: {heard:?}");
    let let_through = asks.iter().filter_map(|ask| ask["id"].as_str()).filter(|id| !id.starts_with("control"));
    let let_through: Vec<&str> = let_through.filter(|id| text_of(&answers, id).contains(" 200 ")).collect();
    assert_eq!(let_through, Vec::<&str>::new());
    Ok(())
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_dialled() -> Result<()> {
    let mut behind = Behind::new().await?;
    let again = |id: &str| get(id, &format!("http://rebind.example.com/{id}"), "rebind.example.com", "");
    let (answers, heard) = behind.say("rebind", &[again("first"), again("second"), again("third")]).await?;
    assert!(
        text_of(&answers, "first").contains(" 200 "),
        "the control: while the name is public, it is reached: {answers:#}"
    );
    assert!(
        !text_of(&answers, "second").contains(" 200 ") && !text_of(&answers, "third").contains(" 200 "),
        "{answers:#}"
    );
    assert_eq!(arrived(&heard, "private"), Vec::<&str>::new());
    assert_eq!(arrived(&heard, "allowed").len(), 1, "{heard:?}");
    Ok(())
}

/// The first message of TLS, as short as servers accept it; with a name in it or without.
fn hello(name: Option<&str>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let length = u8::try_from(name.len()).unwrap_or(0);
        extensions.extend([0, 0, 0, length + 5, 0, length + 3, 0, 0, length]);
        extensions.extend(name.as_bytes());
    }
    // Supported versions: 1.3 and 1.2.
    extensions.extend([0, 43, 0, 5, 4, 3, 4, 3, 3]);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap_or(0).to_be_bytes());
    body.extend(extensions);
    let length = u16::try_from(body.len()).unwrap_or(0);
    let mut record = vec![22, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

#[tokio::test]
async fn the_name_of_the_handshake_is_the_name_that_was_asked_for() -> Result<()> {
    let mut behind = Behind::new().await?;
    let with = |id: &str, then: Vec<u8>| {
        ask(id, PROXY_PORT, "CONNECT allowed.example.com:443 HTTP/1.1\r\nHost: allowed.example.com:443\r\n\r\n", then)
    };
    let wrong = [
        with("other", hello(Some("other.example.org"))),
        with("suffix", hello(Some("allowed.example.com.evil.example.org"))),
        with("none", hello(None)),
        with("plain", b"GET /plain HTTP/1.1\r\nHost: allowed.example.com\r\n\r\n".to_vec()),
    ];
    let (_, heard) = behind.say("handshakes", &wrong).await?;
    assert_eq!(arrived(&heard, "allowed"), Vec::<&str>::new());
    let (_, heard) = behind.say("handshake", &[with("right", hello(Some("allowed.example.com")))]).await?;
    assert_eq!(arrived(&heard, "allowed").len(), 1, "the control: the right name gets through");
    Ok(())
}

#[tokio::test]
async fn requests_cannot_be_smuggled() -> Result<()> {
    let mut behind = Behind::new().await?;
    let raw = |id: &str, text: &str| ask(id, PROXY_PORT, text.replace('\n', "\r\n"), "");
    let asks = [
        raw("host differs", "GET http://other.example.org/1 HTTP/1.1\nHost: allowed.example.com\n\n"),
        raw(
            "second",
            "GET http://allowed.example.com/first HTTP/1.1\nHost: allowed.example.com\n\nGET http://other.example.org/2 HTTP/1.1\nHost: other.example.org\n\n",
        ),
        raw(
            "both lengths",
            "POST http://allowed.example.com/first HTTP/1.1\nHost: allowed.example.com\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\nGET http://other.example.org/3 HTTP/1.1\nHost: other.example.org\n\n",
        ),
        raw(
            "two lengths",
            "POST http://allowed.example.com/first HTTP/1.1\nHost: allowed.example.com\nContent-Length: 0\nContent-Length: 60\n\nGET http://other.example.org/4 HTTP/1.1\nHost: other.example.org\n\n",
        ),
        raw(
            "line in connect",
            "CONNECT allowed.example.com:80\nHost: x HTTP/1.1\n\nGET http://other.example.org/5 HTTP/1.1\n\n",
        ),
        raw("folded", "GET http://allowed.example.com/first HTTP/1.1\nHost: allowed.example.com\n X: folded\n\n"),
        raw(
            "two hosts",
            "GET http://allowed.example.com/first HTTP/1.1\nHost: allowed.example.com\nHost: other.example.org\n\n",
        ),
        ask(
            "bare line feed",
            PROXY_PORT,
            "GET http://allowed.example.com/first HTTP/1.1\nHost: other.example.org\n\n",
            "",
        ),
    ];
    let (_, heard) = behind.say("smuggled", &asks).await?;
    assert_eq!(arrived(&heard, "other"), Vec::<&str>::new());
    for text in arrived(&heard, "allowed") {
        assert!(!text.contains("example.org"), "{text:?}");
    }
    let secret = get(
        "control",
        "http://allowed.example.com/control",
        "allowed.example.com",
        "Proxy-Authorization: Basic c2VjcmV0\r\n",
    );
    let (answers, heard) = behind.say("authorization", &[secret]).await?;
    let got = arrived(&heard, "allowed");
    assert!(got.len() == 1 && text_of(&answers, "control").contains(" 200 "), "{answers:#}");
    assert!(
        !got[0].to_lowercase().contains("proxy-authorization") && !text_of(&answers, "control").contains("c2VjcmV0"),
        "{got:?}"
    );
    Ok(())
}

#[tokio::test]
async fn names_that_are_not_listed_are_asked_of_nobody() -> Result<()> {
    let mut behind = Behind::new().await?;
    let carried = "c2VjcmV0LWRhdGE.other.example.org:443";
    let asks = [
        connect("carried", carried),
        socks("socks", "c2VjcmV0LWRhdGE.other.example.org", 443),
        connect("control", "allowed.example.com:80"),
    ];
    let (_, heard) = behind.say("names", &asks).await?;
    let names = arrived(&heard, "name");
    assert!(names.contains(&"allowed.example.com"), "the control: a listed name is asked for: {names:?}");
    assert!(names.iter().all(|name| !name.contains("c2vjcmv0")), "{names:?}");
    Ok(())
}

#[tokio::test]
async fn connections_of_one_session_are_capped_and_others_are_served() -> Result<()> {
    let mut behind = Behind::new().await?;
    let greedy =
        behind.scene.run("greedy", &["sandbox-probe", "act", "hoard", &PROXY_PORT.to_string(), "2000"]).await?;
    let count = greedy.workspace.join("hoarded");
    eventually("it holds what it can", || async {
        fs::read_to_string(&count).ok().filter(|text| text.ends_with('\n'))
    })
    .await;
    let (answers, _) =
        behind.say("served", &[get("control", "http://allowed.example.com/", "allowed.example.com", "")]).await?;
    assert!(text_of(&answers, "control").contains(" 200 "), "{answers:#}");
    Ok(())
}

#[tokio::test]
async fn the_models_key_goes_to_the_model_and_nowhere_else() -> Result<()> {
    let mut behind = Behind::new().await?;
    let to = |id: &str, text: &str| ask(id, MODEL_PORT_BASE, text.replace('\n', "\r\n"), "");
    let asks = [
        to("control", "GET /v1/control HTTP/1.1\nHost: 127.0.0.1:3200\nx-api-key: dummy\nConnection: close\n\n"),
        to("other host", "GET /v1/other HTTP/1.1\nHost: other.example.org\nConnection: close\n\n"),
        to(
            "absolute",
            "GET http://other.example.org/v1/absolute HTTP/1.1\nHost: other.example.org\nConnection: close\n\n",
        ),
        to("connect", "CONNECT other.example.org:443 HTTP/1.1\nHost: other.example.org\n\n"),
        to("error", "GET /v1/error HTTP/1.1\nHost: x\nConnection: close\n\n"),
        to("redirect", "GET /v1/redirect HTTP/1.1\nHost: x\nConnection: close\n\n"),
        to("trace", "TRACE / HTTP/1.1\nHost: x\nConnection: close\n\n"),
        get("by proxy", "http://other.example.org/v1", "other.example.org", "x-api-key: dummy\r\n"),
    ];
    let (answers, heard) = behind.say("model", &asks).await?;
    let sent = behind.outside.sent_to_model();
    assert!(
        sent.contains("/v1/control") && sent.contains(MODEL_KEY),
        "the control: the provider gets its key: {sent}{answers:#}"
    );
    assert!(!sent.contains("dummy"), "what the session sent in its place is dropped: {sent}");
    assert!(text_of(&answers, "control").contains(" 200 "), "{answers:#}");
    assert!(!answers.to_string().contains(MODEL_KEY), "no answer tells it");
    assert_eq!(
        arrived(&heard, "other"),
        Vec::<&str>::new(),
        "nobody else was sent anything, a redirect's aim included"
    );
    assert!(heard.iter().all(|text| !text.contains(MODEL_KEY)));
    // Nor does anything around the agent hold it.
    let running = behind.scene.run("holders", &["sandbox-probe", "act", "idle"]).await?;
    let members = eventually("the agent is there", || async {
        behind.scene.members(running.session).ok().filter(|all| all.len() >= 2)
    })
    .await;
    let shim = behind.scene.shim(running.session)?.pid;
    for pid in members.iter().map(|process| process.pid).chain([shim]) {
        assert!(!crate::credentials::in_memory(pid, MODEL_KEY)?, "process {pid} holds the key");
    }
    Ok(())
}
