//! Which stream of the link belongs to which spawn, and how far each has come: so that a spawn's end loses nothing.
//!
//! Numbers are the control plane's; shims use the same, so that frames pass through unread. While a spawn lives its shim serves its streams; what
//! they still miss when it ends is served from the journal.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentapi_shared::frame::{FLAG_SKIPPED, FrameType, Header};
use agentapi_shared::journal::{Item, JournalReader};
use agentapi_shared::link::{CommandError, HostMessage, Watched};
use agentapi_shared::runtime::{OnEnd, TaskGroup};
use agentapi_shared::{SessionId, WindowSize};
use tokio::sync::watch;
use tracing::warn;

use crate::chain;
use crate::files::SpawnFiles;
use crate::shim_client::ShimClient;
use crate::uplink::LinkSender;

/// Streams of the link. Overflow: the control plane is told that the stream failed.
const STREAMS_MAX: usize = 4096;

/// Who serves a stream.
#[derive(Debug, Clone)]
pub(crate) enum Server {
    /// A living spawn's shim.
    Shim(Arc<ShimClient>),
    /// The journal of an ended one; the limit is told here.
    Journal(watch::Sender<u64>),
}

#[derive(Debug)]
struct Stream {
    session: SessionId,
    spawn: u32,
    server: Server,
    /// Offset of the next byte; none until the stream has started.
    next: Option<u64>,
    /// Absolute once `next` is known; before that relative to the keyframe, if the stream starts with one.
    limit: u64,
}

/// A stream that lost its shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) stream: u32,
    pub(crate) next: Option<u64>,
    pub(crate) limit: u64,
}

/// All streams of the link.
#[derive(Debug, Default)]
pub(crate) struct StreamTable(Mutex<HashMap<u32, Stream>>);

impl StreamTable {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a new stream; false if there are too many.
    pub(crate) fn open(&self, stream: u32, session: SessionId, spawn: u32, limit: u64, server: Server) -> bool {
        let mut streams = self.lock();
        let room = streams.len() < STREAMS_MAX;
        if room {
            streams.insert(stream, Stream { session, spawn, server, next: None, limit });
        }
        room
    }

    /// Whether a stream is of this spawn; none: nobody knows it, any more or yet.
    pub(crate) fn belongs(&self, stream: u32, owner: (SessionId, u32)) -> Option<bool> {
        self.lock().get(&stream).map(|stream| (stream.session, stream.spawn) == owner)
    }

    /// Who serves the stream.
    pub(crate) fn server(&self, stream: u32) -> Option<Server> {
        self.lock().get(&stream).map(|stream| stream.server.clone())
    }

    /// Notes a new limit and tells who serves the stream.
    pub(crate) fn credit(&self, stream: u32, limit: u64) -> Option<Server> {
        let mut streams = self.lock();
        let entry = streams.get_mut(&stream)?;
        entry.limit = entry.limit.max(limit);
        if let Server::Journal(told) = &entry.server {
            told.send_replace(entry.limit);
        }
        Some(entry.server.clone())
    }

    /// Forgets a stream; one served from the journal ends thereby.
    pub(crate) fn close(&self, stream: u32) -> Option<Server> {
        self.lock().remove(&stream).map(|stream| stream.server)
    }

    /// Forgets every stream, and tells which shims had some.
    pub(crate) fn close_all(&self) -> Vec<Arc<ShimClient>> {
        let servers = self.lock().drain().map(|(_, stream)| stream.server).collect::<Vec<_>>();
        servers
            .into_iter()
            .filter_map(|server| if let Server::Shim(shim) = server { Some(shim) } else { None })
            .collect()
    }

    /// The shim has started the stream there.
    pub(crate) fn started(&self, stream: u32, offset: u64, resumed: bool) {
        if let Some(entry) = self.lock().get_mut(&stream) {
            if !resumed {
                entry.limit = entry.limit.saturating_add(offset);
            }
            entry.next = Some(offset);
        }
    }

    /// A frame of the stream was passed on.
    pub(crate) fn passed(&self, header: &Header, length: usize) {
        if header.frame_type == FrameType::Output
            && let Some(entry) = self.lock().get_mut(&header.stream)
        {
            entry.next = Some(header.position + length as u64);
        }
    }

    /// The streams of a spawn whose shim is gone; they belong to the caller now.
    pub(crate) fn orphans(&self, session: SessionId, spawn: u32) -> Vec<Orphan> {
        let mut streams = self.lock();
        let ids: Vec<u32> = streams
            .iter()
            .filter(|(_, s)| s.session == session && s.spawn == spawn && matches!(s.server, Server::Shim(_)))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter()
            .filter_map(|stream| {
                streams.remove(&stream).map(|entry| Orphan { stream, next: entry.next, limit: entry.limit })
            })
            .collect()
    }
}

