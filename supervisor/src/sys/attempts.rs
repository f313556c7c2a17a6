//! What the canary asks of the kernel: calls by number, as a hostile program makes them, and children that make them.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::unistd::Pid;

/// An argument of a system call. Addresses are of values that live as long as the call.
pub(crate) enum Arg<'a> {
    /// No address.
    Number(i64),
    /// Bytes that the kernel reads.
    In(&'a [u8]),
    /// Bytes that the kernel may write, no more than there are.
    Out(&'a mut [u8]),
    /// Text that ends with a zero.
    Text(&'a CStr),
}

impl Arg<'_> {
    fn register(&mut self) -> i64 {
        let address = match self {
            Self::Number(number) => return *number,
            Self::In(bytes) => bytes.as_ptr() as usize,
            Self::Out(bytes) => bytes.as_mut_ptr() as usize,
            Self::Text(text) => text.as_ptr() as usize,
        };
        (address as u64).cast_signed()
    }
}

/// Calls the kernel by number. For calls that neither change this process's memory nor start another one in it.
pub(crate) fn call<const N: usize>(number: i64, mut args: [Arg<'_>; N]) -> Result<i64, Errno> {
    let mut register = |index: usize| args.get_mut(index).map_or(0, Arg::register);
    let [a, b, c, d, e, f] = [register(0), register(1), register(2), register(3), register(4), register(5)];
    // SAFETY: addresses are of borrowed values, whose lengths the caller gives to the kernel in the call's own way; everything else is a number
    // that the kernel checks.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// A child, as `fork(2)` makes one: its pid in the parent, none in the child. The caller's process must have one thread.
pub(crate) fn fork_child() -> Result<Option<Pid>, Errno> {
    // SAFETY: this process has one thread (the caller's duty), so the child may do everything the parent may.
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Which call makes a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloneCall {
    /// `clone`, with its flags in a register.
    Old,
    /// `clone3`, with its flags behind a pointer.
    New,
}

/// A child in namespaces of its own, which ends at once. The caller's process must have one thread.
pub(crate) fn clone_child(flags: i32, how: CloneCall) -> Result<Pid, Errno> {
    let signal = u64::from(libc::SIGCHLD.cast_unsigned());
    let flags = u64::from(flags.cast_unsigned());
    let pid = match how {
        CloneCall::New => {
            // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
            let args: [u64; 11] = [flags, 0, 0, 0, signal, 0, 0, 0, 0, 0, 0];
            // SAFETY: the kernel reads the array, whose size is given; without shared memory and stack the child gets a copy of this process,
            // which has one thread.
            Errno::result(unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) })?
        }
        CloneCall::Old => {
            let none = 0usize;
            // SAFETY: numbers only; as above.
            Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags | signal, none, none, none, none) })?
        }
    };
    if pid == 0 {
        exit_now(0);
    }
    Ok(Pid::from_raw(i32::try_from(pid).unwrap_or(-1)))
}

/// Ends at once, without anything that a normal exit does.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Ignores the hang-up that the end of a terminal sends.
pub(crate) fn ignore_hang_up() {
    // SAFETY: ignoring is no handler.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

/// A system call of the 32-bit world, past filters that know numbers of 64 bits only: getpid, number 20.
#[cfg(target_arch = "x86_64")]
pub(crate) fn compat_getpid() -> i64 {
    let result: i64;
    // SAFETY: getpid takes no arguments and touches no memory; the gate keeps all registers but eax, r8 to r11 are declared lost.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    result
}

/// There is no such gate elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn compat_getpid() -> i64 {
    -i64::from(libc::ENOSYS)
}
