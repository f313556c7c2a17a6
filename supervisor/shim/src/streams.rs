//! Streams of the terminal's output to the supervisor: each an offset and a limit, none a queue.
//!
//! A stream reads from the ring while it keeps up and from the journal while it does not. Nothing is copied for it before it may be sent.

use std::io;

use agentapi_shared::frame::{FrameType, Header, Keyframe};
use agentapi_shared::journal::{Item, JournalReader};
use agentapi_shared::link::{STREAM_WINDOW_BYTES, Watched};
use agentapi_shared::shim::ShimEvent;

use crate::connection::Connection;
use crate::output::Output;
use crate::parser::KeyframeTaken;

/// Streams of one connection: a watched spawn has one, every viewer that is far behind one more. Overflow: the stream is refused.
const STREAMS_MAX: usize = 256;
/// Output of one frame.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// The streams of the present connection.
#[derive(Debug, Default)]
pub(crate) struct Streams(Vec<Stream>);

#[derive(Debug)]
struct Stream {
    id: u32,
    limit: u64,
    /// Changes of size told so far, by number.
    marks_told: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Starts when the keyframe that was asked for is taken.
    AwaitsKeyframe,
    /// In the ring.
    Live { next: u64 },
    /// Behind the ring.
    Behind { reader: Box<JournalReader>, pending: Option<(u64, Vec<u8>)> },
}

/// What one turn of a stream did.
enum Turn {
    Nothing,
    Sent,
    /// What comes next is neither in memory nor on disk.
    Lost,
}

impl Streams {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn remove(&mut self, id: u32) {
        self.0.retain(|stream| stream.id != id);
    }

    pub(crate) fn credit(&mut self, id: u32, limit: u64) {
        if let Some(stream) =
            self.0.iter_mut().find(|stream| stream.id == id && !matches!(stream.state, State::AwaitsKeyframe))
        {
            stream.limit = stream.limit.max(limit);
        }
    }

    /// Whether one more stream may be opened under that number.
    pub(crate) fn has_room_for(&self, id: u32) -> bool {
        self.0.len() < STREAMS_MAX || self.0.iter().any(|stream| stream.id == id)
    }

    /// Opens a stream at `from`. False if that is not kept, so that a keyframe has to be taken for it.
    pub(crate) fn watch(
        &mut self,
        id: u32,
        from: Option<u64>,
        limit: u64,
        output: &Output,
        to: &mut Connection,
    ) -> io::Result<bool> {
        self.remove(id);
        let first_offset = output.first_offset();
        let Some(offset) = from.filter(|from| (first_offset..=output.ring.end()).contains(from)) else {
            // From a keyframe the limit counts from its position; one past retention was meant absolutely and is no use then.
            let limit = if from.is_none() { limit } else { STREAM_WINDOW_BYTES };
            self.0.push(Stream { id, limit, marks_told: 0, state: State::AwaitsKeyframe });
            return Ok(false);
        };
        let size = output.marks.at(offset);
        to.send(&ShimEvent::Watched(Watched { stream: id, size, first_offset, offset, resumed: true }))?;
        let marks_told = output.marks.count_to(offset);
        self.0.push(Stream { id, limit, marks_told, state: State::Live { next: offset } });
        Ok(true)
    }

    /// Sends a keyframe, and starts the stream if it waited for it.
    pub(crate) fn keyframe(
        &mut self,
        id: u32,
        taken: &KeyframeTaken,
        output: &Output,
        to: &mut Connection,
    ) -> io::Result<()> {
        let Some(stream) = self.0.iter_mut().find(|stream| stream.id == id) else { return Ok(()) };
        let (offset, size) = (taken.offset, taken.size);
        if matches!(stream.state, State::AwaitsKeyframe) {
            let first_offset = output.first_offset();
            to.send(&ShimEvent::Watched(Watched { stream: id, size, first_offset, offset, resumed: false }))?;
            stream.limit = stream.limit.saturating_add(offset);
            stream.marks_told = output.marks.count_before(offset);
            stream.state = State::Live { next: offset };
        }
        let payload = Keyframe { size, bytes: &taken.bytes }.to_payload();
        to.send_frame(Header::new(FrameType::Keyframe, id, offset), (&payload, &[]))
    }

