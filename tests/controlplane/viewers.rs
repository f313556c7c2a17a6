//! Viewers: many, slow, read-only, late, gone and back.

use std::time::Duration;

use agentapi_shared::api::ScreenResponse;
use agentapi_shared::viewer::{ClientMessage, Resume, ServerMessage};
use agentapi_shared::{ExitReason, OrgId, SessionId, ViewerId, WindowSize};
use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, Viewer, ViewerOptions};
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result, ensure};
use reqwest::Method;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Error as SocketError;

use crate::organizations::admin;

fn bytes_from(spawn: u32, offset: u64) -> ViewerOptions {
    ViewerOptions { all_bytes: true, from: Some((spawn, offset)), ..ViewerOptions::default() }
}

async fn resume_verdict(viewer: &mut Viewer) -> Result<(Resume, u64)> {
    viewer
        .wait_for(|seen| match seen {
            Seen::Message(ServerMessage::Spawn { resume, offset, .. }) => Some((*resume, *offset)),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn one_that_never_reads_holds_up_nobody() -> Result<()> {
    let product = Product::start().await?;
    let session = product
        .create(&["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i ................................; done"])
        .await?;
    // It asks for everything and takes nothing.
    let _never_reads = product.view(session.id, ViewerOptions::default()).await?;
    let mut reads = product.view(session.id, bytes_from(1, 0)).await?;
    let mut bytes = 0;
    while bytes < 8 * 1024 * 1024 {
        if let Seen::Output(_, output) = reads.next().await? {
            bytes += output.len();
        }
    }
    Ok(())
}

#[tokio::test]
async fn one_that_was_away_gets_the_newest_screen_and_is_told() -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["sh", "-c", "read go; seq 2000000; echo the-end; sleep 1000"]).await?;
    let mut viewer = product.view(session.id, ViewerOptions::default()).await?;
    viewer.wait_for(|seen| matches!(seen, Seen::Keyframe(..)).then_some(())).await?;
    viewer.input(b"\r").await?;
    // Takes what its window allows and acknowledges nothing, until the program is through.
    product.shows(session.id, "the-end").await;
    tokio::time::timeout(Duration::from_millis(300), async { while viewer.next_unacknowledged().await.is_ok() {} })
        .await
        .err()
        .context("the window is full, so nothing more comes")?;
    let before = viewer.offset;
    viewer.acknowledge().await?;
    let (at, skipped, screen) = viewer
        .wait_for(|seen| match seen {
            Seen::Keyframe(at, skipped, bytes) => Some((*at, *skipped, String::from_utf8_lossy(bytes).into_owned())),
            _ => None,
        })
        .await?;
    assert!(skipped && at > before + 1_000_000, "one keyframe at {at}, after {before}, skipped: {skipped}");
    assert!(screen.contains("the-end"));
    Ok(())
}

#[tokio::test]
async fn one_that_comes_back_gets_exactly_the_rest() -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["bash", "--norc"]).await?;
    let mut viewer = product.view(session.id, bytes_from(1, 0)).await?;
    assert_eq!(resume_verdict(&mut viewer).await?, (Resume::Resumed, 0));
    viewer.input(b"echo first\r").await?;
    viewer.output_until("\rfirst\r\n").await?;
    let offset = viewer.offset;
    drop(viewer);
    product.type_text(session.id, "echo meanwhile\r").await?;
    product.shows(session.id, "\nmeanwhile").await;
    let mut viewer = product.view(session.id, bytes_from(1, offset)).await?;
    assert_eq!(resume_verdict(&mut viewer).await?, (Resume::Resumed, offset));
    let rest = viewer.output_until("\rmeanwhile\r\n").await?;
    assert!(!rest.contains("first"), "{rest}");
    // A position that was never reached is no position.
    let mut viewer = product.view(session.id, bytes_from(1, 1 << 40)).await?;
    assert_eq!(resume_verdict(&mut viewer).await?.0, Resume::Gap);
    viewer.wait_for(|seen| matches!(seen, Seen::Keyframe(..)).then_some(())).await?;
    Ok(())
}

#[tokio::test]
async fn a_position_beyond_every_end_holds_up_nobody() -> Result<()> {
    const BEYOND: u64 = 1 << 50;
    let product = Product::start().await?;
    let session = product.create(&["sh", "-c", "read go; seq 400000; echo the-end; sleep 1000"]).await?;
    // The first to come decides how the stream of the host is opened.
    let mut first = product.view(session.id, bytes_from(1, BEYOND)).await?;
    assert_eq!(resume_verdict(&mut first).await?.0, Resume::Gap);
    let mut second = product.view(session.id, ViewerOptions { all_bytes: true, ..ViewerOptions::default() }).await?;
    second.wait_for(|seen| matches!(seen, Seen::Keyframe(..)).then_some(())).await?;
    let waits = product.request(Method::GET, &format!("/sessions/{}/screen?after=1:{BEYOND}", session.id));
    let mut waiting = JoinSet::new();
    waiting.spawn(waits.send());
    second.input(b"\r").await?;
    tokio::time::timeout(Duration::from_secs(30), second.output_until("the-end")).await.context("it was held up")??;
    assert!(second.offset > 2_000_000, "{}", second.offset);
    let refused = product.request(Method::GET, &format!("/sessions/{}/screen?after=1:{}", session.id, 1_u64 << 53));
    assert_eq!(refused.send().await?.status(), 422);
    Ok(())
}

