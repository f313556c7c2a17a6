//! Real programs in the terminal.

use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, ViewerOptions};
use anyhow::Result;
use serde_json::json;

async fn keys(product: &Product, id: agentapi_shared::SessionId, keys: &[&str]) -> Result<()> {
    product.post::<serde_json::Value>(&format!("/sessions/{id}/input"), &json!({ "keys": keys })).await.map(drop)
}

#[tokio::test]
async fn vim_edits_and_saves() -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["sh", "-c", "vim -u NONE -N file; echo; cat file; read x"]).await?;
    product.shows(session.id, "[New]").await;
    product.type_text(session.id, "ihello from vim").await?;
    keys(&product, session.id, &["Enter"]).await?;
    product.type_text(session.id, "second line").await?;
    keys(&product, session.id, &["Escape"]).await?;
    product.type_text(session.id, ":wq").await?;
    keys(&product, session.id, &["Enter"]).await?;
    let screen = product.shows(session.id, "second line").await;
    assert!(screen.contains("hello from vim"), "{screen}");
    Ok(())
}

#[tokio::test]
async fn less_pages_and_top_redraws() -> Result<()> {
    let product = Product::start().await?;
    let less = product.create(&["sh", "-c", "seq -f 'line %g of many' 500 | less"]).await?;
    product.shows(less.id, "line 39 of many").await;
    product.type_text(less.id, "G").await?;
    product.shows(less.id, "line 500 of many").await;
    product.type_text(less.id, "?line 77 of\r").await?;
    product.shows(less.id, "line 77 of many").await;
    let top = product.create(&["top", "-d", "0.2"]).await?;
    let screen = product.shows(top.id, "Tasks:").await;
    // Its own processes and nobody else's.
    assert!(screen.contains("top") && !screen.contains("less"), "{screen}");
    Ok(())
}

#[tokio::test]
async fn python_answers_and_is_interrupted() -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["python3", "-q"]).await?;
    product.shows(session.id, ">>>").await;
    product.type_text(session.id, "print('sum', 20 + 22)\r").await?;
    product.shows(session.id, "sum 42").await;
    product.type_text(session.id, "while True: pass\r\r").await?;
    keys(&product, session.id, &["C-c"]).await?;
    product.shows(session.id, "KeyboardInterrupt").await;
    product.type_text(session.id, "print('after', 1 + 1)\r").await?;
    product.shows(session.id, "after 2").await;
    keys(&product, session.id, &["C-d"]).await?;
    let ended = product.ended(session.id).await;
    assert_eq!(ended.exit.as_ref().and_then(|exit| exit.code), Some(0), "{ended:?}");
    Ok(())
}

/// What a viewer gets restores in an independent terminal to what the screen says.
#[tokio::test]
async fn a_viewer_sees_what_the_screen_says() -> Result<()> {
    let product = Product::start().await?;
    let script = "printf '\\033[31mred\\033[0m plain\\r\\n'; seq 100; printf '\\033[5;10Hplaced'; sleep 1000";
    let session = product.create(&["sh", "-c", script]).await?;
    product.shows(session.id, "placed").await;
    let mut viewer = product.view(session.id, ViewerOptions::default()).await?;
    let keyframe = viewer
        .wait_for(|seen| match seen {
            Seen::Keyframe(_, skipped, bytes) => Some((*skipped, bytes.clone())),
            _ => None,
        })
        .await?;
    assert!(!keyframe.0, "nothing was skipped for a viewer that has just come");
    let size = |cells: u16| std::num::NonZeroU16::new(cells).expect("not zero");
    let mut oracle = vt100::Parser::new(size(40), size(120), 0);
    oracle.process(&keyframe.1);
    let shown: Vec<String> = oracle.screen().rows(0, 120).map(|row| row.trim_end().to_owned()).collect();
    assert_eq!(shown.join("\n").trim_end(), product.screen(session.id).await?.trim_end());
    Ok(())
}
