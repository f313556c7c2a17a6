//! Any interleaving of output, credit, slow and fast viewers, lost links and hosts: who wants every byte gets exactly these, nobody is
//! sent more than its window, and the host is never asked for more than rings hold.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, Weak};

use agentapi_shared::link::{HostMessage, Watched};
use agentapi_shared::{HostId, OrgId, SessionId, SpawnState, UserId};
use proptest::prelude::*;
use time::OffsetDateTime;

use super::*;
use crate::fleet::{Closed, Outgoing, Outlet};
use crate::relay::hub::{Hubs, Seat};
use crate::store::records::{Desired, SessionRecord, StopRequest};

/// The journal repeats after a prime number of bytes: no cut of ours can hide in that.
const PERIOD: u64 = 1_000_003;

/// What the journal has from an offset on; at most 128 KiB.
fn journal_at(offset: u64, len: usize) -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let byte = |at: u64| (at % PERIOD).wrapping_mul(2_654_435_761).to_le_bytes()[1];
    let bytes = BYTES.get_or_init(|| (0..PERIOD + 131_072).map(byte).collect());
    let start = usize::try_from(offset % PERIOD).unwrap();
    &bytes[start..start + len]
}

fn record() -> SessionRecord {
    let spawn = SpawnRecord {
        number: 1,
        state: SpawnState::Running,
        accepted: true,
        has_env: false,
        report: (1, 1),
        boot_id: None,
        started: None,
        ended: None,
        exit: None,
        posture: None,
        sandbox_policy: agentapi_shared::api::SandboxPolicy::default(),
    };
    SessionRecord {
        id: SessionId::generate(),
        org: OrgId::generate(),
        created_by: UserId::generate(),
        visibility: agentapi_shared::api::Visibility::default(),
        created_at: OffsetDateTime::UNIX_EPOCH,
        name: None,
        labels: std::collections::BTreeMap::new(),
        agent: "custom".to_owned(),
        command: Vec::new(),
        args: Vec::new(),
        run_command: None,
        size: WindowSize::DEFAULT,
        workspace: agentapi_shared::api::Workspace::default(),
        sandbox: agentapi_shared::api::SandboxRequest::default(),
        host: None,
        desired: Desired::Run,
        generation: 1,
        stop: StopRequest { grace_ms: 0, force: false },
        purging: false,
        restarting: false,
        revision: 1,
        spawns: vec![spawn],
    }
}

/// What the control plane sent to the host.
#[derive(Debug, Default)]
struct Sent(Mutex<VecDeque<Outgoing>>);

impl Outlet for Sent {
    fn send(&self, outgoing: Outgoing) -> Result<(), Closed> {
        self.0.lock().unwrap().push_back(outgoing);
        Ok(())
    }
}

impl Sent {
    fn take(&self) -> Option<Outgoing> {
        self.0.lock().unwrap().pop_front()
    }
}

/// A host whose journal is a function of the offset, so that it costs nothing.
struct Host {
    link: Arc<Link>,
    out: Arc<Sent>,
    journal: u64,
    streams: HashMap<u32, (u64, u64)>,
    ended: bool,
    /// Keyframes made, and how far behind the output they are.
    keyframes: u32,
    keyframe_lag: u64,
}

impl Host {
    fn new() -> Self {
        let out = Arc::new(Sent::default());
        let sent: Weak<Sent> = Arc::downgrade(&out);
        let link = Link::new(HostId::generate(), None, "boot".to_owned(), 0, sent);
        Self { link, out, journal: 0, streams: HashMap::new(), ended: false, keyframes: 0, keyframe_lag: 0 }
    }

    fn reconnect(&mut self) {
        self.link.abandon();
        let fresh = Self::new();
        (self.link, self.out) = (fresh.link, fresh.out);
        self.streams.clear();
    }

