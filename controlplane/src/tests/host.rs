//! A simulated host: it has no processes, only spawns whose output is what a test says. It keeps its journal over reconnects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use agentapi_shared::api::{Cursor, NetworkMode, Posture, ScreenResponse};
use agentapi_shared::frame::{FrameType, HEADER_BYTES, Header, Keyframe};
use agentapi_shared::link::{
    AgentFacts, Command, CommandError, CommandResult, HostFacts, HostHello, HostMessage, OutboxItem, Outcome, PROTOCOL,
    PlaneMessage, SUBPROTOCOL, SpawnReport, StartSpawn, Watched,
};
use agentapi_shared::{Exit, ExitReason, SessionId, SpawnState, WindowSize};
use futures_util::{SinkExt, StreamExt};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::client::Harness;

type Key = (SessionId, u32);

/// One spawn of the simulation.
#[derive(Debug, Clone)]
pub(super) struct SimSpawn {
    pub(super) generation: u64,
    pub(super) seq: u64,
    pub(super) state: SpawnState,
    pub(super) size: WindowSize,
    pub(super) journal: Vec<u8>,
    /// Oldest offset that a watch may begin at.
    pub(super) first: u64,
    pub(super) marks: Vec<(u64, WindowSize)>,
    pub(super) input: Vec<u8>,
    pub(super) env: Option<Vec<String>>,
    pub(super) posture: Posture,
    exit: Option<Exit>,
}

#[derive(Debug)]
struct Stream {
    key: Key,
    offset: u64,
    limit: u64,
    marks: usize,
}

/// What the simulation has; tests look at it and change it between messages.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) spawns: HashMap<Key, SimSpawn>,
    streams: HashMap<u32, Stream>,
    keyframes_due: Vec<u32>,
    outbox: Vec<(u64, OutboxItem)>,
    next_outbox: u64,
    /// Commands as they came.
    pub(super) commands: Vec<(SessionId, Command)>,
    pub(super) acked: u64,
    /// Answers to `Start`: none means accepted.
    pub(super) refuse_start: Option<CommandError>,
    /// Commands get no answer.
    pub(super) mute: bool,
    /// Spawns end when they are stopped.
    pub(super) keep_running: bool,
    /// Keyframes sent.
    pub(super) keyframes: u64,
    /// Streams opened: session, spawn, from.
    pub(super) watches: Vec<(u32, Option<u64>)>,
    pub(super) boot_id: String,
    welcomed: u64,
}

/// Handle of a simulated host.
#[derive(Debug, Clone)]
pub(super) struct SimHost {
    pub(super) model: Arc<Mutex<Model>>,
    wake: mpsc::Sender<()>,
    changed: watch::Sender<u64>,
}

/// One connection; dropping it ends it.
#[derive(Debug)]
pub(super) struct Connection {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a keyframe of the simulation says: the offset it is of.
pub(super) fn keyframe_text(offset: u64) -> Vec<u8> {
    format!("<keyframe {offset}>").into_bytes()
}

impl SimHost {
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (wake, woken) = mpsc::channel(1);
        let model = Model { boot_id: "boot-1".to_owned(), ..Model::default() };
        (Self { model: Arc::new(Mutex::new(model)), wake, changed: watch::Sender::new(0) }, woken)
    }

    /// Connects with this host's credential and waits until it is welcomed.
    pub(super) async fn connect(harness: &Harness) -> (Self, Connection) {
        let (host, woken) = Self::new();
        let connection = host.reconnect_with(harness, woken).await;
        (host, connection)
    }

    /// Connects again; what was is still there.
    pub(super) async fn reconnect(&mut self, harness: &Harness) -> Connection {
        let (wake, woken) = mpsc::channel(1);
        self.wake = wake;
        self.reconnect_with(harness, woken).await
    }

    async fn reconnect_with(&self, harness: &Harness, woken: mpsc::Receiver<()>) -> Connection {
        let before = self.model.lock().unwrap().welcomed;
        let mut request = harness.ws_url("/api/v1/link").into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {}", harness.host_token).parse().unwrap());
        headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let host = self.clone();
        #[expect(clippy::disallowed_methods, reason = "a test owns it through the connection's handle")]
        let task = tokio::spawn(async move { host.run(socket, woken).await });
        self.until("the host is welcomed", |model| model.welcomed > before).await;
        harness.until_host(true).await;
        Connection { task }
    }

