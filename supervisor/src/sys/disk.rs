//! Loop devices, and mounts that are attached nowhere (Linux 5.8 and 5.2).

use std::ffi::CStr;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
/// The device lets go of its file with the last who uses it.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Past the page cache of the file's own file system, where that can do it.
const LO_FLAGS_DIRECT_IO: u32 = 16;

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// `struct loop_info64`, of which only the flags are used here.
#[repr(C)]
struct LoopInfo {
    _identity_and_range: [u64; 5],
    _number_and_encryption: [u32; 3],
    flags: u32,
    _names_and_key: [u8; 160],
    _init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    file: u32,
    block_bytes: u32,
    info: LoopInfo,
    _reserved: [u64; 8],
}
// As the kernel has them.
const _: () = assert!(mem::size_of::<LoopInfo>() == 232 && mem::size_of::<LoopConfig>() == 304);

/// Number of a loop device that nobody uses; somebody else may be faster.
pub(crate) fn free_loop(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: this request takes no argument.
    let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u32::try_from(number).map_err(|_| Errno::ERANGE)
}

/// Has a loop device show a file, until nobody uses the device any more. `EBUSY`: somebody was faster.
pub(crate) fn configure_loop(device: BorrowedFd<'_>, file: BorrowedFd<'_>, block_bytes: u32) -> Result<(), Errno> {
    let info = LoopInfo {
        _identity_and_range: [0; 5],
        _number_and_encryption: [0; 3],
        flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
        _names_and_key: [0; 160],
        _init: [0; 2],
    };
    let file = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let config = LoopConfig { file, block_bytes, info, _reserved: [0; 8] };
    // SAFETY: the kernel reads one loop_config, which has the size asserted above and lives until the call has returned.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

/// Mounts a file system from a device, attached nowhere: it is there as long as the descriptor, or what was attached of it. No set-user-ID bits, no
/// devices.
pub(crate) fn mount_detached(kind: &CStr, device: &CStr, flags: &[&CStr]) -> Result<OwnedFd, Errno> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    let context = own(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    configure(&context, FSCONFIG_SET_STRING, Some(c"source"), Some(device))?;
    for flag in flags {
        configure(&context, FSCONFIG_SET_FLAG, Some(flag), None)?;
    }
    configure(&context, FSCONFIG_CMD_CREATE, None, None)?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    // SAFETY: takes a descriptor that is open and two numbers.
    own(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

fn configure(context: &OwnedFd, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>) -> Result<(), Errno> {
    let (key, value) = (key.map_or(std::ptr::null(), CStr::as_ptr), value.map_or(std::ptr::null(), CStr::as_ptr));
    let auxiliary: libc::c_int = 0;
    // SAFETY: both are NUL-terminated strings that outlive the call, or null where the command takes none.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, auxiliary) })
        .map(drop)
}

/// Owns what a call has made.
fn own(made: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(Errno::result(made)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
