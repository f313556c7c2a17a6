//! Viewers: keyframes and bytes, credit, slow ones, resume, input, size, the end.

use std::time::Duration;

use agentapi_shared::WindowSize;
use agentapi_shared::viewer::{ClientMessage, Resume, ServerMessage, WINDOW_BYTES, close};

use super::client::{Got, Harness};
use super::host::{SimHost, keyframe_text};

/// Bytes that tell their own offset apart from others.
fn pattern(from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

async fn with_session() -> (Harness, SimHost, super::host::Connection, agentapi_shared::SessionId) {
    let harness = Harness::start().await;
    let (host, connection) = SimHost::connect(&harness).await;
    let id = harness.create_running().await;
    (harness, host, connection, id)
}

#[tokio::test]
async fn a_newcomer_gets_a_keyframe_and_then_bytes() {
    let (harness, host, _connection, id) = with_session().await;
    host.print((id, 1), b"before");
    let mut viewer = harness.view(id, "").await;
    let hello = viewer.next().await;
    assert!(matches!(hello, Got::Said(ServerMessage::Hello { window: WINDOW_BYTES, .. })), "{hello:?}");
    let spawn =
        viewer.until("spawn", |_, got| matches!(got, Got::Said(ServerMessage::Spawn { .. })).then_some(())).await;
    let () = spawn;
    let keyframe = viewer.next().await;
    let expected = Got::Keyframe { offset: 6, skipped: false, size: WindowSize::DEFAULT, text: keyframe_text(6) };
    assert_eq!(keyframe, expected);
    host.print((id, 1), b"after");
    assert_eq!(viewer.next().await, Got::Output(6, b"after".to_vec()));
    // A second one comes to the same stream.
    let mut second = harness.view(id, "mode=ro").await;
    second.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    host.print((id, 1), b"more");
    second.until_offset(15).await;
    viewer.until_offset(15).await;
    assert_eq!(host.with(|model| model.watches.len()), 1);
    // Without viewers nothing flows.
    drop((viewer, second));
}

#[tokio::test]
async fn the_bytes_of_a_fast_viewer_are_exact() {
    let (harness, host, _connection, id) = with_session().await;
    let mut viewer = harness.view(id, "catchup=bytes").await;
    viewer.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    let total = 12 * 1024 * 1024;
    host.print((id, 1), &pattern(0, total));
    viewer.until_offset(total).await;
    assert!(viewer.bytes == pattern(0, total));
}

#[tokio::test]
async fn one_that_never_reads_disturbs_nobody_and_sees_now_when_it_reads() {
    let (harness, host, _connection, id) = with_session().await;
    let mut fast = harness.view(id, "catchup=bytes").await;
    fast.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    let mut stalled = harness.view(id, "").await;
    stalled.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    stalled.acks = false;
    let total = 10 * 1024 * 1024;
    host.print((id, 1), &pattern(0, total));
    fast.until_offset(total).await;
    assert!(fast.bytes == pattern(0, total));
    // The stalled one has its window, and not a byte more.
    stalled.until_offset(WINDOW_BYTES - 32 * 1024).await;
    assert!(stalled.at <= WINDOW_BYTES);
    stalled.acks = true;
    stalled.ack(stalled.at).await;
    let keyframe = stalled
        .until("a skip", |_, got| match got {
            Got::Keyframe { offset, skipped, .. } => Some((*offset, *skipped)),
            _ => None,
        })
        .await;
    assert_eq!(keyframe, (total, true));
    host.print((id, 1), b"now");
    stalled.until_offset(total + 3).await;
    assert_eq!(stalled.bytes, b"now");
}

#[tokio::test]
async fn alone_and_not_reading_it_stops_the_stream_and_skips_to_now() {
    let (harness, host, _connection, id) = with_session().await;
    let mut viewer = harness.view(id, "").await;
    viewer.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    viewer.acks = false;
    let total = 3 * 1024 * 1024;
    host.print((id, 1), &pattern(0, total));
    viewer.until_offset(WINDOW_BYTES - 32 * 1024).await;
    // The rule speaks of a second without credit. The clock is moved once everything that the host may send has arrived.
    host.until("the host is held back", |model| model.sent_on_streams() == WINDOW_BYTES + crate::relay::AHEAD_BYTES)
        .await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(agentapi_shared::viewer::LAG_MS_MAX + 100)).await;
    tokio::time::resume();
    viewer.acks = true;
    viewer.ack(viewer.at).await;
    let offset = viewer
        .until("a skip", |_, got| match got {
            Got::Keyframe { offset, skipped: true, .. } => Some(*offset),
            _ => None,
        })
        .await;
    assert_eq!(offset, total);
    host.print((id, 1), b"now");
    viewer.until_offset(total + 3).await;
    // The stream began anew at the keyframe: what lay between was never sent.
    let watches = host.with(|model| model.watches.clone());
    assert_eq!(watches, [(1, None), (1, Some(total))]);
}

