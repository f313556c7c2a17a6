//! The keyframe: escape sequences that rebuild a terminal, so that what follows means the same there as here.
//!
//! # Format
//! A keyframe is output like any other and needs no support in a viewer. In order:
//! 1. [`KEYFRAME_RESET`]: CAN ends whatever sequence the viewer was in, RIS (`ESC c`) clears screens, scrollback and
//!    modes, OSC 104, 110, 111 and 112 the colours, and `CSI ? 12 l` the blinking that xterm.js keeps over a RIS. A viewer that
//!    must not lose its own scrollback replaces this prefix.
//! 2. The title stack and the title (OSC 2, CSI 22 t), and the colours that the program changed (OSC 4, 10, 11, 12).
//! 3. Scrollback, oldest row first, then the rows of the primary screen, printed one after another: what scrolls off is the
//!    scrollback. Rows that belong together wrap by themselves, others end with CR LF. After a character whose width
//!    terminals disagree about, the column is addressed again.
//! 4. The primary screen's scroll region and saved cursor, if there are any. If the alternate screen is shown:
//!    `CSI ? 1049 h` at the primary's saved cursor, which it saves once more, then the same for the alternate one: rows,
//!    scroll region, saved cursor.
//! 5. Keyboard flags, cursor style, tab stops, modes.
//! 6. The cursor: position, character sets, pen, link. If a wrap is pending or REP could follow, the character before the
//!    cursor is printed once more, because nothing else brings that about.
//! 7. The bytes of an unfinished escape sequence or character, so that the viewer's parser is where ours is.
//!
//! # What it assumes
//! A viewer of the same size. Character widths by `unicode-width` (Unicode 16, no ambiguous-wide, each code point by itself):
//! xterm.js has the same rule with its unicode11 addon and not with unicode-graphemes.
//!
//! # What it leaves out
//! The rarest attributes, which the engine does not keep (overline, double-size rows). In insert mode, right after a character: that
//! its row wraps into the next, which only a later change of size could show.

use super::controls::{KittyFlags, Modes};
use super::engine::{Buffer, CellKind, CellView, Charset, CursorState, Engine, NamedColor, Style};
use super::render::{Addressing, Pen, put, write_csi};
use super::scrollback::{Scrollback, StoredRow};

/// How every keyframe begins.
pub const KEYFRAME_RESET: &[u8] = b"\x18\x1bc\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\\x1b[?12l";

/// After a row that was begun by wrapping: if that scrolled, the new row has the background of its first character.
const ERASE_RIGHT: &str = "\x1b[K";

/// Writes a keyframe with the newest `scrollback_rows` rows in front of the screen.
pub(super) fn write<E: Engine>(
    engine: &E,
    scrollback: &Scrollback,
    scrollback_rows: usize,
    unfinished: &[u8],
) -> Vec<u8> {
    let mut writer = Writer { engine, out: KEYFRAME_RESET.to_vec(), pen: Pen::default() };
    writer.titles();
    writer.colors();
    let continued = writer.scrollback(scrollback, scrollback_rows);
    writer.rows(Buffer::Primary, continued);
    writer.margins_and_saved_cursor(Buffer::Primary);
    writer.kitty(Buffer::Primary);
    if engine.active() == Buffer::Alternate {
        writer.alternate();
        writer.kitty(Buffer::Alternate);
    }
    writer.keyboard();
    writer.tab_stops();
    writer.modes();
    writer.cursor();
    writer.out.extend_from_slice(unfinished);
    writer.out
}

struct Writer<'a, E> {
    engine: &'a E,
    out: Vec<u8>,
    pen: Pen,
}

