//! Bad input: a clear refusal that names the field, and nothing left behind.

use agentapi_shared::frame::{FrameType, Header};
use agentapi_tests::product::Product;
use agentapi_tests::viewer::ViewerOptions;
use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// The request is refused with that status, and the problem names the field.
async fn check(product: &Product, method: Method, path: &str, body: Value, status: u16, field: &str) -> Result<()> {
    let (got, problem) = product.raw(method.clone(), path, &body).await?;
    let what = format!("{method} {path} {body}: {got} {problem}");
    assert_eq!(got.as_u16(), status, "{what}");
    assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{what}");
    assert!(problem["code"].is_string() && problem["detail"].is_string(), "{what}");
    let named = problem["errors"].as_array().is_some_and(|errors| {
        errors.iter().any(|error| error["field"].as_str().is_some_and(|named| named.starts_with(field)))
    });
    assert!(field.is_empty() || named, "`{field}` is not named: {what}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() -> Result<()> {
    let product = Product::start().await?;
    let base = || json!({ "agent": "custom", "command": ["true"] });
    let with = |field: &str, value: Value| {
        let mut body = base();
        body[field] = value;
        body
    };
    let cases = [
        (json!({}), "agent"),
        (json!({ "agent": "nobody" }), "agent"),
        (json!({ "agent": "custom" }), "command"),
        (json!({ "agent": "claude", "command": ["x"] }), "command"),
        (with("args", json!(["x"])), "args"),
        (with("command", json!([])), "command"),
        (with("command", json!("bash")), "command"),
        (with("command", json!(["a\u{0}b"])), "command"),
        (with("name", json!("n".repeat(101))), "name"),
        (with("name", json!(7)), "name"),
        (with("labels", json!({ "k".repeat(200): "v" })), "labels"),
        (with("env", json!({ "A=B": "x" })), "env"),
        (with("size", json!({ "cols": 0, "rows": 40 })), "size"),
        (with("size", json!({ "cols": 65535, "rows": 40 })), "size"),
        (with("size", json!({ "cols": 120 })), "size"),
        (with("workspace", json!({ "source": "path" })), "workspace.path"),
        (with("workspace", json!({ "source": "path", "path": "relative" })), "workspace.path"),
        (with("workspace", json!({ "source": "path", "path": "/etc/../etc" })), "workspace.path"),
        (with("workspace", json!({ "source": "path", "path": "/etc" })), "workspace.path"),
        (with("workspace", json!({ "source": "cloud" })), "workspace.source"),
        (with("unknown", json!(1)), "unknown"),
    ];
    for (body, field) in cases {
        check(&product, Method::POST, "/sessions", body, 422, field).await?;
    }
    assert!(product.sessions().await?.is_empty(), "no row is left");
    let dirs = std::fs::read_dir(product.state_dir().join("sessions"))?.count();
    assert_eq!(dirs, 0, "no directory is left");
    let session = product.create(&["cat"]).await?.id;
    for (path, body, field) in [
        ("input", json!({}), ""),
        ("input", json!({ "text": "a", "keys": ["Enter"] }), ""),
        ("input", json!({ "keys": ["NoSuchKey"] }), "keys"),
        ("input", json!({ "bytes_base64": "%%%" }), "bytes_base64"),
        ("resize", json!({ "cols": 0, "rows": 1 }), ""),
        ("resize", json!({ "cols": 70000, "rows": 1 }), ""),
        ("restart", json!({ "stop": "yes" }), "stop"),
    ] {
        check(&product, Method::POST, &format!("/sessions/{session}/{path}"), body, 422, field).await?;
    }
    check(&product, Method::GET, "/sessions?limit=0", Value::Null, 422, "query.limit").await?;
    check(&product, Method::GET, "/sessions?cursor=%21", Value::Null, 422, "query.cursor").await?;
    check(&product, Method::GET, "/sessions?state=asleep", Value::Null, 422, "query.state").await?;
    check(&product, Method::GET, "/sessions/not-an-id", Value::Null, 404, "").await?;
    check(&product, Method::GET, "/sessions/01a20ec7-bbd4-7247-ad4a-9cabc8fbec4e", Value::Null, 404, "").await?;
    check(&product, Method::GET, "/nowhere", Value::Null, 404, "").await?;
    check(&product, Method::PUT, "/sessions", Value::Null, 405, "").await?;
    check(&product, Method::POST, &format!("/sessions/{session}/restart"), json!({}), 409, "").await?;
    Ok(())
}

#[tokio::test]
async fn a_workspace_outside_the_roots_is_refused_with_the_reason() -> Result<()> {
    let product = Product::start().await?;
    std::os::unix::fs::symlink("/etc", product.root().join("link"))?;
    for path in [
        "/etc".to_owned(),
        product.root().join("link").display().to_string(),
        product.root().join("missing").display().to_string(),
    ] {
        let body = json!({ "agent": "custom", "command": ["true"], "workspace": { "source": "path", "path": path } });
        let (status, answer) = product.raw(Method::POST, "/sessions?wait=running", &body).await?;
        // Only the host knows its directories, so the session is made and fails with the host's reason, or is refused at once.
        let told = if status.is_success() { answer["state_reason"].clone() } else { answer["detail"].clone() };
        assert!(told.as_str().is_some_and(|told| told.contains("workspace.path")), "{status} {answer}");
    }
    let dirs = std::fs::read_dir(product.state_dir().join("sessions"))?.count();
    assert_eq!(dirs, 0, "no directory is left");
    Ok(())
}

#[tokio::test]
async fn garbage_closes_a_terminal_with_a_code_and_nothing_else() -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["cat"]).await?.id;
    let mut bad_flags = Header::new(FrameType::Input, 1, 1).with_payload(b"x");
    bad_flags[1] = 0xff;
    let bad = [
        Message::Binary(vec![0xff; 40].into()),
        Message::Binary(vec![1].into()),
        Message::Binary(Vec::new().into()),
        Message::Binary(bad_flags.into()),
        Message::Binary(Header::new(FrameType::Output, 1, 0).with_payload(b"x").into()),
        Message::text("{"),
        Message::text("{\"type\":\"resize\",\"size\":{\"cols\":0,\"rows\":0}}"),
        Message::text("[1,2,3]"),
    ];
    for message in bad {
        let mut viewer = product.view(session, ViewerOptions::default()).await?;
        viewer.send_raw(message.clone()).await?;
        assert_eq!(viewer.closed().await?, Some(agentapi_shared::viewer::close::MALFORMED), "{message:?}");
    }
    // A message of a later version is ignored.
    let mut viewer = product.view(session, ViewerOptions::default()).await?;
    viewer.send_raw(Message::text("{\"type\":\"of_the_future\",\"x\":1}")).await?;
    viewer.input(b"still here\r").await?;
    viewer.output_until("still here").await?;
    Ok(())
}