    fn take_messages(&mut self) {
        use agentapi_shared::link::PlaneMessage as M;
        while let Some(outgoing) = self.out.take() {
            let Outgoing::Message(message) = outgoing else { continue };
            match message {
                M::Watch { stream, from, limit, .. } => {
                    let resumed = from.is_some_and(|from| from <= self.journal);
                    let offset = from.filter(|_| resumed).unwrap_or(self.journal);
                    let limit = if resumed { limit } else { offset + limit - from.unwrap_or(0) };
                    self.streams.insert(stream, (offset, limit));
                    let size = WindowSize::DEFAULT;
                    let watched = Watched { stream, size, first_offset: 0, offset, resumed };
                    self.link.route(HostMessage::Watched(watched));
                    if !resumed {
                        self.keyframe(stream);
                    }
                }
                M::Credit { stream, limit } => {
                    if let Some((_, granted)) = self.streams.get_mut(&stream) {
                        assert!(limit > *granted, "credit that changes nothing");
                        *granted = limit;
                    }
                }
                M::Keyframe { stream } => self.keyframe(stream),
                M::Unwatch { stream } => {
                    self.streams.remove(&stream);
                }
                M::Welcome { .. } | M::OutboxAck { .. } | M::Command { .. } => {}
            }
        }
    }

    fn keyframe(&mut self, stream: u32) {
        self.keyframes += 1;
        let payload = Keyframe { size: WindowSize::DEFAULT, bytes: b"" }.to_payload();
        if let Some(feed) = self.link.feed(stream) {
            feed.keyframe(self.journal.saturating_sub(self.keyframe_lag), payload.into());
        }
    }

    /// Streams that were sent everything are told another size.
    fn resize(&mut self, size: WindowSize) {
        for (stream, (offset, _)) in &self.streams {
            assert_eq!(*offset, self.journal);
            if let Some(feed) = self.link.feed(*stream) {
                feed.resized(*offset, size);
            }
        }
    }

    /// Sends at most `chunks` chunks on each stream.
    fn send(&mut self, chunks: u32) {
        self.take_messages();
        let mut over = Vec::new();
        for (stream, (offset, limit)) in &mut self.streams {
            for _ in 0..chunks {
                let end = self.journal.min(*limit).min(*offset + 40_000);
                if end <= *offset {
                    break;
                }
                if let Some(feed) = self.link.feed(*stream) {
                    feed.output(*offset, Bytes::from_static(journal_at(*offset, (end - *offset) as usize)));
                }
                *offset = end;
            }
            if self.ended && *offset == self.journal {
                over.push(*stream);
            }
        }
        for stream in over {
            self.streams.remove(&stream);
            self.link.route(HostMessage::StreamEnded { stream, offset: self.journal });
        }
    }
}

struct Client {
    flow: Flow,
    seat: Seat,
    start: Option<u64>,
    at: u64,
    acked: u64,
    skips: u32,
    keyframes: Vec<u64>,
    ended: Option<u64>,
}

impl Client {
    fn new(hubs: &Hubs, record: &SessionRecord, catchup: Catchup, from: From) -> Self {
        let seat = hubs.join(record, true);
        let flow = Flow::new(catchup, from, 1);
        Self { flow, seat, start: None, at: 0, acked: 0, skips: 0, keyframes: Vec::new(), ended: None }
    }

    /// Takes at most `steps` things; gives whether it came to a wait.
    fn take(&mut self, host: &Host, steps: u32) -> bool {
        for _ in 0..steps {
            let view = self.seat.hub.view();
            match self.flow.step(Around { hub: &self.seat.hub, view: &view, link: Some(&host.link) }) {
                Action::Wait => return true,
                Action::Again => {}
                Action::Say(ServerMessage::Spawn { offset, resume, .. }) => {
                    assert!(self.start.is_none() || resume == Resume::Gap);
                    self.start = Some(offset);
                    (self.at, self.acked) = (offset, offset);
                }
                Action::Say(ServerMessage::Ended { offset, .. }) => self.ended = Some(offset),
                Action::Say(_) => {}
                Action::Frame(header, payload) => self.frame(header, &payload),
            }
        }
        false
    }

