//! What the terminal promises, tested on the whole of it: keyframes restore, portions do not matter, answers are exact,
//! hostile output costs what it may cost, and an independent emulator sees the same screen.

mod cases;
mod grammar;
mod hostile;
mod oracle;
mod queries;
mod round_trip;
mod screens;

use agentapi_shared::WindowSize;

use super::engine::{Buffer, CellKind, CursorState, Engine, Rgb};
use super::{Feedback, Terminal};

fn size(cols: u16, rows: u16) -> WindowSize {
    WindowSize::new(cols, rows).unwrap()
}

/// A terminal that was fed these bytes.
fn terminal(size: WindowSize, bytes: &[u8]) -> Terminal {
    let mut terminal = Terminal::new(size);
    feed(&mut terminal, bytes);
    terminal
}

/// Feeds and returns the answers.
fn feed(terminal: &mut Terminal, bytes: &[u8]) -> Vec<u8> {
    let mut feedback = Feedback::default();
    terminal.feed(bytes, &mut feedback).unwrap();
    feedback.replies
}

/// A row as text that shows everything about its cells.
type RowState = Vec<String>;

/// Cells, wrap marks, saved cursor and scroll region.
type ScreenState = (Vec<RowState>, Vec<bool>, CursorState, std::ops::Range<u16>);

/// The whole state of a terminal in comparable form. Left out: why the last column of a row is empty, and what keyframes leave out.
#[derive(Debug, PartialEq)]
struct State {
    active: Buffer,
    screens: Vec<ScreenState>,
    cursor: CursorState,
    controls: super::controls::Controls,
    colors: Vec<Option<Rgb>>,
    unfinished: Vec<u8>,
    scrollback: Vec<(String, bool)>,
}

fn state(terminal: &Terminal) -> State {
    let engine = &terminal.engine;
    let rows = engine.size().rows();
    let screen = |buffer: Buffer| {
        let cells = (0..rows)
            .map(|row| {
                engine
                    .row(buffer, row)
                    .map(|cell| {
                        let kind = if cell.kind == CellKind::Leading { CellKind::Narrow } else { cell.kind };
                        let link = cell.link.map(|link| format!("{}={}", link.id(), link.uri()));
                        if cell.ch == ' '
                            && cell.style == super::engine::Style::PLAIN
                            && cell.zerowidth.is_empty()
                            && link.is_none()
                        {
                            return format!("{kind:?}");
                        }
                        format!("{:?} {:?} {:?} {kind:?} {link:?}", cell.ch, cell.zerowidth, cell.style)
                    })
                    .collect()
            })
            .collect();
        let inserted = engine.controls().modes.ansi(4) == Some(true) && engine.controls().last_char.is_some();
        let left_out = |row| inserted && buffer == engine.active() && row == engine.cursor().row;
        let wraps = (0..rows).map(|row| engine.wraps(buffer, row) && !left_out(row)).collect();
        (cells, wraps, engine.saved_cursor(buffer), engine.region(buffer))
    };
    let buffers = if engine.active() == Buffer::Alternate {
        vec![Buffer::Primary, Buffer::Alternate]
    } else {
        vec![Buffer::Primary]
    };
    let scrollback = terminal.scrollback.tail(usize::MAX);
    State {
        active: engine.active(),
        screens: buffers.into_iter().map(screen).collect(),
        cursor: engine.cursor(),
        controls: engine.controls().clone(),
        colors: (0..=258).map(|index| engine.color(index)).collect(),
        unfinished: terminal.scanner.unfinished().to_vec(),
        scrollback: scrollback
            .map(|row| {
                // A wrapped row may end in a space or not, depending on why its last column is empty.
                let text = super::render::strip_sequences(row.ansi).trim_end_matches(' ').to_owned();
                let ansi = String::from_utf8_lossy(row.ansi).into_owned();
                (if row.flags.wrapped { text } else { ansi }, row.flags.wrapped)
            })
            .collect(),
    }
}

/// Compares with a readable difference.
fn assert_same(left: &Terminal, right: &Terminal, context: &str) {
    let (left, right) = (state(left), state(right));
    if left != right {
        let (left, right) = (format!("{left:#?}"), format!("{right:#?}"));
        let (left, right): (Vec<_>, Vec<_>) = (left.lines().collect(), right.lines().collect());
        let at = left.iter().zip(&right).position(|(a, b)| a != b).unwrap_or(0);
        let difference: String = (at.saturating_sub(3)..at + 4)
            .map(|i| format!("- {}\n+ {}\n", left.get(i).unwrap_or(&"").trim(), right.get(i).unwrap_or(&"").trim()))
            .collect();
        panic!("{context}\n{difference}");
    }
}
