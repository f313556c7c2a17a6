//! The event stream (`text/event-stream`) as typed events.
//!
//! It does not reconnect: whoever waits for a fact asks for the fact again after a break, which needs no replay.

use std::collections::VecDeque;
use std::time::Duration;

use agentapi_shared::api::ServerEvent;
use reqwest::Response;

use crate::failure::{ExitKind, Failure};

/// Bytes of one event: a session with the longest command and all its labels, several times over.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The server sends a comment at least every 15 s; after this long without a byte the path is dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// An open event stream.
#[derive(Debug)]
pub(crate) struct EventStream {
    answer: Response,
    parser: Parser,
    ready: VecDeque<ServerEvent>,
}

impl EventStream {
    pub(super) fn new(answer: Response) -> Self {
        Self { answer, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next event; none: the stream ended, and what is known may be old.
    pub(crate) async fn next(&mut self) -> Result<Option<ServerEvent>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Ok(Ok(Some(chunk))) = tokio::time::timeout(SILENCE_MAX, self.answer.chunk()).await else {
                return Ok(None);
            };
            // An event that this version does not know is skipped.
            let known = self.parser.push(&chunk)?.into_iter().filter_map(|data| serde_json::from_str(&data).ok());
            self.ready.extend(known);
        }
    }
}

/// Cuts the byte stream into the `data` of its events.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    data: String,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, Failure> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                    return Err(Failure::new(ExitKind::Failure, "the server sent an event that is too large"));
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            self.end_of_line(&String::from_utf8_lossy(&line), &mut events);
        }
        Ok(events)
    }

    fn end_of_line(&mut self, line: &str, events: &mut Vec<String>) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            events.extend((!data.is_empty()).then_some(data));
        } else if let Some(data) = line.strip_prefix("data:") {
            if !self.data.is_empty() {
                self.data.push('\n');
            }
            self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &[u8] = b": hello\n\nid: 1\nevent: host\ndata: {\"a\":\"\xc3\xa9\"}\n\ndata: one\r\ndata: two\r\n\r\n:\ndata:last\n\ndata: cut";

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let mut parser = Parser::default();
            let (mut events, mut rest, mut sizes) = (Vec::new(), STREAM, cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(sizes.next().unwrap().min(rest.len()));
                events.extend(parser.push(chunk).unwrap());
                rest = after;
            }
            prop_assert_eq!(events, ["{\"a\":\"é\"}", "one\ntwo", "last"]);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.push(&vec![b'x'; EVENT_BYTES_MAX + 1]).is_err());
    }
}
