//! A hundred sessions at once.

use agentapi_tests::process::processes;
use agentapi_tests::product::Product;
use agentapi_tests::viewer::ViewerOptions;
use anyhow::Result;
use futures_util::future::try_join_all;

#[tokio::test]
async fn a_hundred_sessions_live_side_by_side() -> Result<()> {
    const COUNT: usize = 100;
    let product = Product::start().await?;
    let marker = |n: usize| format!("mine-is-{n}");
    let commands: Vec<String> = (0..COUNT).map(|n| format!("echo {}; sleep 6001", marker(n))).collect();
    let sessions =
        try_join_all(commands.iter().map(|command| async { product.create(&["sh", "-c", command]).await })).await?;
    let seen = sessions.iter().enumerate().map(|(n, session)| {
        let (id, product) = (session.id, &product);
        async move {
            let mut viewer = product.view(id, ViewerOptions::default()).await?;
            viewer.output_until(&marker(n)).await
        }
    });
    try_join_all(seen).await?;
    let stop = sessions.iter().map(|session| {
        product.request(reqwest::Method::DELETE, &format!("/sessions/{}?force=true", session.id)).send()
    });
    try_join_all(stop).await?;
    for session in &sessions {
        product.ended(session.id).await;
    }
    assert!(!processes().iter().any(|process| process.command == "sleep 6001"));
    Ok(())
}
