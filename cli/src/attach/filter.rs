//! What of an agent's output may reach the local terminal.
//!
//! Everything that draws passes untouched. Questions do not: the host has answered them already, and the local terminal's answer would arrive
//! at the agent as keystrokes. Nor does what reaches beyond the screen: clipboard, printer, window, keyboard lock, character set.
//! Sequences leave here whole or not at all, so that our own may be put between any two calls; chunks may be cut anywhere.

mod rules;

use rules::Verdict;

/// A longer CSI sequence is none that draws: the longest real one is a palette of SGR parameters.
const CSI_BYTES_MAX: usize = 1024;
/// A longer OSC string is dropped: a whole palette has 6 KiB, a clipboard may be larger and is cut off here on purpose.
const OSC_BYTES_MAX: usize = 64 * 1024;
/// ESC sequences have one or two intermediate bytes.
const ESCAPE_BYTES_MAX: usize = 4;

const ENQ: u8 = 0x05;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const ESC: u8 = 0x1b;

/// What is allowed beyond drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilterPolicy {
    /// Writing to the clipboard (OSC 52). Reading it never is.
    pub(crate) clipboard: bool,
}

/// What the output did to the terminal that has to be undone at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The alternate screen is shown.
    pub(crate) alternate_screen: bool,
    /// The title it set last.
    pub(crate) title: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    Escape,
    Csi,
    Osc,
    /// DCS, APC, PM and SOS: nothing in them draws here, so nothing of them is kept.
    Ignored,
    /// ESC within an OSC (true) or an ignored string: `\` ends it, anything else begins another sequence.
    StringEscape(bool),
}

/// A streaming filter.
#[derive(Debug)]
pub(crate) struct Filter {
    policy: FilterPolicy,
    state: State,
    /// The sequence in work, without its introducer.
    sequence: Vec<u8>,
    /// The sequence in work is too long, and will be dropped.
    overflow: bool,
    /// Bytes of an unfinished character.
    partial: Vec<u8>,
    observed: Observed,
}

impl Filter {
    /// A filter at the start of a stream.
    pub(crate) fn new(policy: FilterPolicy) -> Self {
        Self {
            policy,
            state: State::Ground,
            sequence: Vec::new(),
            overflow: false,
            partial: Vec::new(),
            observed: Observed::default(),
        }
    }