impl<E: Engine> Writer<'_, E> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn titles(&mut self) {
        let controls = self.engine.controls();
        for title in &controls.title_stack {
            put(&mut self.out, format_args!("\x1b]2;{title}\x1b\\\x1b[22;2t"));
        }
        put(&mut self.out, format_args!("\x1b]2;{}\x1b\\", controls.title));
    }

    fn colors(&mut self) {
        const DYNAMIC: usize = NamedColor::Foreground as usize;
        for index in 0..=NamedColor::Cursor as usize {
            if let Some(rgb) = self.engine.color(index) {
                let (r, g, b) = (rgb.r, rgb.g, rgb.b);
                match index.checked_sub(DYNAMIC) {
                    None => put(&mut self.out, format_args!("\x1b]4;{index}")),
                    Some(number) => put(&mut self.out, format_args!("\x1b]{}", 10 + number)),
                }
                put(&mut self.out, format_args!(";rgb:{r:02x}/{g:02x}/{b:02x}\x1b\\"));
            }
        }
    }

    /// Prints stored rows; whether the last one wraps into what comes next.
    fn scrollback(&mut self, scrollback: &Scrollback, count: usize) -> bool {
        let mut rows = scrollback.tail(count).peekable();
        let mut continued = false;
        while let Some(StoredRow { ansi, flags, current_width }) = rows.next() {
            self.out.extend_from_slice(ansi);
            if continued {
                // It takes a character to make the row above wrap.
                self.text(if ansi.is_empty() { " " } else { "" });
                self.text(ERASE_RIGHT);
            }
            let wide_follows = match rows.peek() {
                Some(next) => next.flags.starts_wide,
                None => self.starts_wide(Buffer::Primary, 0),
            };
            continued = flags.wrapped && current_width;
            if !continued {
                self.text("\r\n");
            } else if flags.short && !wide_follows {
                // The wide character that did not fit is gone; a space reaches the last column in its place.
                self.text(" ");
            }
        }
        continued
    }

    /// Prints the rows of a screen from the current line on; `continued`: the row above wraps into the first.
    fn rows(&mut self, buffer: Buffer, mut continued: bool) {
        let last = self.engine.size().rows() - 1;
        for row in 0..=last {
            let wraps = row < last && self.engine.wraps(buffer, row);
            self.row(buffer, row, continued, wraps);
            if row < last && !wraps {
                // The new line must not take the pen's background if it scrolls in.
                self.pen.reset(&mut self.out);
                self.text("\r\n");
            }
            continued = wraps;
        }
        self.pen.reset(&mut self.out);
    }

    /// Prints a row. All of it if it wraps, so that the next one is begun by wrapping; otherwise without the blanks at its
    /// end, except for one that makes the row above wrap.
    fn row(&mut self, buffer: Buffer, row: u16, continued: bool, wraps: bool) {
        let engine = self.engine;
        let cols = usize::from(engine.size().cols());
        let occupied = engine.row(buffer, row).enumerate().filter(|(_, cell)| !cell.is_blank()).last();
        let occupied = occupied.map_or(0, |(col, _)| col + 1).max(usize::from(continued));
        let shown = if wraps { cols } else { occupied };
        let next = if wraps { engine.row(buffer, row + 1).next() } else { None };
        // Wrapping for want of a second column leaves the last one in the style of the wide character.
        let natural = |cell: &CellView<'_>| next.as_ref().is_some_and(|next| cell.is_left_by(next));
        let cells = engine.row(buffer, row).take(shown).map(|cell| {
            let filler = cell.kind == CellKind::Leading && !natural(&cell);
            if filler { CellView { kind: CellKind::Narrow, ..cell } } else { cell }
        });
        self.pen.write_cells(&mut self.out, cells, Addressing::Columns);
        if continued && shown < cols {
            self.pen.reset(&mut self.out);
            self.text(ERASE_RIGHT);
        }
    }

    fn starts_wide(&self, buffer: Buffer, row: u16) -> bool {
        self.engine.row(buffer, row).next().is_some_and(|cell| cell.kind == CellKind::Wide)
    }

    /// Scroll region and saved cursor of the screen that is shown by now.
    fn margins_and_saved_cursor(&mut self, buffer: Buffer) {
        let region = self.engine.region(buffer);
        if region != (0..self.engine.size().rows()) {
            put(&mut self.out, format_args!("\x1b[{};{}r", region.start + 1, region.end));
        }
        let saved = self.engine.saved_cursor(buffer);
        if saved != CursorState::default() {
            self.save_as(&saved, "\x1b7");
        }
    }

    /// Saves a cursor: goes where it is, with what it carries, and does `save` there.
    fn save_as(&mut self, saved: &CursorState, save: &str) {
        put(&mut self.out, format_args!("\x1b[{};{}H", saved.row + 1, saved.col + 1));
        self.charsets([Charset::Ascii; 4], saved.charsets);
        self.pen.set(&mut self.out, saved.style, None);
        self.text(save);
        self.charsets(saved.charsets, [Charset::Ascii; 4]);
    }

    /// Designates the sets that differ.
    fn charsets(&mut self, from: [Charset; 4], to: [Charset; 4]) {
        for (slot, (from, to)) in "()*+".chars().zip(from.into_iter().zip(to)) {
            if from != to {
                put(&mut self.out, format_args!("\x1b{slot}{}", if to == Charset::Graphics { '0' } else { 'B' }));
            }
        }
    }

    fn alternate(&mut self) {
        // Entering saves the primary screen's cursor.
        self.save_as(&self.engine.saved_cursor(Buffer::Primary), "\x1b[?1049h");
        self.pen.reset(&mut self.out);
        // The new screen is filled with the pen's background.
        self.text("\x1b[2J\x1b[H");
        self.rows(Buffer::Alternate, false);
        self.margins_and_saved_cursor(Buffer::Alternate);
    }

    fn keyboard(&mut self) {
        let controls = self.engine.controls();
        if controls.modify_other_keys != 0 {
            put(&mut self.out, format_args!("\x1b[>4;{}m", controls.modify_other_keys));
        }
        if controls.cursor_style != 0 {
            put(&mut self.out, format_args!("\x1b[{} q", controls.cursor_style));
        }
    }

    /// Keyboard flags, of which each screen has its own.
    fn kitty(&mut self, buffer: Buffer) {
        let flags: &KittyFlags = &self.engine.controls().kitty[buffer as usize];
        let mut levels = flags.stack.iter().copied().chain([flags.current]);
        if let Some(base) = levels.next().filter(|base| *base != 0) {
            put(&mut self.out, format_args!("\x1b[={base}u"));
        }
        for level in levels {
            put(&mut self.out, format_args!("\x1b[>{level}u"));
        }
    }

    fn tab_stops(&mut self) {
        let tabs = &self.engine.controls().tabs;
        if *tabs != Default::default() {
            self.text("\x1b[3g");
            for col in (0..usize::from(self.engine.size().cols())).filter(|col| tabs.is_set(*col)) {
                write_csi(&mut self.out, col + 1, b'G');
                self.text("\x1bH");
            }
        }
    }

    fn modes(&mut self) {
        let modes: &Modes = &self.engine.controls().modes;
        for (mode, on) in modes.changed() {
            put(&mut self.out, format_args!("\x1b[?{mode}{}", if on { 'h' } else { 'l' }));
        }
        for mode in [4, 20] {
            if modes.ansi(mode) == Some(true) {
                put(&mut self.out, format_args!("\x1b[{mode}h"));
            }
        }
    }

    /// Position, character sets, pen. Everything that moves the cursor has been written.
    fn cursor(&mut self) {
        let controls = self.engine.controls();
        let cursor = self.engine.cursor();
        let active = self.engine.active();
        let origin = controls.modes.private(6) == Some(true);
        let again = self.reprint(&cursor);
        // Printed over, a row no longer wraps into the next. Whoever waits to wrap at the end of one that does came from the other screen.
        let elsewhere = active == Buffer::Primary && cursor.pending_wrap && self.engine.wraps(active, cursor.row);
        let (enter, leave) = if elsewhere { ("\x1b[?1047h", "\x1b[?1047l") } else { ("", "") };
        let top = if origin && !elsewhere { self.engine.region(active).start } else { 0 };
        let row = cursor.row.saturating_sub(top) + 1;
        self.text(enter);
        let col = again.as_ref().map_or(cursor.col, |again| again.col);
        put(&mut self.out, format_args!("\x1b[{row};{}H", col + 1));
        if let Some(again) = &again {
            if controls.modes.ansi(4) == Some(true) {
                // Insert mode would push the row aside: make room first.
                write_csi(&mut self.out, again.width, b'P');
            }
            self.pen.set(&mut self.out, again.style, again.link.as_ref());
            if !again.raw {
                self.out.extend_from_slice(again.text.as_bytes());
                // SI changes nothing here, but after it there is no character that REP would repeat.
                self.text("\x0f");
                self.text(leave);
            }
        }
        self.charsets([Charset::Ascii; 4], cursor.charsets);
        match controls.charset {
            1 => self.text("\x0e"),
            2 => self.text("\x1bn"),
            3 => self.text("\x1bo"),
            _ => {}
        }
        self.pen.set(&mut self.out, cursor.style, cursor.link.as_ref());
        if let Some(again) = again.filter(|again| again.raw) {
            self.out.extend_from_slice(again.text.as_bytes());
            self.text(leave);
        }
    }

    /// The character before the cursor, if it has to be printed once more.
    fn reprint(&self, cursor: &CursorState) -> Option<Reprint> {
        let buffer = self.engine.active();
        let at = if cursor.pending_wrap { cursor.col } else { cursor.col.checked_sub(1)? };
        let cells: Vec<CellView<'_>> = self.engine.row(buffer, cursor.row).take(usize::from(at) + 1).collect();
        let spacer = cells.last().is_some_and(|cell| cell.kind == CellKind::Spacer);
        let col = at.checked_sub(u16::from(spacer))?;
        let cell = cells.get(usize::from(col))?;
        let width = if spacer { 2 } else { 1 };
        let controls = self.engine.controls();
        if let Some(printed) = controls.last_char {
            // Printed just now: same pen, same character set.
            let text = printed.to_string();
            return Some(Reprint { col, width, style: cursor.style, link: cursor.link.clone(), text, raw: true });
        }
        cursor.pending_wrap.then(|| {
            let text = std::iter::once(cell.ch).chain(cell.zerowidth.iter().copied()).collect();
            Reprint { col, width, style: cell.style, link: cell.link.clone(), text, raw: false }
        })
    }
}

/// A character to print once more.
struct Reprint {
    col: u16,
    width: u16,
    style: Style,
    link: Option<super::engine::Link>,
    text: String,
    /// To be printed last of all, through the character sets in use, so that REP can repeat it.
    raw: bool,
}
