//! The runtime kit of the daemons and the CLI: owned tasks, shutdown, errors in words, telemetry, ties to a parent process and to a service manager.

mod errors;
mod notify;
mod parent;
mod tasks;
mod telemetry;

pub use errors::chain;
pub use notify::{Notice, notify_manager};
pub use parent::{ParentGone, exit_with_parent};
pub use tasks::{OnEnd, TaskGroup};
pub use telemetry::{LogFormat, init_telemetry};
