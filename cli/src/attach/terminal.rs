//! The local terminal: raw while attached, and as it was before afterwards, however that ends.
//!
//! It is opened anew (`/dev/tty`), so that making it non-blocking concerns nobody who shares our stdin, and so that reading, writing and
//! signals can be waited for side by side on one thread.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use agentapi_shared::WindowSize;
use anyhow::Context as _;
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, SetArg, Termios, cfmakeraw, tcflush, tcgetattr, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::filter::Observed;

/// A terminal that does not take the last few bytes in this time will not show them.
const LEAVE_MS_MAX: u16 = 500;

/// Every mode that agents set, off; then what a soft reset leaves out. What is off already stays off.
const MODES_OFF: &str = "\x1b[?1000;1002;1003;1005;1006;1015;1016;1004;2004;2026;9;1;12l\x1b[?7;25h\x1b>\x1b[>4m\x1b[!p\x1b[0 q\x1b(B\x0f\x1b[m";
/// A link, a progress bar and colours that an agent may have left.
const STRINGS_OFF: &str = "\x1b]8;;\x1b\\\x1b]9;4;0\x1b\\\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\";

/// The local terminal in raw mode.
#[derive(Debug)]
pub(crate) struct Terminal {
    tty: AsyncFd<File>,
    before: Termios,
    left: bool,
}

impl Terminal {
    /// Makes it raw. The returned value restores it when dropped, also by a panic.
    pub(crate) fn enter() -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open("/dev/tty")
            .context("attach needs a terminal")?;
        let before = tcgetattr(&file).context("attach needs a terminal")?;
        let tty = crate::sys::watch(file)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let terminal = Self { tty, before, left: false };
        tcsetattr(terminal.tty.get_ref(), SetArg::TCSADRAIN, &raw).context("cannot make the terminal raw")?;
        Ok(terminal)
    }

    /// Its size.
    pub(crate) fn size(&self) -> Option<WindowSize> {
        size_of(self.tty.get_ref())
    }

    /// Reads what was typed; 0: the terminal is gone.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.tty.async_io(Interest::READABLE, |mut tty| tty.read(buffer)).await
    }

    /// Writes some of the bytes.
    pub(crate) async fn write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        self.tty.async_io(Interest::WRITABLE, |mut tty| tty.write(bytes)).await
    }

    /// Gives it back: modes off, primary screen, below what is on it.
    pub(crate) fn leave(&mut self, observed: &Observed) {
        self.left = true;
        let rows = self.size().unwrap_or_default().rows();
        self.write_last(leave_sequence(observed, rows).as_bytes());
        // Typed, or reported by the mouse, for a program that is no longer there: a shell must not read it.
        let _best_effort = tcflush(self.tty.get_ref(), FlushArg::TCIFLUSH);
        let _best_effort = tcsetattr(self.tty.get_ref(), SetArg::TCSANOW, &self.before);
    }

    /// Writes what the terminal takes within a short time.
    fn write_last(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut tty = self.tty.get_ref();
            match tty.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(tty.as_fd(), PollFlags::POLLOUT)];
                    if !poll(&mut ready, PollTimeout::from(LEAVE_MS_MAX)).is_ok_and(|count| count > 0) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !self.left {
            // A panic: nobody knows which screen is shown, and leaving one that is not shown does little harm.
            self.leave(&Observed { alternate_screen: true, title: None });
        }
    }
}

fn leave_sequence(observed: &Observed, rows: u16) -> String {
    let screen = if observed.alternate_screen { "\x1b[?1049l".to_owned() } else { String::new() };
    // Popping gives the title back that was pushed on entering.
    format!("{MODES_OFF}{screen}{STRINGS_OFF}\x1b[23;0t\x1b[{rows};1H\r\n")
}

/// Written once on entering: the title is put aside, and what is on the screen moves up into the scrollback.
pub(crate) fn enter_sequence(rows: u16) -> String {
    format!("\x1b[22;0t\x1b[{rows};1H{}\x1b[H", "\n".repeat(rows.into()))
}

/// Written before each keyframe, which is made for a terminal that is empty and knows no modes.
pub(crate) fn clear_sequence(observed: &Observed) -> String {
    let screen = if observed.alternate_screen { "\x1b[?1049l" } else { "" };
    format!("{MODES_OFF}{screen}\x1b]8;;\x1b\\\x1b[H\x1b[2J")
}

/// One line over the last row. What it covers is drawn again by the keyframe that the next connection asks for.
pub(crate) fn status_line(words: &str, size: WindowSize) -> String {
    let shown: String = words.chars().take(size.cols().into()).collect();
    format!("\x1b7\x1b[?6l\x1b[{};1H\x1b[0;7m{shown}\x1b[K\x1b[m\x1b8", size.rows())
}

/// The size of the terminal this program runs in, if it runs in one.
pub(crate) fn own_size() -> Option<WindowSize> {
    size_of(&OpenOptions::new().read(true).open("/dev/tty").ok()?)
}

fn size_of(tty: &File) -> Option<WindowSize> {
    let (width, height) = terminal_size::terminal_size_of(tty)?;
    (width.0 > 0 && height.0 > 0).then(|| WindowSize::clamped(width.0, height.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_shows_the_primary_screen_only_if_another_is_shown() {
        let plain = leave_sequence(&Observed::default(), 24);
        assert!(
            !plain.contains("1049") && plain.contains("\x1b[?7;25h") && plain.ends_with("\x1b[24;1H\r\n"),
            "{plain:?}"
        );
        let alternate = leave_sequence(&Observed { alternate_screen: true, title: None }, 24);
        assert!(alternate.contains("\x1b[?1049l"), "{alternate:?}");
    }

    #[test]
    fn a_status_line_never_wraps() {
        let line = status_line(&"x".repeat(100), WindowSize::clamped(20, 5));
        assert!(line.contains(&format!("\x1b[5;1H\x1b[0;7m{}\x1b[K", "x".repeat(20))), "{line:?}");
    }
}