    /// What the output so far did to the terminal.
    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Filters a chunk into `out`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some(&first) = bytes.first() {
            // Most of all output is plain text: copied at once.
            if self.state == State::Ground && self.partial.is_empty() {
                let plain = bytes.iter().take_while(|byte| (0x20..0x7f).contains(*byte)).count();
                if plain > 0 {
                    out.extend_from_slice(&bytes[..plain]);
                    bytes = &bytes[plain..];
                    continue;
                }
            }
            self.byte(first, out);
            bytes = &bytes[1..];
        }
    }

    /// Gathers characters, so that their bytes are never taken for controls.
    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            if (0x80..0xc0).contains(&byte) {
                self.partial.push(byte);
                if self.partial.len() == character_bytes(self.partial[0]) {
                    self.end_of_character(out);
                }
                return;
            }
            self.not_a_character(out);
        }
        match byte {
            0..0x80 => self.ascii(byte, out),
            0xc2..=0xf4 => self.partial.push(byte),
            _ => {
                self.partial.push(byte);
                self.not_a_character(out);
            }
        }
    }

    fn end_of_character(&mut self, out: &mut Vec<u8>) {
        let Some(character) = std::str::from_utf8(&self.partial).ok().and_then(|text| text.chars().next()) else {
            self.not_a_character(out);
            return;
        };
        // C1 controls: the host's terminal takes them for nothing, some local ones would take them for sequences.
        if !('\u{80}'..='\u{9f}').contains(&character) {
            match self.state {
                State::Ground => out.extend_from_slice(&self.partial),
                State::Escape => {
                    self.state = State::Ground;
                    out.extend_from_slice(&self.partial);
                }
                State::Osc => {
                    let partial = std::mem::take(&mut self.partial);
                    self.keep(&partial, OSC_BYTES_MAX);
                }
                State::StringEscape(osc) => {
                    self.end_of_string(osc, b"\x1b\\", out);
                    out.extend_from_slice(&self.partial);
                }
                State::Csi | State::Ignored => {}
            }
        }
        self.partial.clear();
    }

    /// Bytes that are no text, or an unfinished character: shown as the host's terminal shows them, so that no terminal can obey them.
    fn not_a_character(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Ground {
            out.extend_from_slice(String::from_utf8_lossy(&self.partial).as_bytes());
        }
        self.partial.clear();
    }

    fn ascii(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Ground if byte == ESC => self.begin(State::Escape),
            State::Ground => execute(byte, out),
            State::Escape => self.escape(byte, out),
            State::Csi => self.csi(byte, out),
            State::Osc => match byte {
                BEL => self.end_of_string(true, b"\x07", out),
                ESC => self.state = State::StringEscape(true),
                CAN | SUB => self.state = State::Ground,
                0..0x20 | 0x7f => {}
                _ => self.keep(&[byte], OSC_BYTES_MAX),
            },
            State::Ignored => match byte {
                ESC => self.state = State::StringEscape(false),
                CAN | SUB => self.state = State::Ground,
                _ => {}
            },
            State::StringEscape(osc) => {
                self.end_of_string(osc, b"\x1b\\", out);
                if byte != b'\\' {
                    self.begin(State::Escape);
                    self.escape(byte, out);
                }
            }
        }
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            ESC => self.begin(State::Escape),
            CAN | SUB => self.state = State::Ground,
            0..0x20 => execute(byte, out),
            0x20..0x30 => self.keep(&[byte], ESCAPE_BYTES_MAX),
            b'[' if self.sequence.is_empty() => self.begin(State::Csi),
            b']' if self.sequence.is_empty() => self.begin(State::Osc),
            b'P' | b'X' | b'^' | b'_' if self.sequence.is_empty() => self.begin(State::Ignored),
            0x30..0x7f => {
                self.state = State::Ground;
                if !self.overflow && rules::escape(&self.sequence, byte) {
                    // A full reset shows the primary screen.
                    if self.sequence.is_empty() && byte == b'c' {
                        self.observed.alternate_screen = false;
                    }
                    emit(out, b"\x1b", &self.sequence, &[byte]);
                }
            }
            0x7f.. => {}
        }
    }

    fn csi(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            ESC => self.begin(State::Escape),
            CAN | SUB => self.state = State::Ground,
            0..0x20 => execute(byte, out),
            0x20..0x40 => self.keep(&[byte], CSI_BYTES_MAX),
            0x40..0x7f => {
                self.state = State::Ground;
                if !self.overflow {
                    match rules::csi(&self.sequence, byte) {
                        Verdict::Pass => emit(out, b"\x1b[", &self.sequence, &[byte]),
                        Verdict::Modes(modes) => self.modes(&modes, byte, out),
                        Verdict::Drop => {}
                    }
                }
            }
            0x7f.. => {}
        }
    }

    /// DEC private modes, without those that are not for the local terminal.
    fn modes(&mut self, modes: &[u16], set_or_reset: u8, out: &mut Vec<u8>) {
        if modes.iter().any(|mode| matches!(mode, 47 | 1047 | 1049)) {
            self.observed.alternate_screen = set_or_reset == b'h';
        }
        let words: Vec<String> = modes.iter().map(u16::to_string).collect();
        if !words.is_empty() {
            emit(out, b"\x1b[?", words.join(";").as_bytes(), &[set_or_reset]);
        }
    }

    fn end_of_string(&mut self, osc: bool, terminator: &[u8], out: &mut Vec<u8>) {
        self.state = State::Ground;
        if !osc || self.overflow || !rules::osc(&self.sequence, self.policy) {
            return;
        }
        if let Some(title) = self.sequence.strip_prefix(b"0;").or_else(|| self.sequence.strip_prefix(b"2;")) {
            self.observed.title = Some(title.to_vec());
        }
        emit(out, b"\x1b]", &self.sequence, terminator);
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.sequence.clear();
        self.overflow = false;
    }

    fn keep(&mut self, bytes: &[u8], limit: usize) {
        if self.sequence.len() + bytes.len() > limit {
            self.overflow = true;
        } else {
            self.sequence.extend_from_slice(bytes);
        }
    }
}

/// A control character, except the one that asks who is there.
fn execute(byte: u8, out: &mut Vec<u8>) {
    if byte != ENQ {
        out.push(byte);
    }
}

fn emit(out: &mut Vec<u8>, introducer: &[u8], body: &[u8], end: &[u8]) {
    out.extend_from_slice(introducer);
    out.extend_from_slice(body);
    out.extend_from_slice(end);
}

fn character_bytes(first: u8) -> usize {
    match first {
        0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    }
}

#[cfg(test)]
mod tests;
