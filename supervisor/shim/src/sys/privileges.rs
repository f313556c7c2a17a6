//! Giving up: capabilities, secure bits, keyrings, system calls.

use std::ptr;

use nix::errno::Errno;

/// An argument that means nothing. These functions are variadic and the kernel reads whole registers: every argument has to fill one.
const NONE: libc::c_ulong = 0;

/// `SECBIT_NOROOT`, `SECBIT_NO_SETUID_FIXUP`, `SECBIT_NO_CAP_AMBIENT_RAISE`, each with its lock, and the lock of `SECBIT_KEEP_CAPS`: uid 0 means
/// nothing, and nothing brings that back.
const SECURE_BITS: libc::c_ulong = 0b1110_1111;

/// Takes the meaning from uid 0, for good.
pub(crate) fn lock_secure_bits() -> Result<(), Errno> {
    // SAFETY: prctl with integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE_BITS, NONE, NONE, NONE) }).map(drop)
}

/// Leaves the keyring of the daemon's session for an empty one.
pub(crate) fn join_empty_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: keyctl with integers and the null pointer, which asks for a keyring without a name.
    match Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) }) {
        // A kernel without keyrings has none to leave.
        Err(Errno::ENOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// Whom a filter is put on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FilterScope {
    /// The calling thread and all that it starts.
    Thread,
    /// Every thread of the process.
    Process,
}

/// Puts a seccomp filter on this process and all it starts. `no_new_privs` must be set.
pub(crate) fn install_filter(program: &[libc::sock_filter], scope: FilterScope) -> Result<(), Errno> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let flags = match scope {
        FilterScope::Thread => NONE,
        FilterScope::Process => libc::SECCOMP_FILTER_FLAG_TSYNC,
    };
    // SAFETY: filter points to `length` instructions that live until the call returns; the kernel only reads and checks them.
    let refused = Errno::result(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER), flags, &raw const filter)
    })?;
    // Positive: the id of a thread that could not be taken along.
    if refused == 0 { Ok(()) } else { Err(Errno::ESRCH) }
}
