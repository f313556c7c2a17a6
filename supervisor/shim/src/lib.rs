//! The shim: one process per spawn. It owns the PTY, the screen, the output journal and the exit status of one agent, and outlives the supervisor.
//!
//! It is small on purpose: no async runtime, no TLS, one thread for the terminal's bytes and one for its screen. It starts nothing but its
//! agent, listens only on the socket it was given, and keeps no state beyond its spawn's directory.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Uid;

mod budget;
mod connection;
mod input;
mod jail;
mod output;
mod parser;
mod pty;
mod records;
mod recover;
mod ring;
mod screen;
mod service;
mod start;
mod streams;
mod sys;
pub mod terminal;

/// The program. Without arguments it serves the spawn described on its standard input; `recover DIR SPAWN` writes the records of a spawn whose
/// shim was killed; `--version` tells the version.
#[must_use]
pub fn run(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => start::serve().map_err(|error| with_source(&error)),
        ["recover", dir, spawn] => spawn
            .parse()
            .map_err(|_| "recover: SPAWN is not a number".to_owned())
            .and_then(|spawn| recover::recover(Path::new(dir), spawn).map_err(|error| error.to_string())),
        ["--version"] => {
            log(concat!("agentapi-shim ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        _ => Err("started by agentapi-supervisor; by hand only: recover DIR SPAWN | --version".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            log(&message);
            ExitCode::FAILURE
        }
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// One line on stderr, which the supervisor has put into a file beside the journal.
#[expect(clippy::print_stderr, reason = "the one place where this program writes log lines")]
pub(crate) fn log(line: &str) {
    eprintln!("{line}");
}

/// Only the supervisor's user may connect; the socket lies in a directory of its own as well.
pub(crate) fn trusted_peer(socket: &UnixStream, owner: Uid) -> bool {
    getsockopt(socket, PeerCredentials).is_ok_and(|peer| peer.uid() == owner.as_raw())
}