    fn frame(&mut self, header: Header, payload: &Bytes) {
        if header.frame_type == FrameType::Keyframe {
            self.keyframes.push(header.position);
            if header.flags & FLAG_SKIPPED != 0 {
                self.skips += 1;
                // A client counts what it has not parsed; what is skipped it never has.
                self.acked = header.position - (self.at - self.acked);
            }
            self.at = header.position;
            return;
        }
        assert_eq!(header.position, self.at, "output follows on output");
        assert!(payload == journal_at(self.at, payload.len()), "other bytes at {}", self.at);
        self.at += payload.len() as u64;
        assert!(self.at <= self.acked + WINDOW_BYTES, "beyond the window");
    }

    fn ack(&mut self, part: u64) {
        self.acked += (self.at - self.acked).min(part);
        // Between a skip's ends lies nothing that could be acknowledged.
        if self.skips == 0 || self.acked == self.at {
            self.flow.ack(1, self.acked).unwrap();
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Produce(u64),
    Send(u32),
    Take(usize, u32),
    Ack(usize, u64),
    Reconnect,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u64..900_000).prop_map(Op::Produce),
        6 => (1u32..12).prop_map(Op::Send),
        8 => (0usize..4, 1u32..20).prop_map(|(who, steps)| Op::Take(who, steps)),
        6 => (0usize..4, 1u64..400_000).prop_map(|(who, part)| Op::Ack(who, part)),
        1 => Just(Op::Reconnect),
    ]
}