    /// Waits until the model is as wanted.
    pub(super) async fn until(&self, what: &str, mut is: impl FnMut(&Model) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !is(&self.model.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(super::client::DEADLINE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// Changes the model and has the consequences sent.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let value = change(&mut self.model.lock().unwrap());
        self.touch();
        value
    }

    fn touch(&self) {
        let _already = self.wake.try_send(());
        self.changed.send_modify(|n| *n += 1);
    }

    /// The program of a spawn prints something.
    pub(super) fn print(&self, key: Key, bytes: &[u8]) {
        self.with(|model| model.spawns.get_mut(&key).unwrap().journal.extend_from_slice(bytes));
    }

    /// The terminal of a spawn has another size from here on.
    pub(super) fn resize(&self, key: Key, size: WindowSize) {
        self.with(|model| model.resize(key, size));
    }

    /// A spawn ends.
    pub(super) fn end(&self, key: Key, code: i32) {
        self.with(|model| model.end(key, code));
    }

    async fn run(self, mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>, mut woken: mpsc::Receiver<()>) {
        let hello = self.model.lock().unwrap().hello();
        send(&mut socket, &HostMessage::Hello(Box::new(hello))).await;
        let outbox = self.model.lock().unwrap().outbox.clone();
        for (seq, item) in outbox {
            send(&mut socket, &HostMessage::Outbox { seq, item }).await;
        }
        let mut sent_outbox = self.model.lock().unwrap().next_outbox;
        loop {
            let replies = tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.take(&serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Binary(frame))) => self.input(&frame),
                    Some(Ok(_)) => Vec::new(),
                    _ => return,
                },
                _ = woken.recv() => Vec::new(),
            };
            for reply in replies {
                send(&mut socket, &reply).await;
            }
            let due = self.model.lock().unwrap().due(&mut sent_outbox);
            for message in due {
                if socket.feed(message).await.is_err() {
                    return;
                }
            }
            if socket.flush().await.is_err() {
                return;
            }
            self.changed.send_modify(|n| *n += 1);
        }
    }

    fn take(&self, message: &PlaneMessage) -> Vec<HostMessage> {
        let mut model = self.model.lock().unwrap();
        match message {
            PlaneMessage::Welcome { .. } => {
                model.welcomed += 1;
                model.streams.clear();
            }
            PlaneMessage::OutboxAck { seq } => {
                model.acked = model.acked.max(*seq);
                model.outbox.retain(|(kept, _)| kept > seq);
            }
            PlaneMessage::Command { id, session, command } => {
                model.commands.push((*session, (**command).clone()));
                if model.mute {
                    return Vec::new();
                }
                let (outcome, report) = model.obey(*session, command);
                let mut out = vec![HostMessage::Reply { id: *id, outcome }];
                out.extend(report.map(HostMessage::Report));
                return out;
            }
            PlaneMessage::Watch { stream, session, spawn, from, limit } => {
                return model.watch(*stream, (*session, *spawn), *from, *limit);
            }
            PlaneMessage::Credit { stream, limit } => {
                if let Some(stream) = model.streams.get_mut(stream) {
                    stream.limit = stream.limit.max(*limit);
                }
            }
            PlaneMessage::Keyframe { stream } => {
                // Sent by `due`, so that it is in order with the output.
                model.keyframes_due.push(*stream);
            }
            PlaneMessage::Unwatch { stream } => {
                model.streams.remove(stream);
            }
        }
        Vec::new()
    }

    fn input(&self, frame: &[u8]) -> Vec<HostMessage> {
        let (header, payload) = Header::parse(frame).unwrap();
        let mut model = self.model.lock().unwrap();
        let key = model.streams.get(&header.stream).map(|stream| stream.key);
        let error = match key {
            Some(key) => {
                let spawn = model.spawns.get_mut(&key).unwrap();
                spawn.input.extend_from_slice(payload);
                None
            }
            None => Some(CommandError::new("not_found", "no such stream")),
        };
        vec![HostMessage::InputDone { stream: header.stream, seq: header.position, error }]
    }
}

async fn send(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>, message: &HostMessage) {
    // A connection that the other side closed ends at the next read.
    let _sent = socket.send(Message::Text(serde_json::to_string(message).unwrap().into())).await;
}