    /// Sends what may be sent and the socket takes, a frame of each stream in turn. Streams whose output is lost are named: they wait for a
    /// keyframe now.
    pub(crate) fn pump(&mut self, output: &Output, to: &mut Connection) -> io::Result<Vec<u32>> {
        let mut lost = Vec::new();
        loop {
            let mut idle = true;
            for stream in &mut self.0 {
                if !to.is_clear() {
                    return Ok(lost);
                }
                match stream.turn(output, to)? {
                    Turn::Nothing => {}
                    Turn::Sent => idle = false,
                    Turn::Lost => {
                        stream.limit = STREAM_WINDOW_BYTES;
                        stream.state = State::AwaitsKeyframe;
                        lost.push(stream.id);
                    }
                }
            }
            if idle {
                return Ok(lost);
            }
        }
    }
}

impl Stream {
    /// Sends one frame or change of size.
    fn turn(&mut self, output: &Output, to: &mut Connection) -> io::Result<Turn> {
        match &mut self.state {
            State::AwaitsKeyframe => Ok(Turn::Nothing),
            State::Live { next } if *next < output.ring.start() => {
                if sendable(*next, self.limit).is_none() {
                    return Ok(Turn::Nothing);
                }
                let Ok(reader) = JournalReader::open(output.journal_dir()?, *next) else { return Ok(Turn::Lost) };
                self.state = State::Behind { reader: Box::new(reader), pending: None };
                Ok(Turn::Sent)
            }
            State::Live { .. } => self.turn_live(output, to),
            State::Behind { .. } => self.turn_behind(output, to),
        }
    }

    fn turn_live(&mut self, output: &Output, to: &mut Connection) -> io::Result<Turn> {
        let State::Live { next } = &mut self.state else { return Ok(Turn::Nothing) };
        let change = output.marks.get(self.marks_told);
        if let Some((offset, size)) = change.filter(|(offset, _)| offset <= next) {
            self.marks_told += 1;
            to.send(&ShimEvent::Resized { stream: self.id, offset, size })?;
            return Ok(Turn::Sent);
        }
        let from = *next;
        let Some(max) = sendable(from, self.limit) else { return Ok(Turn::Nothing) };
        let max = change.map_or(max, |(at, _)| max.min(usize::try_from(at - from).unwrap_or(max)));
        let Some((first, second)) = output.ring.slices(from, max) else { return Ok(Turn::Nothing) };
        let length = first.len() + second.len();
        if length == 0 {
            return Ok(Turn::Nothing);
        }
        *next += length as u64;
        to.send_frame(Header::new(FrameType::Output, self.id, from), (first, second))?;
        Ok(Turn::Sent)
    }

    fn turn_behind(&mut self, output: &Output, to: &mut Connection) -> io::Result<Turn> {
        let State::Behind { reader, pending } = &mut self.state else { return Ok(Turn::Nothing) };
        let item = match pending.take() {
            Some((offset, bytes)) => Some(Item::Output { offset, bytes }),
            None => match reader.next_item() {
                Ok(item) => item,
                Err(_) => return Ok(Turn::Lost),
            },
        };
        let (offset, bytes) = match item {
            Some(Item::Output { offset, bytes }) => (offset, bytes),
            Some(Item::Resize { offset, size }) => {
                to.send(&ShimEvent::Resized { stream: self.id, offset, size })?;
                return Ok(Turn::Sent);
            }
            // Everything in the journal is sent. If the ring does not go on from there, the disk was full in between.
            None if reader.next_offset() < output.ring.start() => return Ok(Turn::Lost),
            None => {
                let next = reader.next_offset();
                self.join_ring(next, output);
                return Ok(Turn::Sent);
            }
        };
        let Some(max) = sendable(offset, self.limit) else {
            *pending = Some((offset, bytes));
            return Ok(Turn::Nothing);
        };
        let (now, later) = bytes.split_at(max.min(bytes.len()));
        to.send_frame(Header::new(FrameType::Output, self.id, offset), (now, &[]))?;
        let next = offset + now.len() as u64;
        if !later.is_empty() {
            *pending = Some((next, later.to_vec()));
        } else if next >= output.ring.start() {
            self.join_ring(next, output);
        }
        Ok(Turn::Sent)
    }

    fn join_ring(&mut self, next: u64, output: &Output) {
        // A change exactly here may have been told already; telling it twice does no harm.
        self.marks_told = output.marks.count_before(next);
        self.state = State::Live { next };
    }
}

/// How many bytes may be sent from `offset` on; none if the limit is reached.
fn sendable(offset: u64, limit: u64) -> Option<usize> {
    let left = limit.checked_sub(offset).filter(|left| *left > 0)?;
    Some(usize::try_from(left).unwrap_or(usize::MAX).min(FRAME_BYTES_MAX))
}
