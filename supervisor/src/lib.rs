//! The supervisor: one per host. It admits sessions, keeps their records, starts a shim for each spawn and relays terminals and commands between
//! the shims and the control plane, over one WebSocket that it opens itself.
//!
//! It can be killed at any time: shims go on alone, and the next supervisor finds them by their sockets. It owns what *is* on this host; what is
//! *wanted* is the control plane's.

mod abort;
mod accounts;
mod agents;
mod canary;
mod cgroup;
mod config;
mod context;
mod control;
mod daemon;
mod disk;
mod doctor;
mod enrol;
mod files;
mod gateway;
mod host;
mod idmap;
mod launch;
mod link;
mod outbox;
mod plan;
mod posture;
mod private;
mod proc;
mod profiles;
mod promise;
mod questions;
mod registry;
mod removal;
mod sandbox;
mod self_test;
mod session;
mod settings;
mod settle;
mod shim_client;
mod shim_listeners;
mod shim_socket;
mod slots;
mod streams;
mod sys;
mod uplink;
mod versions;
mod workspace;

use std::process::ExitCode;

pub(crate) use agentapi_shared::runtime::chain;
pub use config::Args;
use config::Command;

/// Runs what the command line says.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Run(options) => daemon::run(&options),
        Command::StopAll(options) => control::stop_all(&options),
        Command::Enrol(options) => enrol::enrol(&options),
        Command::Rotate(options) => enrol::rotate(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Canary { aims } => canary::run(&aims),
    }
}
