//! The system calls without a safe wrapper that more than one of the processes makes. What one alone needs is in its own `sys`.

#![expect(unsafe_code, reason = "thin wrappers over system calls, one call a block")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// An argument that means nothing. These functions are variadic and the kernel reads whole registers: every argument has to fill one.
const NONE: libc::c_ulong = 0;

/// Owns a descriptor that the kernel has just made for this process: one that came with a message, or was accepted.
#[must_use]
pub fn own_received(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller has it from recvmsg or accept; nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes this process deaf to a signal.
pub fn ignore_signal(signal: nix::sys::signal::Signal) {
    // SAFETY: SIG_IGN is a valid handler for every signal that can be ignored; the others just fail.
    unsafe { libc::signal(signal as i32, libc::SIG_IGN) };
}

/// Removes every capability from the bounding set, so that no exec can bring one back.
pub fn drop_bounding_set() -> Result<(), Errno> {
    for capability in 0..64 as libc::c_ulong {
        // SAFETY: prctl with integers only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, NONE, NONE, NONE) }) {
            // Beyond the kernel's last capability.
            Err(Errno::EINVAL) => break,
            other => other?,
        };
    }
    Ok(())
}

/// Empties the permitted, effective, inheritable and ambient sets.
pub fn drop_all_capabilities() -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let clear_all = libc::c_ulong::try_from(libc::PR_CAP_AMBIENT_CLEAR_ALL).map_err(|_| Errno::EINVAL)?;
    // SAFETY: prctl with integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear_all, NONE, NONE, NONE) })?;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: capset reads a header and, for version 3, two sets of three u32; both live until it returns.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(drop)
}