#[tokio::test]
async fn ended_sessions_are_shown_and_restarts_follow() -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["sh", "-c", "echo run; read line; exit 5"]).await?;
    product.shows(session.id, "run").await;
    product.type_text(session.id, "\r").await?;
    product.ended(session.id).await;
    let mut viewer = product.view(session.id, ViewerOptions { read_only: true, ..ViewerOptions::default() }).await?;
    let keyframe = viewer.output_until("run").await?;
    assert!(keyframe.contains("run"));
    let exit = viewer
        .wait_for(|seen| match seen {
            Seen::Message(ServerMessage::Ended { exit, .. }) => Some(exit.clone()),
            _ => None,
        })
        .await?;
    assert_eq!((exit.code, exit.reason), (Some(5), ExitReason::Exited));
    // The connection stays: a restart is shown in it.
    product.post::<serde_json::Value>(&format!("/sessions/{}/restart", session.id), &serde_json::json!({})).await?;
    let spawn = viewer
        .wait_for(|seen| match seen {
            Seen::Message(ServerMessage::Spawn { spawn, .. }) => Some(*spawn),
            _ => None,
        })
        .await?;
    assert_eq!(spawn, 2);
    viewer.output_until("run").await?;
    // From a position in the first spawn: its rest, then the second.
    let mut viewer = product.view(session.id, bytes_from(1, 2)).await?;
    assert_eq!(resume_verdict(&mut viewer).await?, (Resume::Resumed, 2));
    let first = viewer.output_until("\r\n").await?;
    assert!(first.starts_with('n'), "{first:?}");
    viewer.wait_for(|seen| matches!(seen, Seen::Message(ServerMessage::Ended { spawn: 1, .. })).then_some(())).await?;
    viewer.wait_for(|seen| matches!(seen, Seen::Message(ServerMessage::Spawn { spawn: 2, .. })).then_some(())).await?;
    Ok(())
}

#[tokio::test]
async fn one_owns_the_size_and_who_only_looks_types_nothing() -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["bash", "--norc"]).await?;
    let mut first = product.view(session.id, ViewerOptions::default()).await?;
    let mut second = product.view(session.id, ViewerOptions::default()).await?;
    let mut reader = product.view(session.id, ViewerOptions { read_only: true, ..ViewerOptions::default() }).await?;
    first.send(&ClientMessage::Resize { size: WindowSize::new(100, 30)? }).await?;
    second.send(&ClientMessage::Resize { size: WindowSize::new(77, 22)? }).await?;
    // Nobody owns it yet; then who types does.
    second.input(b"stty size\r").await?;
    for viewer in [&mut first, &mut second, &mut reader] {
        let size = viewer
            .wait_for(|seen| match seen {
                Seen::Message(ServerMessage::Resized { size, .. }) => Some(*size),
                _ => None,
            })
            .await?;
        assert_eq!(size, WindowSize::new(77, 22)?);
    }
    first.send(&ClientMessage::TakeSize).await?;
    let size = reader
        .wait_for(|seen| match seen {
            Seen::Message(ServerMessage::Resized { size, .. }) => Some(*size),
            _ => None,
        })
        .await?;
    assert_eq!(size, WindowSize::new(100, 30)?);
    reader.input(b"echo typed\r").await?;
    let code = reader
        .wait_for(|seen| match seen {
            Seen::Message(ServerMessage::InputRefused { code, .. }) => Some(code.clone()),
            _ => None,
        })
        .await?;
    assert_eq!(code, "read_only");
    assert!(!product.screen(session.id).await?.contains("typed"));
    Ok(())
}

/// What a terminal of that size shows that got these sequences, without the spaces at the ends of rows.
fn shown(size: WindowSize, sequences: &[u8]) -> String {
    let cells = |count| std::num::NonZero::new(count).unwrap_or(std::num::NonZero::<u16>::MIN);
    let mut parser = vt100::Parser::new(cells(size.rows()), cells(size.cols()), 0);
    parser.process(sequences);
    let rows: Vec<String> = parser.screen().rows(0, size.cols()).map(|row| row.trim_end().to_owned()).collect();
    rows.join("\n").trim_end().to_owned()
}

