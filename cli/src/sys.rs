//! The only unsafe code of this program: handing a file to the reactor.

#![expect(unsafe_code, reason = "the one call that tokio cannot check")]

use std::fs::File;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A file that is read and written when it is ready.
pub(crate) fn watch(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: `File` owns its descriptor and returns the same one for as long as it lives; the `AsyncFd` owns the `File`, lends it only by
    // reference and deregisters before it drops it, so the descriptor is neither closed nor replaced while it is registered.
    let watched = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE | Interest::WRITABLE) };
    watched.map_err(io::Error::from)
}