fn run(ops: Vec<Op>) {
    let (mut record, hubs) = (record(), Hubs::default());
    let mut host = Host::new();
    host.journal = 100_000;
    let mut clients = vec![
        Client::new(&hubs, &record, Catchup::Bytes, From::At(1, 0)),
        Client::new(&hubs, &record, Catchup::Bytes, From::Fresh),
        Client::new(&hubs, &record, Catchup::Bytes, From::At(1, 50_000)),
        Client::new(&hubs, &record, Catchup::Screen, From::Fresh),
    ];
    for op in ops {
        match op {
            Op::Produce(bytes) => host.journal += bytes,
            Op::Send(chunks) => host.send(chunks),
            Op::Take(who, steps) => {
                clients[who].take(&host, steps);
            }
            Op::Ack(who, part) => clients[who].ack(part),
            Op::Reconnect => host.reconnect(),
        }
    }
    // In the end everyone reads: everything arrives, within as many rounds as the bytes need.
    host.ended = true;
    let spawn = &mut record.spawns[0];
    spawn.state = SpawnState::Exited;
    spawn.exit = Some(crate::domain::rules::exit(agentapi_shared::ExitReason::Exited, "done"));
    record.revision += 1;
    hubs.session_changed(&record, true);
    let rounds = 1000 + host.journal / 10_000;
    for _ in 0..rounds {
        host.send(8);
        for client in &mut clients {
            client.take(&host, 50);
            client.ack(u64::MAX);
        }
    }
    for (index, client) in clients.iter().enumerate() {
        assert_eq!((client.at, client.ended), (host.journal, Some(host.journal)), "client {index}: {:?}", client.flow);
        assert!(index == 3 || client.skips == 0);
    }
    assert_eq!((clients[0].start, clients[2].start), (Some(0), Some(50_000)));
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_but_too_slowly_skips_when_it_is_far_behind() {
    let (record, hubs) = (record(), Hubs::default());
    let mut host = Host::new();
    let mut slow = Client::new(&hubs, &record, Catchup::Screen, From::Fresh);
    let mut exact = Client::new(&hubs, &record, Catchup::Bytes, From::Fresh);
    // Ten times a second it reads what it may; the program prints ten times as much.
    for tenth in 1..=40 {
        host.journal += 2_000_000;
        for client in [&mut slow, &mut exact] {
            for _ in 0..3 {
                host.send(100);
                client.take(&host, 50);
            }
            client.ack(200_000);
        }
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(slow.skips > 0 || tenth < 15, "after {tenth} tenths of a second");
    }
    assert!(slow.skips >= 2 && exact.skips == 0);
    assert!(host.journal - slow.at < 30_000_000, "{} behind", host.journal - slow.at);
}

#[tokio::test(start_paused = true)]
async fn one_that_keeps_up_never_skips() {
    let (record, hubs) = (record(), Hubs::default());
    let mut host = Host::new();
    let mut fast = Client::new(&hubs, &record, Catchup::Screen, From::Fresh);
    for _ in 0..100 {
        host.journal += 300_000;
        while fast.at < host.journal {
            host.send(4);
            fast.take(&host, 50);
            fast.ack(u64::MAX);
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(fast.skips, 0);
}

/// Everything that is there reaches every client.
fn settle(host: &mut Host, clients: &mut [&mut Client]) {
    for _ in 0..5 {
        host.send(100);
        for client in &mut *clients {
            client.flow.timer_fired();
            client.take(host, 50);
            client.ack(u64::MAX);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_settled_size_brings_one_keyframe_between_the_bytes() {
    let (record, hubs) = (record(), Hubs::default());
    let mut host = Host::new();
    let mut screen = Client::new(&hubs, &record, Catchup::Screen, From::Fresh);
    let mut bytes = Client::new(&hubs, &record, Catchup::Bytes, From::Fresh);
    settle(&mut host, &mut [&mut screen, &mut bytes]);
    assert_eq!((screen.keyframes.as_slice(), bytes.keyframes.as_slice()), (&[0][..], &[0][..]));
    // Dragged: many sizes, output between them.
    for cols in 80..90 {
        host.resize(WindowSize::clamped(cols, 24));
        host.journal += 1_000;
        settle(&mut host, &mut [&mut screen, &mut bytes]);
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(screen.keyframes.len(), 1);
    tokio::time::advance(Duration::from_millis(200)).await;
    // Printed before the keyframe is made, and sent before it.
    host.journal += 100_000;
    settle(&mut host, &mut [&mut screen, &mut bytes]);
    assert_eq!(screen.keyframes, [0, 110_000]);
    host.journal += 1_000;
    tokio::time::advance(Duration::from_secs(10)).await;
    settle(&mut host, &mut [&mut screen, &mut bytes]);
    assert_eq!((screen.keyframes.len(), bytes.keyframes.len()), (2, 1));
    assert_eq!((screen.at, bytes.at, screen.skips), (host.journal, host.journal, 0));
}

#[tokio::test(start_paused = true)]
async fn a_keyframe_that_comes_too_late_is_asked_for_again_but_not_for_ever() {
    let (record, hubs) = (record(), Hubs::default());
    let mut host = Host::new();
    let mut screen = Client::new(&hubs, &record, Catchup::Screen, From::Fresh);
    settle(&mut host, &mut [&mut screen]);
    host.resize(WindowSize::clamped(80, 24));
    host.keyframe_lag = 10;
    for _ in 0..20 {
        host.journal += 1_000;
        settle(&mut host, &mut [&mut screen]);
        tokio::time::advance(Duration::from_millis(300)).await;
    }
    assert_eq!((screen.at, screen.keyframes.len(), host.keyframes), (host.journal, 1, 1 + 4));
    // The next size finds the host in time again.
    host.resize(WindowSize::clamped(90, 24));
    settle(&mut host, &mut [&mut screen]);
    host.keyframe_lag = 0;
    tokio::time::advance(Duration::from_millis(300)).await;
    settle(&mut host, &mut [&mut screen]);
    assert_eq!(screen.keyframes.last(), Some(&host.journal));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_byte_arrives_once_whatever_happens(ops in proptest::collection::vec(op(), 0..120)) {
        run(ops);
    }
}
