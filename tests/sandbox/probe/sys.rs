//! System calls as a hostile program makes them: by number, with whatever arguments. The only unsafe code of the sandbox's tests.

#![expect(unsafe_code, reason = "raw system calls are what a probe is for")]

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Calls the kernel by number. Pointers among the arguments come from [`at`] and [`at_mut`] of values that live, or are meant to be bad.
pub(crate) fn call(number: i64, args: &[usize]) -> Result<i64, Errno> {
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    // SAFETY: the kernel checks every argument; what it writes goes to buffers that the caller holds mutably, as the rule above says.
    let result = unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// Address of a value, for [`call`].
pub(crate) fn at<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>() as usize
}

/// Address of a value that the kernel writes, for [`call`].
pub(crate) fn at_mut<T: ?Sized>(value: &mut T) -> usize {
    std::ptr::from_mut(value).cast::<u8>() as usize
}

/// A path for the kernel.
pub(crate) fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// A descriptor that [`call`] returned.
pub(crate) fn own(fd: i64) -> OwnedFd {
    // SAFETY: the number was just returned by the kernel as a new descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) }
}

/// Two processes from one. The probe has one thread.
pub(crate) fn fork() -> Result<i32, Errno> {
    // SAFETY: this process has one thread, so the child may do everything the parent may.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(Errno::last()) } else { Ok(pid) }
}

/// Ends at once, without anything that a normal exit does.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Default action for every signal, none blocked.
pub(crate) fn reset_signals() {
    for number in 1..32 {
        // SAFETY: the default action is no handler; numbers that cannot be set are refused.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Ignores a signal.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: ignoring is no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// A system call of the 32-bit world, which a filter for 64 bits must not let through: getpid, number 20.
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

/// Writes to every page of a new mapping; how many bytes were reached when the kernel refused.
pub(crate) fn touch_memory(bytes: usize) -> usize {
    const STEP: usize = 1 << 20;
    let mut reached = 0;
    while reached < bytes {
        // SAFETY: a new anonymous mapping, placed by the kernel.
        let place = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STEP,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if place == libc::MAP_FAILED {
            return reached;
        }
        // SAFETY: the mapping above is STEP bytes, writable, and ours alone.
        unsafe { std::ptr::write_bytes(place.cast::<u8>(), 1, STEP) };
        reached += STEP;
    }
    reached
}

/// Maps one page far apart, many times: page tables without memory. How many bytes of address space were reached.
pub(crate) fn touch_page_tables(pages: usize) -> usize {
    /// What one page of the last level of page tables covers.
    const STRIDE: usize = 2 << 20;
    // SAFETY: a new mapping without reserved memory, placed by the kernel.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            STRIDE * pages,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if place == libc::MAP_FAILED {
        return 0;
    }
    // SAFETY: the mapping above; a large page would need no table.
    unsafe { libc::madvise(place, STRIDE * pages, libc::MADV_NOHUGEPAGE) };
    for page in 0..pages {
        // SAFETY: below the length of the mapping; reading a page that was never written gives zeros.
        unsafe { std::ptr::read_volatile(place.cast::<u8>().add(page * STRIDE)) };
    }
    STRIDE * pages
}
