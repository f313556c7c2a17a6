//! Everything this program prints goes through here: words for people, tables, JSON for scripts.
//!
//! A closed pipe (`agentapi session list | head -1`) is not an error. What others chose (names, labels, errors of a server) is printed without
//! control characters, because it could otherwise drive the terminal of whoever looks.

use std::io::{IsTerminal as _, Write as _};

use agentapi_shared::api::Limits;
use serde::Serialize;

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For scripts, in the shapes of the REST API.
    Json,
}

/// One line on stdout.
pub(crate) fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

/// Bytes on stdout, as they are.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    // Whoever read this has gone: nobody is left to be told.
    let _gone = out.write_all(bytes).and_then(|()| out.flush());
}

/// One line on stderr: progress, hints, errors.
pub(crate) fn note(text: &str) {
    let _gone = writeln!(std::io::stderr().lock(), "{text}");
}

/// A value as JSON on stdout: indented for a person, one line for a program.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let pretty = std::io::stdout().is_terminal();
    let text = if pretty { serde_json::to_string_pretty(value)? } else { serde_json::to_string(value)? };
    line(&text);
    Ok(())
}

/// Rows under a header, columns as wide as they need to be.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    bytes(render_table(header, rows).as_bytes());
}

fn render_table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|title| title.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let titles: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(cell);
            let padding = width - cell.chars().count() + 2;
            text.extend(std::iter::repeat_n(' ', padding));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// The text without control characters, so that it cannot drive a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// As [`clean`], but lines stay lines.
pub(crate) fn clean_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A time span as people say it: `45s`, `12m`, `3h`, `8d`.
pub(crate) fn age(span: time::Duration) -> String {
    let seconds = span.whole_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// The limits that are set, each in words.
pub(crate) fn limits(limits: &Limits) -> Vec<String> {
    let mib = |bytes: u64| bytes >> 20;
    [
        limits.memory_bytes.map(|bytes| format!("memory {} MiB", mib(bytes))),
        limits.cpu_percent.map(|percent| format!("processors {}.{:02}", percent / 100, percent % 100)),
        limits.pids.map(|pids| format!("processes {pids}")),
        limits.disk_bytes.map(|bytes| format!("disk {} MiB", mib(bytes))),
        limits.io_bytes_per_second.map(|bytes| format!("disk traffic {} MiB/s", mib(bytes))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_names_cannot_drive_the_terminal() {
        let rows = vec![vec!["a".into(), "x\u{1b}[31m".into()], vec!["long".into(), "y".into()]];
        assert_eq!(render_table(&["ID", "NAME"], &rows), "ID    NAME\na     x\u{fffd}[31m\nlong  y\n");
    }

    #[test]
    fn ages_are_short() {
        let said: Vec<String> = [5, 60, 7300, 200_000].map(|s| age(time::Duration::seconds(s))).into();
        assert_eq!(said, ["5s", "1m", "2h", "2d"]);
        assert_eq!(age(time::Duration::seconds(-3)), "0s");
    }
}
