//! The screen as the API shows it.

use agentapi_shared::api::{Cursor, ScreenFormat, ScreenResponse};
use agentapi_shared::shim::FinalScreen;

use crate::terminal::Terminal;

/// The screen now, with up to `scrollback` rows before it.
pub(crate) fn respond(terminal: &Terminal, spawn: u32, format: ScreenFormat, scrollback: u32) -> ScreenResponse {
    let rows = scrollback as usize;
    let text = match format {
        ScreenFormat::Text => terminal.screen_text(rows),
        ScreenFormat::Ansi => terminal.screen_ansi(rows),
    };
    let screen = terminal.screen();
    let cursor = Cursor { row: screen.cursor.row, col: screen.cursor.col, visible: screen.cursor.visible };
    ScreenResponse { size: screen.size, cursor, title: screen.title, spawn, offset: terminal.offset(), text }
}

/// The last screen with everything before it.
pub(crate) fn last(terminal: &Terminal, spawn: u32) -> FinalScreen {
    let rows = terminal.scrollback_rows();
    FinalScreen {
        screen: respond(terminal, spawn, ScreenFormat::Text, u32::try_from(rows).unwrap_or(u32::MAX)),
        ansi: terminal.screen_ansi(rows),
    }
}
