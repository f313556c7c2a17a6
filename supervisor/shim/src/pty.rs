//! The PTY's master as a `portable_pty::MasterPty`, whoever made it. Its reader and writer never block.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use agentapi_shared::WindowSize;
use portable_pty::{MasterPty, PtySize};

use crate::sys;

/// A master made inside a jail.
#[derive(Debug)]
pub(crate) struct JailMaster {
    file: File,
    writer_taken: RefCell<bool>,
}

impl JailMaster {
    pub(crate) fn new(master: OwnedFd) -> Self {
        Self { file: File::from(master), writer_taken: RefCell::new(false) }
    }
}

impl AsFd for JailMaster {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl MasterPty for JailMaster {
    fn resize(&self, size: PtySize) -> anyhow::Result<()> {
        Ok(sys::set_window_size(&self.file, WindowSize::clamped(size.cols, size.rows))?)
    }

    fn get_size(&self) -> anyhow::Result<PtySize> {
        let size = sys::window_size(&self.file)?;
        Ok(PtySize { rows: size.ws_row, cols: size.ws_col, pixel_width: size.ws_xpixel, pixel_height: size.ws_ypixel })
    }

    fn try_clone_reader(&self) -> anyhow::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.file.try_clone()?))
    }

    fn take_writer(&self) -> anyhow::Result<Box<dyn Write + Send>> {
        anyhow::ensure!(!self.writer_taken.replace(true), "the writer was taken already");
        Ok(Box::new(self.file.try_clone()?))
    }

    fn process_group_leader(&self) -> Option<libc::pid_t> {
        nix::unistd::tcgetpgrp(&self.file).ok().map(nix::unistd::Pid::as_raw)
    }

    fn as_raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }

    fn tty_name(&self) -> Option<PathBuf> {
        // It lies in the jail's own devpts; there is no path to it from here.
        None
    }
}
