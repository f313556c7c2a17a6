//! System calls that no crate wraps safely. The only unsafe code of this package.

#![expect(unsafe_code, reason = "thin wrappers over system calls, one call a block")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Owns a descriptor that came with a message.
pub(crate) fn own_received(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg has just made this descriptor for us; nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes this process deaf to a signal.
pub(crate) fn ignore_signal(signal: nix::sys::signal::Signal) {
    // SAFETY: SIG_IGN is a valid handler for every signal that can be ignored; the others just fail.
    unsafe { libc::signal(signal as i32, libc::SIG_IGN) };
}

/// Removes every capability from the bounding set, so that no exec can bring one back.
pub(crate) fn drop_bounding_set() -> Result<(), Errno> {
    for capability in 0..64 {
        // SAFETY: prctl with integers only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            // Beyond the kernel's last capability.
            Err(Errno::EINVAL) => break,
            other => other?,
        };
    }
    Ok(())
}

/// Empties the permitted, effective, inheritable and ambient sets.
pub(crate) fn drop_all_capabilities() -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    // SAFETY: prctl with integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: capset reads a header and, for version 3, two sets of three u32; both live until it returns.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(drop)
}

/// Few heaps for few threads: a heap for each thread would keep what bursts left behind in each of them.
pub(crate) fn limit_malloc_arenas() {
    // SAFETY: mallopt with integers, before a second thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Whether the system's resolver reads a text as an address, without asking anybody.
#[cfg(test)]
pub(crate) fn is_numeric_host(text: &std::ffi::CStr) -> bool {
    // SAFETY: addrinfo is a struct of integers and pointers, for which all zeroes is a valid value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_flags = libc::AI_NUMERICHOST;
    let mut found = std::ptr::null_mut();
    // SAFETY: text is a C string, the service may be null, hints is valid, found is where the result's pointer goes.
    let code = unsafe { libc::getaddrinfo(text.as_ptr(), std::ptr::null(), &raw const hints, &raw mut found) };
    if code == 0 {
        // SAFETY: made by getaddrinfo above, and freed once.
        unsafe { libc::freeaddrinfo(found) };
    }
    code == 0
}