#[tokio::test]
async fn a_slow_viewer_that_wants_every_byte_gets_every_byte() {
    let (harness, host, _connection, id) = with_session().await;
    let mut fast = harness.view(id, "catchup=bytes").await;
    fast.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    let mut slow = harness.view(id, "catchup=bytes").await;
    slow.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    slow.acks = false;
    let total = 6 * 1024 * 1024;
    host.print((id, 1), &pattern(0, total));
    fast.until_offset(total).await;
    slow.acks = true;
    slow.ack(slow.at).await;
    slow.until_offset(total).await;
    assert!(slow.bytes == pattern(0, total));
    // It is back on the live stream.
    host.print((id, 1), b"both");
    slow.until_offset(total + 4).await;
    fast.until_offset(total + 4).await;
}

#[tokio::test]
async fn a_resume_is_exact_or_says_that_it_is_not() {
    let (harness, host, _connection, id) = with_session().await;
    host.print((id, 1), &pattern(0, 2_000_000));
    let mut viewer = harness.view(id, "from=1:1234567&catchup=bytes").await;
    viewer.until_offset(2_000_000).await;
    assert!(viewer.bytes == pattern(1_234_567, 2_000_000 - 1_234_567));
    // From the ring, beside the first.
    let mut second = harness.view(id, "from=1:1999000").await;
    let resume = second
        .until("spawn", |_, got| match got {
            Got::Said(ServerMessage::Spawn { resume, offset, .. }) => Some((*resume, *offset)),
            _ => None,
        })
        .await;
    assert_eq!(resume, (Resume::Resumed, 1_999_000));
    second.until_offset(2_000_000).await;
    // Past retention, never written, and of a spawn that never was.
    host.with(|model| model.spawns.get_mut(&(id, 1)).unwrap().first = 1_000_000);
    for from in ["1:5", "1:99999999", "7:0"] {
        let mut viewer = harness.view(id, &format!("from={from}")).await;
        let resume = viewer
            .until("spawn", |_, got| match got {
                Got::Said(ServerMessage::Spawn { resume, .. }) => Some(*resume),
                _ => None,
            })
            .await;
        assert_eq!(resume, Resume::Gap, "{from}");
        assert!(matches!(viewer.next().await, Got::Keyframe { offset: 2_000_000, .. }), "{from}");
    }
}

#[tokio::test]
async fn a_viewer_lives_through_a_reconnect_of_the_host() {
    let (harness, mut host, connection, id) = with_session().await;
    let mut viewer = harness.view(id, "catchup=bytes").await;
    viewer.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    host.print((id, 1), &pattern(0, 100_000));
    viewer.until_offset(50_000).await;
    drop(connection);
    let reachable = |reachable: bool| {
        move |_: &super::client::Viewer, got: &Got| match got {
            Got::Said(ServerMessage::State { reachable: now, .. }) if *now == reachable => Some(()),
            _ => None,
        }
    };
    viewer.until("unreachable", reachable(false)).await;
    viewer.input(1, b"lost").await;
    viewer
        .until("refusal", |_, got| {
            matches!(got, Got::Said(ServerMessage::InputRefused { seq: 1, code, .. }) if code == "unreachable")
                .then_some(())
        })
        .await;
    let error = harness.try_view(id, "").await.unwrap_err().to_string();
    assert!(error.contains("503"), "{error}");
    host.print((id, 1), &pattern(100_000, 200_000));
    let _connection = host.reconnect(&harness).await;
    viewer.until_offset(300_000).await;
    assert!(viewer.bytes == pattern(0, 300_000));
}

#[tokio::test]
async fn an_ended_session_is_shown_and_the_next_spawn_follows() {
    let (harness, host, _connection, id) = with_session().await;
    let mut viewer = harness.view(id, "").await;
    viewer.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    host.print((id, 1), b"bye");
    host.end((id, 1), 3);
    let ended = |_: &super::client::Viewer, got: &Got| match got {
        Got::Said(ServerMessage::Ended { spawn, offset, exit }) => Some((*spawn, *offset, exit.code)),
        _ => None,
    };
    assert_eq!(viewer.until("the end", ended).await, (1, 3, Some(3)));
    // A late one sees the same.
    harness.until_state(id, "exited").await;
    for _ in 0..2 {
        let mut late = harness.view(id, "").await;
        late.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
        assert_eq!(late.until("the end", ended).await, (1, 3, Some(3)));
        assert_eq!(late.at, 3);
    }
    let mut resumed = harness.view(id, "from=1:1").await;
    assert_eq!(resumed.until("the end", ended).await, (1, 3, Some(3)));
    assert_eq!(resumed.bytes, b"ye");
    let (status, _) = harness.call("POST", &format!("/api/v1/sessions/{id}/restart"), None).await;
    assert_eq!(status, 202);
    for viewer in [&mut viewer, &mut resumed] {
        let next = viewer.until("next", |_, got| match got {
            Got::Said(ServerMessage::Spawn { spawn, .. }) => Some(*spawn),
            _ => None,
        });
        assert_eq!(next.await, 2);
    }
    host.print((id, 2), b"hi");
    viewer.until_offset(2).await;
    // An old position still leads through the rest of the old spawn to the new one.
    let mut old = harness.view(id, "from=1:0&catchup=bytes").await;
    assert_eq!(old.until("the end", ended).await, (1, 3, Some(3)));
    assert_eq!(old.bytes, b"bye");
    old.until("next", |_, got| matches!(got, Got::Said(ServerMessage::Spawn { spawn: 2, .. })).then_some(())).await;
    old.until_offset(2).await;
    assert_eq!(old.bytes, b"hi");
}

