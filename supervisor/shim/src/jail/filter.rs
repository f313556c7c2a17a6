//! Filters of system calls (seccomp): one for the agent, one for init once the agent runs, one for the shim itself.
//!
//! They are written by hand: a filter that compares number after number costs a millisecond to load and a long walk per call, this one is a
//! search tree over ranges of numbers, some 250 instructions for the whole policy. The kernel remembers for each number without a look at
//! arguments that it is allowed, so that the filter is not even run for it.

mod agent;
mod allow_list;
mod bpf;
#[cfg(test)]
mod tests;

use agentapi_shared::jail::FilterStep;
use nix::errno::Errno;

use crate::sys::{self, FilterScope};

/// The agent's filter, on this process and all it starts. `no_new_privs` must be set, here and below.
pub(super) fn confine_agent(step: FilterStep) -> Result<(), Errno> {
    sys::install_filter(&agent::program(step)?, FilterScope::Thread)
}

/// The filter of an init that only waits, reaps and signals.
pub(super) fn confine_init() -> Result<(), Errno> {
    sys::install_filter(&allow_list::init()?, FilterScope::Thread)
}

/// The filter of a shim that serves, on all its threads.
pub(super) fn confine_shim() -> Result<(), Errno> {
    sys::install_filter(&allow_list::shim()?, FilterScope::Process)
}
