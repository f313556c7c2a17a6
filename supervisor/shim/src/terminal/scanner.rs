//! Finds where escape sequences begin and end, before the engine sees them.
//!
//! Three things need that: the engine is given whole sequences only, so that its state is always one between two
//! sequences; the bytes of a sequence that is still incomplete are known, so that a keyframe can end with them; and
//! no sequence, however long, makes anything grow. The states are those of the engine's parser (`vte`), so that both
//! agree on every boundary.
//!
//! Passed on: text, C0 controls, ESC, CSI and OSC sequences. Swallowed: DCS, APC, PM and SOS strings, which nothing here
//! implements, and sequences beyond the caps below. Controls inside an unfinished ESC or CSI sequence run at once, as in
//! any terminal, and are not part of it. C1 controls are text that the engine ignores.

/// Longest ESC or CSI sequence: 32 parameters of five digits fit. Overflow: the whole sequence is dropped.
pub const SEQUENCE_BYTES_MAX: usize = 256;
/// Longest OSC string kept, and longest other string that a keyframe can pass on unfinished. Overflow: the OSC is
/// dropped as a whole, up to its terminator.
pub const STRING_BYTES_MAX: usize = 64 << 10;
/// A character of UTF-8 cut at its end lacks at most its last byte.
const UTF8_TAIL_MAX: usize = 3;

/// ESC \, which ends nothing and does nothing at the ground, except that a cut character in front of it becomes a replacement
/// character.
const STRING_TERMINATOR: &[u8] = b"\x1b\\";

const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    Escape,
    EscapeIntermediate,
    Csi,
    /// The rest of an ESC sequence that was too long.
    EscapeOverlong,
    /// The rest of a CSI sequence that was too long.
    CsiOverlong,
    Osc,
    /// The rest of an OSC string that was too long.
    OscOverlong,
    /// DCS, APC, PM, SOS.
    Other,
    /// The rest of one too long to be passed on unfinished.
    OtherOverlong,
}

/// The scanner.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// The unfinished sequence. Empty at the ground.
    pending: Vec<u8>,
    /// The beginning of a character, held back until the rest is here.
    cut_char: Vec<u8>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: State::Ground, pending: Vec::new(), cut_char: Vec::new() }
    }
}

/// What one byte does to a sequence.
enum Step {
    /// It belongs to it.
    Part,
    /// It ends it.
    Last,
    /// A control that runs at once.
    Control,
    /// An ESC: what came before is over, a new sequence begins.
    Restart,
}

impl Scanner {
    /// Bytes that bring a fresh parser to where this one is.
    #[must_use]
    pub fn unfinished(&self) -> &[u8] {
        if self.state == State::Ground { &self.cut_char } else { &self.pending }
    }

