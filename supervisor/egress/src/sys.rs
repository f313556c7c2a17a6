//! System calls that no crate wraps safely. The only unsafe code of this package.

#![expect(unsafe_code, reason = "thin wrappers over system calls, one call a block")]

pub(crate) use agentapi_shared::sys::{drop_all_capabilities, drop_bounding_set, ignore_signal, own_received};

/// Few heaps for few threads: a heap for each thread would keep what bursts left behind in each of them.
pub(crate) fn limit_malloc_arenas() {
    // SAFETY: mallopt with integers, before a second thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Has the resolver take every name as it is: never with a domain of this host's search list behind it. Before there is a second thread.
pub(crate) fn search_no_domains() {
    // SAFETY: two C strings, which setenv copies; no other thread reads the environment meanwhile, because there is none yet.
    unsafe { libc::setenv(c"LOCALDOMAIN".as_ptr(), c"".as_ptr(), 1) };
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