#[tokio::test]
async fn after_a_resize_a_keyframe_brings_what_the_program_does_not_redraw() -> Result<()> {
    let product = Product::start().await?;
    // Rows that wrap, from a program that takes no notice of its size.
    let session = product.create(&["sh", "-c", "seq -s ' ' 1 200; while read line; do echo got $line; done"]).await?;
    product.shows(session.id, "200").await;
    let mut viewer = product.view(session.id, ViewerOptions::default()).await?;
    let mut exact = product.view(session.id, bytes_from(1, 0)).await?;
    viewer.wait_for(|seen| matches!(seen, Seen::Keyframe(..)).then_some(())).await?;
    let size = WindowSize::new(61, 30)?;
    viewer.send(&ClientMessage::Resize { size }).await?;
    viewer.send(&ClientMessage::TakeSize).await?;
    let resized = |seen: &Seen| match seen {
        Seen::Message(ServerMessage::Resized { size, offset, .. }) => Some((*size, *offset)),
        _ => None,
    };
    let (told, offset) = viewer.wait_for(resized).await?;
    assert_eq!(told, size);
    let (at, skipped, sequences) = viewer
        .wait_for(|seen| match seen {
            Seen::Keyframe(at, skipped, sequences) => Some((*at, *skipped, sequences.clone())),
            _ => None,
        })
        .await?;
    assert_eq!((at, skipped), (offset, false));
    assert_eq!(shown(size, &sequences), product.screen(session.id).await?.trim_end());
    // Output goes on where it was; who wants every byte gets these and nothing else.
    viewer.input(b"more\r").await?;
    assert!(viewer.output_until("got more\r\n").await?.starts_with("more"));
    exact.wait_for(resized).await?;
    while exact.offset < viewer.offset {
        let seen = exact.next().await?;
        assert!(!matches!(seen, Seen::Keyframe(..)), "a viewer of bytes gets bytes");
    }
    Ok(())
}

/// An echo goes to the viewers before it goes to the screen; who asks for the screen then must not notice.
#[tokio::test]
async fn the_screen_has_what_a_viewer_was_shown() -> Result<()> {
    let product = Product::start().await?;
    let session = product.create(&["sh", "-c", "stty raw -echo; printf READY; exec cat"]).await?;
    let mut viewer = product.view(session.id, ViewerOptions::default()).await?;
    viewer.output_until("READY").await?;
    for key in b'a'..=b'z' {
        viewer.input(&[key]).await?;
        viewer.output_until(std::str::from_utf8(&[key])?).await?;
        let screen: ScreenResponse = product.get(&format!("/sessions/{}/screen", session.id)).await?;
        assert!(screen.offset >= viewer.offset, "{} < {}", screen.offset, viewer.offset);
        assert!(screen.text.trim_end().ends_with(char::from(key)), "{}", screen.text);
    }
    Ok(())
}

/// The organisation that is there from the start.
const LOCAL_ORG: OrgId = OrgId::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);

async fn hello(viewer: &mut Viewer) -> Result<ViewerId> {
    let id = |seen: &Seen| match seen {
        Seen::Message(ServerMessage::Hello { id, .. }) => *id,
        _ => None,
    };
    viewer.wait_for(id).await
}

/// The problem of an attachment that is refused for want of a place.
async fn refused(product: &Product, session: SessionId) -> Result<String> {
    let refusal = product.view(session, ViewerOptions::default()).await.err().context("it was opened")?;
    let Some(SocketError::Http(answer)) = refusal.downcast_ref::<SocketError>() else { return Err(refusal) };
    ensure!(answer.status() == 429, "{answer:?}");
    Ok(String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned())
}

#[tokio::test]
async fn places_are_limited_and_a_kill_of_the_control_plane_takes_none_from_those_who_come_back() -> Result<()> {
    let mut product = Product::start().await?;
    let session = product.create(&["bash", "--norc"]).await?;
    let set = admin(&product, &["set-quotas", "--org", &LOCAL_ORG.to_string(), "--viewers", "1"])?;
    ensure!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let mut viewer = product.view(session.id, ViewerOptions::default()).await?;
    let id = hello(&mut viewer).await?;
    let problem = refused(&product, session.id).await?;
    assert!(problem.contains("quota_viewers") && problem.contains("detach one of them"), "{problem}");
    product.kill_plane().await?;
    product.start_plane().await?;
    product.connected().await;
    // Its lease is not over: nobody else gets in before whoever had it.
    refused(&product, session.id).await?;
    let back = ViewerOptions { replaces: Some(id), ..ViewerOptions::default() };
    let mut viewer = product.view(session.id, back).await?;
    assert_ne!(hello(&mut viewer).await?, id);
    refused(&product, session.id).await?;
    viewer.input(b"echo in its place\r").await?;
    product.shows(session.id, "in its place").await;
    drop(viewer);
    // Who leaves makes room.
    eventually("there is a place", async || product.view(session.id, ViewerOptions::default()).await.ok()).await;
    Ok(())
}