    /// Takes output in any portions and gives it out in whole sequences, in order.
    pub fn scan(&mut self, bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = if !self.cut_char.is_empty() {
                self.complete_char(rest, &mut emit)
            } else if self.state == State::Ground {
                self.scan_whole(rest, &mut emit)
            } else {
                self.resume(rest, &mut emit)
            };
        }
    }

    /// From the ground: passes on as much as possible in one piece, up to a sequence that does not end in `bytes`, is a
    /// string to swallow, or may be too long. Returns what `resume` has to look at byte by byte.
    fn scan_whole<'a>(&mut self, bytes: &'a [u8], emit: &mut impl FnMut(&[u8])) -> &'a [u8] {
        let mut at = 0;
        loop {
            let Some(start) = bytes[at..].iter().position(|&byte| byte == ESC).map(|offset| at + offset) else {
                let (whole, cut) = bytes.split_at(bytes.len() - cut_char_len(&bytes[at..]));
                if !whole.is_empty() {
                    emit(whole);
                }
                if !cut.is_empty() && cut_char_len(whole) > 0 {
                    emit(STRING_TERMINATOR);
                }
                self.cut_char.extend_from_slice(cut);
                return &[];
            };
            match whole_sequence(&bytes[start..]) {
                Some(length) => at = start + length,
                None => {
                    if start > 0 {
                        emit(&bytes[..start]);
                    }
                    if cut_char_len(&bytes[at..start]) > 0 {
                        emit(STRING_TERMINATOR);
                    }
                    self.state = State::Escape;
                    self.pending.push(ESC);
                    return &bytes[start + 1..];
                }
            }
        }
    }

    /// Goes on with an unfinished sequence until it ends or the bytes do.
    fn resume<'a>(&mut self, bytes: &'a [u8], emit: &mut impl FnMut(&[u8])) -> &'a [u8] {
        for (at, &byte) in bytes.iter().enumerate() {
            match self.step(byte) {
                Step::Part => self.keep(byte),
                Step::Control => emit(&[byte]),
                Step::Restart => {
                    if self.state == State::Osc {
                        // ESC ends the string by itself; the engine must not wait for the rest of the terminator.
                        self.pending.extend_from_slice(STRING_TERMINATOR);
                        emit(&self.pending);
                    }
                    self.pending.clear();
                    self.pending.push(ESC);
                    self.state = State::Escape;
                }
                Step::Last => {
                    self.finish(byte, emit);
                    return &bytes[at + 1..];
                }
            }
        }
        &[]
    }

    fn finish(&mut self, byte: u8, emit: &mut impl FnMut(&[u8])) {
        let aborted = matches!(byte, CAN | SUB);
        if !aborted && matches!(self.state, State::Escape | State::EscapeIntermediate | State::Csi | State::Osc) {
            self.pending.push(byte);
            emit(&self.pending);
        }
        self.state = State::Ground;
        self.pending.clear();
        // An idle terminal keeps no buffer for the long string it once got.
        self.pending.shrink_to(SEQUENCE_BYTES_MAX);
    }

    /// What a byte does, entering the state that follows an ESC.
    fn step(&mut self, byte: u8) -> Step {
        match (self.state, byte) {
            (_, ESC) => Step::Restart,
            (_, CAN | SUB) => Step::Last,
            (State::Osc | State::OscOverlong, BEL) => Step::Last,
            (State::Osc | State::OscOverlong | State::Other | State::OtherOverlong | State::Ground, _) => Step::Part,
            (_, 0..=0x1f) => Step::Control,
            (_, 0x7f..) => Step::Part,
            (State::Escape, 0x20..=0x2f) => self.enter(State::EscapeIntermediate),
            (State::Escape, b'[') => self.enter(State::Csi),
            (State::Escape, b']') => self.enter(State::Osc),
            (State::Escape, b'P' | b'X' | b'^' | b'_') => self.enter(State::Other),
            (State::EscapeIntermediate | State::EscapeOverlong, 0x20..=0x2f) => Step::Part,
            (State::Csi | State::CsiOverlong, 0x20..=0x3f) => Step::Part,
            (State::Escape | State::EscapeIntermediate | State::EscapeOverlong, _) => Step::Last,
            (State::Csi | State::CsiOverlong, _) => Step::Last,
        }
    }

    fn enter(&mut self, state: State) -> Step {
        self.state = state;
        Step::Part
    }

    /// Adds a byte to the unfinished sequence, or gives the sequence up for a short one that has the same end and no
    /// effect in any terminal.
    fn keep(&mut self, byte: u8) {
        let (max, overlong, stand_in): (_, _, &[u8]) = match self.state {
            State::Escape | State::EscapeIntermediate => (SEQUENCE_BYTES_MAX, State::EscapeOverlong, b"\x1b   "),
            State::Csi => (SEQUENCE_BYTES_MAX, State::CsiOverlong, b"\x1b[0<"),
            State::Osc => (STRING_BYTES_MAX, State::OscOverlong, b"\x1b]x"),
            State::Other if self.pending.get(1) == Some(&b'P') => (STRING_BYTES_MAX, State::OtherOverlong, b"\x1bP0<"),
            State::Other => (STRING_BYTES_MAX, State::OtherOverlong, b"\x1bX"),
            _ => return,
        };
        if self.pending.len() < max {
            self.pending.push(byte);
        } else {
            self.state = overlong;
            self.pending.clear();
            self.pending.extend_from_slice(stand_in);
            self.pending.shrink_to(SEQUENCE_BYTES_MAX);
        }
    }

    /// Goes on with a character cut between two portions. The engine's parser could do that too, but swallows a byte if
    /// garbage follows.
    fn complete_char<'a>(&mut self, bytes: &'a [u8], emit: &mut impl FnMut(&[u8])) -> &'a [u8] {
        let (&byte, rest) = match bytes.split_first() {
            Some(split) => split,
            None => return bytes,
        };
        self.cut_char.push(byte);
        match std::str::from_utf8(&self.cut_char) {
            Err(error) if error.error_len().is_none() => rest,
            Ok(_) => {
                emit(&self.cut_char);
                self.cut_char.clear();
                rest
            }
            Err(_) => {
                // It will never be complete, and the byte belongs to what comes next.
                self.cut_char.pop();
                emit(&self.cut_char);
                emit(STRING_TERMINATOR);
                self.cut_char.clear();
                bytes
            }
        }
    }
}

/// How many bytes at the end of `text` are the beginning of a character.
fn cut_char_len(text: &[u8]) -> usize {
    let tail = &text[text.len().saturating_sub(UTF8_TAIL_MAX)..];
    let lead = tail.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(tail.len());
    let cut = std::str::from_utf8(&tail[lead..]).is_err_and(|error| error.error_len().is_none());
    if cut { tail.len() - lead } else { 0 }
}

/// Length of the sequence at the start of `bytes` if all of it is here and it is one to pass on as it is.
fn whole_sequence(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.get(1)?;
    match first {
        b'[' => {
            let window = &bytes[2..bytes.len().min(SEQUENCE_BYTES_MAX)];
            let end = window.iter().position(|byte| !matches!(byte, 0x20..=0x3f))?;
            matches!(window[end], 0x40..=0x7e).then_some(2 + end + 1)
        }
        b']' => {
            let window = &bytes[2..bytes.len().min(STRING_BYTES_MAX)];
            let end = window.iter().position(|byte| matches!(byte, &BEL | &ESC | &CAN | &SUB))?;
            match (window[end], window.get(end + 1)) {
                (BEL, _) => Some(2 + end + 1),
                (ESC, Some(b'\\')) => Some(2 + end + 2),
                _ => None,
            }
        }
        b'P' | b'X' | b'^' | b'_' => None,
        0x30..=0x7e => Some(2),
        0x20..=0x2f => matches!(bytes.get(2)?, 0x30..=0x7e).then_some(3),
        _ => None,
    }
}