/// Serves one stream of an ended spawn from its journal, in a task of its own.
pub(crate) fn serve_ended(
    tasks: &TaskGroup,
    table: &Arc<StreamTable>,
    link: LinkSender,
    spawn: (SessionId, u32, SpawnFiles),
    wanted: Orphan,
    announce: bool,
) {
    let (session, number, files) = spawn;
    let (told, limit) = watch::channel(wanted.limit);
    if !table.open(wanted.stream, session, number, wanted.limit, Server::Journal(told)) {
        return;
    }
    let (stream, table) = (wanted.stream, Arc::clone(table));
    let mut replay = Replay { stream, files, link: link.clone(), limit, announce };
    let cancelled = tasks.cancelled();
    tasks.spawn("replay", OnEnd::Continue, async move {
        let outcome = tokio::select! {
            () = cancelled.cancelled() => return,
            outcome = replay.run(wanted.next) => outcome,
        };
        if let Err(error) = outcome {
            warn!(session.id = %session, spawn = number, error = chain(&error), "an ended spawn's output cannot be read");
            let error = CommandError::new("internal", "the session's recorded output cannot be read on its host");
            link.send(&HostMessage::WatchFailed { stream, error }).await;
        }
        table.close(stream);
    });
}

struct Replay {
    stream: u32,
    files: SpawnFiles,
    link: LinkSender,
    limit: watch::Receiver<u64>,
    /// Whether the control plane still has to be told where the stream starts.
    announce: bool,
}

impl Replay {
    async fn run(&mut self, from: Option<u64>) -> io::Result<()> {
        let (end, keyframe) = self.files.final_keyframe()?;
        let journal = || -> io::Result<std::os::fd::OwnedFd> { Ok(self.files.journal()?.into()) };
        let first_offset = JournalReader::from_start(journal()?).map_or(end, |reader| reader.next_offset());
        let reader = from.filter(|from| *from <= end).and_then(|from| JournalReader::open(journal().ok()?, from).ok());
        let Some(mut reader) = reader else {
            return self.keyframe_only(first_offset, end, &keyframe, from.is_some()).await;
        };
        if self.announce {
            let size = size_at(journal()?, reader.next_offset());
            let offset = reader.next_offset();
            let watched = Watched { stream: self.stream, size, first_offset, offset, resumed: true };
            self.link.send(&HostMessage::Watched(watched)).await;
        }
        while let Some(item) = reader.next_item().map_err(io::Error::other)? {
            match item {
                Item::Resize { offset, size } => {
                    self.link.send(&HostMessage::Resized { stream: self.stream, offset, size }).await
                }
                Item::Output { offset, bytes } => {
                    if !self.output(offset, &bytes).await {
                        return Ok(());
                    }
                }
            }
        }
        self.link.send(&HostMessage::StreamEnded { stream: self.stream, offset: reader.next_offset() }).await;
        Ok(())
    }

    /// What is wanted is not kept, or nothing older than the end is wanted.
    async fn keyframe_only(&self, first_offset: u64, end: u64, keyframe: &[u8], skipped: bool) -> io::Result<()> {
        let parsed = agentapi_shared::frame::Keyframe::parse(keyframe).map_err(io::Error::other)?;
        let watched = Watched { stream: self.stream, size: parsed.size, first_offset, offset: end, resumed: false };
        self.link.send(&HostMessage::Watched(watched)).await;
        let mut header = Header::new(FrameType::Keyframe, self.stream, end);
        header.flags = if skipped { FLAG_SKIPPED } else { 0 };
        self.link.send_frame(header.with_payload(keyframe).into()).await;
        self.link.send(&HostMessage::StreamEnded { stream: self.stream, offset: end }).await;
        Ok(())
    }

    /// Sends output as far as it is allowed, waiting for more allowance; false if the stream was closed meanwhile.
    async fn output(&mut self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Ok(limit) = self.limit.wait_for(|limit| *limit > offset).await.map(|limit| *limit) else {
                return false;
            };
            let count = usize::try_from(limit - offset).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(count);
            self.link.send_frame(Header::new(FrameType::Output, self.stream, offset).with_payload(now).into()).await;
            offset += now.len() as u64;
            bytes = later;
        }
        true
    }
}

/// The size that held at an offset, as far as the journal goes back.
fn size_at(journal: std::os::fd::OwnedFd, offset: u64) -> WindowSize {
    let mut size = WindowSize::DEFAULT;
    let Ok(mut reader) = JournalReader::from_start(journal) else { return size };
    while let Ok(Some(item)) = reader.next_item() {
        match item {
            Item::Resize { offset: at, size: new } if at <= offset => size = new,
            Item::Resize { .. } => break,
            Item::Output { offset: at, .. } if at > offset => break,
            Item::Output { .. } => {}
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_belongs_to_one_spawn_until_it_is_closed() {
        let (table, session) = (StreamTable::default(), SessionId::generate());
        let (told, _limit) = watch::channel(0);
        assert!(table.open(7, session, 2, 0, Server::Journal(told)));
        assert_eq!(table.belongs(7, (session, 2)), Some(true));
        assert_eq!(table.belongs(7, (session, 1)), Some(false));
        assert_eq!(table.belongs(7, (SessionId::generate(), 2)), Some(false));
        let _server = table.close(7);
        assert_eq!(table.belongs(7, (session, 2)), None);
    }
}