#[tokio::test]
async fn input_is_acknowledged_and_owns_the_size() {
    let (harness, host, _connection, id) = with_session().await;
    let mut typist = harness.view(id, "").await;
    let mut watcher = harness.view(id, "mode=ro").await;
    for viewer in [&mut typist, &mut watcher] {
        viewer.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    }
    let size = WindowSize::new(100, 30).unwrap();
    // A program may change the size by itself, in order with its output.
    let other = WindowSize::new(70, 20).unwrap();
    host.print((id, 1), b"a");
    host.resize((id, 1), other);
    host.print((id, 1), b"b");
    let at = watcher.until("resized", |viewer, _| (viewer.size == Some(other)).then_some(viewer.at)).await;
    assert_eq!(at, 1);
    typist.say(&ClientMessage::Resize { size }).await;
    typist.input(7, b"ls\r").await;
    let mut seen = (false, false);
    typist
        .until("ack and owner", |_, got| {
            seen.0 |= *got == Got::Said(ServerMessage::InputAck { seq: 7 });
            seen.1 |= matches!(got, Got::Said(ServerMessage::SizeOwner { viewer: Some(1) }));
            (seen == (true, true)).then_some(())
        })
        .await;
    host.until("typed", |model| model.spawns[&(id, 1)].input == b"ls\r").await;
    watcher.until("resized", |viewer, _| (viewer.size == Some(size)).then_some(())).await;
    watcher.input(1, b"rm").await;
    watcher
        .until("refusal", |_, got| {
            matches!(got, Got::Said(ServerMessage::InputRefused { code, .. }) if code == "read_only").then_some(())
        })
        .await;
    assert_eq!(host.with(|model| model.spawns[&(id, 1)].input.clone()), b"ls\r");
}

#[tokio::test]
async fn what_is_malformed_closes_with_its_code() {
    use futures_util::SinkExt as _;
    use tokio_tungstenite::tungstenite::Message;
    let (harness, _host, _connection, id) = with_session().await;
    let frames: Vec<(&str, Message, u16)> = vec![
        ("short frame", Message::Binary(vec![1, 2, 3].into()), close::MALFORMED),
        ("unknown type", Message::Binary(vec![99; 20].into()), close::MALFORMED),
        (
            "output from a viewer",
            Message::Binary(vec![1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into()),
            close::MALFORMED,
        ),
        ("no JSON", Message::Text("hello".into()), close::MALFORMED),
        ("wrong field", Message::Text(r#"{"type":"ack","spawn":"x"}"#.into()), close::MALFORMED),
        ("too large", Message::Binary(vec![4; 100_000].into()), close::MALFORMED),
        ("ack of the future", Message::Text(r#"{"type":"ack","spawn":1,"offset":999}"#.into()), close::VIOLATION),
    ];
    for (what, message, code) in frames {
        let mut viewer = harness.view(id, "").await;
        viewer.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
        let _sent = viewer.socket.send(message).await;
        let closed = viewer.until("close", |_, got| match got {
            Got::Closed(code) => Some(*code),
            _ => None,
        });
        assert_eq!(closed.await, code, "{what}");
    }
    let mut viewer = harness.view(id, "").await;
    let unknown = Message::Text(r#"{"type":"wave"}"#.into());
    viewer.socket.send(unknown).await.unwrap();
    viewer.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
}

#[tokio::test]
async fn a_purge_and_the_end_of_the_server_close_viewers() {
    let (mut harness, _host, _connection, id) = with_session().await;
    let mut viewer = harness.view(id, "").await;
    let other = harness.create_running().await;
    let mut second = harness.view(other, "").await;
    let closed = |_: &super::client::Viewer, got: &Got| match got {
        Got::Closed(code) => Some(*code),
        _ => None,
    };
    harness.call("DELETE", &format!("/api/v1/sessions/{id}?purge=true&force=true"), None).await;
    assert_eq!(viewer.until("close", closed).await, close::SESSION_GONE);
    harness.stop().await;
    assert_eq!(second.until("close", closed).await, close::GOING_AWAY);
}