impl Model {
    fn hello(&self) -> HostHello {
        let facts = HostFacts {
            hostname: "sim".to_owned(),
            boot_id: self.boot_id.clone(),
            kernel: "6".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: 1,
            memory_bytes: 1,
            isolation: "none".to_owned(),
            workspace_roots: Vec::new(),
            profiles: Vec::new(),
            degraded: Vec::new(),
            agents: vec![AgentFacts {
                name: "claude".to_owned(),
                installed: true,
                version: Some("2".to_owned()),
                install: None,
            }],
        };
        let inventory = self.spawns.iter().map(|(key, spawn)| spawn.report(*key)).collect();
        HostHello { protocol: PROTOCOL, version: "sim".to_owned(), facts, inventory }
    }

    fn obey(&mut self, session: SessionId, command: &Command) -> (Outcome, Option<SpawnReport>) {
        let done = Outcome::Done(CommandResult::Done);
        match command {
            Command::Start(start) => {
                if let Some(refused) = &self.refuse_start {
                    return (Outcome::Error(refused.clone()), None);
                }
                let key = (session, start.spawn);
                let spawn = self.spawns.entry(key).or_insert_with(|| SimSpawn::new(start));
                spawn.seq += 1;
                (Outcome::Done(CommandResult::Accepted), Some(spawn.report(key)))
            }
            Command::Stop { spawn, generation, .. } => {
                let key = (session, *spawn);
                if let Some(found) = self.spawns.get_mut(&key) {
                    found.generation = *generation;
                    if !self.keep_running && !found.state.is_ended() {
                        self.end(key, 0);
                    }
                }
                (done, None)
            }
            Command::Purge => {
                self.spawns.retain(|key, _| key.0 != session);
                (done, None)
            }
            Command::Input { spawn, bytes_base64 } => {
                use base64::Engine as _;
                let bytes = base64::engine::general_purpose::STANDARD.decode(bytes_base64).unwrap();
                let found = self.spawns.get_mut(&(session, *spawn)).unwrap();
                found.input.extend_from_slice(&bytes);
                let offset = found.journal.len() as u64;
                (Outcome::Done(CommandResult::Written { written: bytes.len() as u64, offset }), None)
            }
            Command::Resize { spawn, size } => {
                self.resize((session, *spawn), *size);
                (done, None)
            }
            Command::Screen { spawn, .. } => match self.spawns.get(&(session, *spawn)) {
                None => (Outcome::Error(CommandError::new("not_found", "no such spawn")), None),
                Some(found) => {
                    let screen = ScreenResponse {
                        size: found.size,
                        cursor: Cursor { row: 0, col: 0, visible: true },
                        title: "sim".to_owned(),
                        spawn: *spawn,
                        offset: found.journal.len() as u64,
                        text: String::from_utf8_lossy(&found.journal).into_owned(),
                    };
                    (Outcome::Done(CommandResult::Screen(Box::new(screen))), None)
                }
            },
        }
    }

    pub(super) fn resize(&mut self, key: Key, size: WindowSize) {
        let spawn = self.spawns.get_mut(&key).unwrap();
        spawn.size = size;
        spawn.marks.push((spawn.journal.len() as u64, size));
    }

    pub(super) fn end(&mut self, key: Key, code: i32) {
        let spawn = self.spawns.get_mut(&key).unwrap();
        spawn.state = SpawnState::Exited;
        spawn.seq += 1;
        spawn.exit = Some(Exit {
            code: Some(code),
            signal: None,
            reason: ExitReason::Exited,
            detail: format!("exited with {code}"),
        });
        let report = spawn.report(key);
        self.next_outbox += 1;
        self.outbox.push((self.next_outbox, OutboxItem::Ended(report)));
    }

    /// Where the foremost stream is.
    pub(super) fn sent_on_streams(&self) -> u64 {
        self.streams.values().map(|stream| stream.offset).max().unwrap_or(0)
    }

    /// Puts something else into the outbox.
    pub(super) fn post(&mut self, item: OutboxItem) {
        self.next_outbox += 1;
        self.outbox.push((self.next_outbox, item));
    }

