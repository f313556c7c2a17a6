//! A bare PTY with a program: the physical limit.

use std::io::{Read, Write};

use anyhow::Result;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// Columns and rows of every terminal here, also of the product's sessions.
pub(crate) const SIZE: PtySize = PtySize { rows: 40, cols: 120, pixel_width: 0, pixel_height: 0 };

/// A program in a PTY of ours; killed when dropped. Reading and writing block.
pub(crate) struct RawPty {
    child: Box<dyn Child + Send + Sync>,
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) writer: Box<dyn Write + Send>,
    _master: Box<dyn MasterPty + Send>,
}

impl RawPty {
    pub(crate) fn spawn(command: &[&str], dir: &std::path::Path) -> Result<Self> {
        let pair = native_pty_system().openpty(SIZE)?;
        let mut builder = CommandBuilder::from_argv(command.iter().map(Into::into).collect());
        builder.cwd(dir);
        builder.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(builder)?;
        drop(pair.slave);
        let (reader, writer) = (pair.master.try_clone_reader()?, pair.master.take_writer()?);
        Ok(Self { child, reader, writer, _master: pair.master })
    }

    /// Reads until `needle` came, and no further than the read that had it.
    pub(crate) fn read_until(&mut self, needle: &[u8]) -> Result<()> {
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        while !seen.windows(needle.len()).any(|window| window == needle) {
            let count = self.reader.read(&mut buffer)?;
            anyhow::ensure!(count > 0, "the program ended");
            seen.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
        Ok(())
    }
}

impl Drop for RawPty {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
