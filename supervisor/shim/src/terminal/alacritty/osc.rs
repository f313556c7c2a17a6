//! Operating system commands: title, links, colours.
//!
//! Not run: clipboard (OSC 52; reading it would leak, writing it is for a viewer to allow), notifications and whatever
//! else: the raw bytes reach the viewers, which decide for themselves.

use vte::ansi::{Handler, NamedColor, Rgb};

use super::Core;
use crate::terminal::TerminalEvent;
use crate::terminal::engine::{Effects, Link};
use crate::terminal::responder::{self, Terminator};
use crate::terminal::theme;

/// Longest address of a link; browsers take about as much. Longer ones are no links.
const URI_BYTES_MAX: usize = 2_048;
/// Longest id of a link; longer ones count as none.
const LINK_ID_BYTES_MAX: usize = 250;
/// Bytes of links that the cells of one terminal may hold. Overflow: new links are plain text until some are gone.
const LINKS_BYTES_MAX: usize = 512 << 10;

/// The first of the colours that are not in the palette: foreground, background, cursor.
const DYNAMIC: usize = NamedColor::Foreground as usize;

impl Core {
    pub(super) fn run_osc(&mut self, params: &[&[u8]], bell: bool, effects: &mut Effects<'_>) {
        let Some((command, args)) = params.split_first() else { return };
        let terminator = if bell { Terminator::Bell } else { Terminator::String };
        match *command {
            b"0" | b"2" if !args.is_empty() => {
                self.controls.set_title(&String::from_utf8_lossy(&args.join(&b';')));
                effects.event(TerminalEvent::Title(self.controls.title.clone()));
            }
            b"4" => {
                for pair in args.chunks_exact(2) {
                    if let Some(index) = parse_index(pair[0]) {
                        self.color(index, pair[1], &format!("4;{index}"), terminator, effects);
                    }
                }
            }
            b"8" if args.len() >= 2 => self.open_link(args[0], &args[1..].join(&b';')),
            b"10" | b"11" | b"12" => {
                // Further arguments are for the colours that follow.
                let first = usize::from(command[1] - b'0');
                for (number, color) in (first..=2).zip(args) {
                    self.color(DYNAMIC + number, color, &format!("{}", 10 + number), terminator, effects);
                }
            }
            b"104" if args.iter().all(|arg| arg.is_empty()) => (0..256).for_each(|index| self.term.reset_color(index)),
            b"104" => args.iter().filter_map(|arg| parse_index(arg)).for_each(|index| self.term.reset_color(index)),
            b"110" | b"111" | b"112" => self.term.reset_color(DYNAMIC + usize::from(command[2] - b'0')),
            b"7501" if args == [b"?"] => responder::program_status(&mut effects.feedback.replies, terminator),
            _ => {}
        }
    }

    /// Sets a colour, or answers with it.
    fn color(&mut self, index: usize, spec: &[u8], name: &str, terminator: Terminator, effects: &mut Effects<'_>) {
        if spec == b"?" {
            let color = self.term.colors()[index].unwrap_or_else(|| theme::color(index));
            responder::color(&mut effects.feedback.replies, name, color, terminator);
        } else if let Some(color) = parse_color(spec) {
            self.term.set_color(index, color);
        }
    }

    fn open_link(&mut self, params: &[u8], uri: &[u8]) {
        let clean =
            |bytes: &[u8]| std::str::from_utf8(bytes).ok().filter(|s| !s.contains(char::is_control)).map(String::from);
        let uri = clean(uri).filter(|uri| !uri.is_empty() && uri.len() <= URI_BYTES_MAX);
        let id = params.split(|&byte| byte == b':').find_map(|pair| pair.strip_prefix(b"id="));
        let id = id.filter(|id| id.len() <= LINK_ID_BYTES_MAX).and_then(clean).unwrap_or_default();
        let link = uri.filter(|uri| self.afford_link(uri.len() + id.len())).map(|uri| Link::new(Some(id), uri));
        self.term.grid_mut().cursor.template.set_hyperlink(link);
    }

    /// Whether one more link fits. The cells are counted only after as many bytes again have been accepted, so that
    /// counting costs little however often links come.
    fn afford_link(&mut self, bytes: usize) -> bool {
        if self.links.accepted + bytes > LINKS_BYTES_MAX {
            self.links.accepted = self.link_bytes();
            if self.links.accepted > LINKS_BYTES_MAX / 2 {
                return false;
            }
        }
        self.links.accepted += bytes;
        true
    }

    /// Bytes of the links in all cells, each run of one link counted once.
    fn link_bytes(&self) -> usize {
        let grids = std::iter::once(self.term.grid()).chain(&self.hidden_primary);
        let rows = grids.flat_map(|grid| (0..self.rows()).map(move |row| &grid[super::line(row)][..]));
        let mut last = std::ptr::null();
        let mut sum = 0;
        for link in rows.flatten().filter(|cell| cell.extra.is_some()).filter_map(|cell| cell.hyperlink()) {
            if link.uri().as_ptr() != last {
                last = link.uri().as_ptr();
                sum += link.uri().len() + link.id().len();
            }
        }
        sum
    }
}

fn parse_index(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse::<u8>().ok().map(usize::from)
}

/// `rgb:r/g/b` with one to four digits each, or `#rgb` with as many: the forms of XParseColor in use. Digits behind `rgb:` are a fraction of
/// their own largest value, those behind `#` the most significant ones: `#abc` is `#a0b0c0`.
fn parse_color(spec: &[u8]) -> Option<Rgb> {
    let spec = std::str::from_utf8(spec).ok()?;
    if let Some(list) = spec.strip_prefix("rgb:") {
        let mut parts = list.split('/').map(scale);
        let color = Rgb { r: parts.next()??, g: parts.next()??, b: parts.next()?? };
        return parts.next().is_none().then_some(color);
    }
    let digits = spec.strip_prefix('#').filter(|digits| digits.is_ascii() && digits.len() % 3 == 0)?;
    let width = digits.len() / 3;
    let part = |index: usize| most_significant(digits.get(index * width..(index + 1) * width)?);
    Some(Rgb { r: part(0)?, g: part(1)?, b: part(2)? })
}

/// A fraction of its own largest value, as 8 bits.
fn scale(digits: &str) -> Option<u8> {
    let max = (1_u32 << (4 * digits.len().min(4))) - 1;
    // Rounded, as in xterm.js.
    u8::try_from((255 * hex(digits)? + max / 2) / max).ok()
}

/// The first digits of a number, as 8 bits.
fn most_significant(digits: &str) -> Option<u8> {
    u8::try_from((hex(digits)? << 8) >> (4 * digits.len())).ok()
}

/// One to four hexadecimal digits.
fn hex(digits: &str) -> Option<u32> {
    let plain = (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
