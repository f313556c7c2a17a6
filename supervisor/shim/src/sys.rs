//! System calls that no crate wraps safely. The only unsafe code of this package.

#![expect(unsafe_code, reason = "thin wrappers over system calls, one call a block")]

mod mount;
mod network;
mod privileges;
mod process;
mod tty;

pub(crate) use agentapi_shared::sys::{drop_all_capabilities, drop_bounding_set, ignore_signal, own_received};
pub(crate) use mount::{Attributes, move_mount, open_tree, open_tree_of, set_attributes};
pub(crate) use network::bring_loopback_up;
pub(crate) use privileges::{FilterScope, install_filter, join_empty_keyring, lock_secure_bits};
pub(crate) use process::{
    Cloned, clone_process, close_on_exec_from, close_others, fork_process, limit_malloc_arenas, reset_signals,
    shed_priority, stdin_socket, trim_heap,
};
pub(crate) use tty::{become_controlling_terminal, open_pty, set_window_size, window_size};
