//! Which version of Landlock jails can use here.

use nix::errno::Errno;

use crate::sys;

/// The newest version that the shim knows how to use all of.
pub(crate) const ABI_MAX: u32 = 10;

/// The version for plans, as the kernel tells it; an error if it has none (`ENOSYS`) or it is off (`EOPNOTSUPP`).
pub(crate) fn version() -> Result<u32, Errno> {
    Ok(sys::landlock_version()?.min(ABI_MAX))
}
