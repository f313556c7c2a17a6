//! What the attempts of `tests/sandbox` and the probe that makes them tell each other: where the harness has put its bait, and what an attempt saw.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// File beside the probe with its [`Params`].
pub const PARAMS_FILE: &str = "attempt-params.json";
/// File in the probe's working directory with one [`Outcome`] per line.
pub const RESULTS_FILE: &str = "attempt-results.jsonl";
/// The last line of the results.
pub const DONE: &str = "done";
/// File beside a probe that stands in for the shim: the changes to the plan.
pub const EDITS_FILE: &str = "edits.json";

/// The bait. Everything is also reachable from the bare host, so that each attempt has its control.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Params {
    /// What every bait file contains and no attempt may read.
    pub secret: String,
    /// Where the probe works and may write.
    pub workspace: String,
    /// The agent's HOME as the probe sees it.
    pub home: String,
    /// Files of the host and of other sessions, by their paths on the host.
    pub foreign_files: Vec<String>,
    /// A directory that sessions see read-only, with one file that everybody may write per attempt.
    pub read_only_dir: String,
    /// Processes of the host, one per attempt that would end or trace it.
    pub host_pids: BTreeMap<String, i32>,
    /// Addresses at which the harness listens, TCP and UDP on the same port.
    pub addresses: Vec<String>,
    /// An abstract socket of the host.
    pub abstract_socket: String,
    /// Sockets of the host and of other sessions.
    pub unix_sockets: Vec<String>,
    /// Key of System V objects.
    pub sysv_key: i32,
    /// A POSIX message queue.
    pub message_queue: String,
    /// A key in the kernel's keyrings that everybody may read.
    pub key_serial: i32,
    /// Files of the host's shared directories.
    pub shared_files: Vec<String>,
    /// Terminals of the host.
    pub host_terminals: Vec<String>,
    /// The host's name.
    pub host_name: String,
    /// A credential that only daemons of the host have.
    pub credential: String,
    /// Processes and threads that a session may have.
    pub pids_max: u64,
    /// Bytes of memory that a session may have.
    pub memory_max: u64,
    /// Bytes of /tmp.
    pub tmp_bytes: u64,
    /// Bytes of a session's own disk.
    pub disk_bytes: u64,
    /// How many times slower than usual this machine is: see [`crate::wait::SLOWNESS`], which is not inside.
    pub slowness: u32,
}

/// What one attempt saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Number in the list.
    pub number: u32,
    /// Name of the attempt.
    pub name: String,
    /// In a word: an errno, a signal, or `OPEN`.
    pub effect: String,
    /// Whether it got what it wanted.
    pub open: bool,
    /// Whether what it is about does not exist on this kernel, so that nothing is shown here.
    pub absent: bool,
    /// More, which differs from run to run.
    pub detail: String,
}

/// A change of a plan before the real shim gets it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Put this value at this JSON pointer of the start message.
    Set {
        /// Where.
        at: String,
        /// What.
        value: serde_json::Value,
    },
    /// Remove from the list at this pointer what equals the value or has all of its fields.
    Without {
        /// Where.
        at: String,
        /// What.
        value: serde_json::Value,
    },
    /// In the list at this pointer, merge fields into each element that has all fields of `which`.
    Merge {
        /// Where.
        at: String,
        /// Which.
        which: serde_json::Value,
        /// With what.
        fields: serde_json::Value,
    },
    /// Exchange a directory of the host for another, after the plan was made and before it is applied.
    Exchange {
        /// This one goes to `PATH.away`.
        path: String,
        /// This one takes its place, as a link.
        by: String,
    },
}

/// Whether an element of a list is meant.
#[must_use]
pub fn is_meant(element: &serde_json::Value, which: &serde_json::Value) -> bool {
    match (element, which) {
        (serde_json::Value::Object(have), serde_json::Value::Object(want)) => {
            want.iter().all(|(name, value)| have.get(name) == Some(value))
        }
        _ => element == which,
    }
}