    fn watch(&mut self, number: u32, key: Key, from: Option<u64>, limit: u64) -> Vec<HostMessage> {
        self.watches.push((key.1, from));
        let Some(spawn) = self.spawns.get(&key) else {
            return vec![HostMessage::WatchFailed {
                stream: number,
                error: CommandError::new("not_found", "no spawn"),
            }];
        };
        let end = spawn.journal.len() as u64;
        let resumed = from.is_some_and(|from| (spawn.first..=end).contains(&from));
        let offset = if resumed { from.unwrap_or(end) } else { end };
        let limit = if resumed { limit } else { offset + limit.saturating_sub(from.unwrap_or(0)) };
        let marks = spawn.marks.iter().filter(|(at, _)| *at <= offset).count();
        let size = spawn.marks[..marks].last().map_or(WindowSize::DEFAULT, |(_, size)| *size);
        self.streams.insert(number, Stream { key, offset, limit, marks });
        if !resumed {
            self.keyframes_due.push(number);
        }
        let watched = Watched { stream: number, size, first_offset: spawn.first, offset, resumed };
        vec![HostMessage::Watched(watched)]
    }

    /// Everything that may be sent now.
    fn due(&mut self, sent_outbox: &mut u64) -> Vec<Message> {
        let mut out = Vec::new();
        let text = |message: &HostMessage| Message::Text(serde_json::to_string(message).unwrap().into());
        for number in std::mem::take(&mut self.keyframes_due) {
            let Some(stream) = self.streams.get(&number) else { continue };
            let spawn = &self.spawns[&stream.key];
            let offset = spawn.journal.len() as u64;
            let payload = Keyframe { size: spawn.size, bytes: &keyframe_text(offset) }.to_payload();
            self.keyframes += 1;
            out.push(Message::Binary(Header::new(FrameType::Keyframe, number, offset).with_payload(&payload).into()));
        }
        let mut over = Vec::new();
        for (number, stream) in &mut self.streams {
            let spawn = &self.spawns[&stream.key];
            loop {
                while let Some((_, size)) = spawn.marks.get(stream.marks).filter(|(at, _)| *at <= stream.offset) {
                    out.push(text(&HostMessage::Resized { stream: *number, offset: stream.offset, size: *size }));
                    stream.marks += 1;
                }
                let next_mark = spawn.marks.get(stream.marks).map_or(u64::MAX, |(at, _)| *at);
                let end = (spawn.journal.len() as u64).min(stream.limit).min(stream.offset + 65_536).min(next_mark);
                if end <= stream.offset {
                    break;
                }
                let bytes = &spawn.journal[stream.offset as usize..end as usize];
                let frame = Header::new(FrameType::Output, *number, stream.offset).with_payload(bytes);
                assert!(frame.len() > HEADER_BYTES);
                out.push(Message::Binary(frame.into()));
                stream.offset = end;
            }
            if spawn.state.is_ended() && stream.offset == spawn.journal.len() as u64 {
                out.push(text(&HostMessage::StreamEnded { stream: *number, offset: stream.offset }));
                over.push(*number);
            }
        }
        for number in over {
            self.streams.remove(&number);
        }
        for (seq, item) in self.outbox.iter().filter(|(seq, _)| seq > sent_outbox) {
            out.push(text(&HostMessage::Outbox { seq: *seq, item: item.clone() }));
        }
        *sent_outbox = self.next_outbox;
        out
    }
}

impl SimSpawn {
    fn new(start: &StartSpawn) -> Self {
        let (generation, size, sandbox) = (start.generation, start.size, start.sandbox.clone());
        let env = start.env.as_ref().map(|env| env.keys().cloned().collect());
        Self {
            generation,
            seq: 1,
            state: SpawnState::Running,
            size,
            journal: Vec::new(),
            first: 0,
            marks: vec![(0, size)],
            input: Vec::new(),
            env,
            posture: Posture {
                isolation: "root".to_owned(),
                profile: sandbox.profile.unwrap_or_else(|| "dev".to_owned()),
                network: sandbox.network.unwrap_or(NetworkMode::Filtered),
                limits: sandbox.limits,
                degraded: vec!["no-disk-quota".to_owned()],
            },
            exit: None,
        }
    }

    fn report(&self, key: Key) -> SpawnReport {
        SpawnReport {
            session: key.0,
            spawn: key.1,
            generation: self.generation,
            seq: self.seq,
            state: self.state,
            size: self.size,
            command: vec!["sim".to_owned()],
            started_at: Some(OffsetDateTime::UNIX_EPOCH),
            ended_at: self.exit.as_ref().map(|_| OffsetDateTime::UNIX_EPOCH + time::Duration::HOUR),
            exit: self.exit.clone(),
            posture: Some(Box::new(self.posture.clone())),
        }
    }
}
