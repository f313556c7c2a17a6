//! A look at the finished root, as the kernel tells it.

use std::fs;

use agentapi_shared::jail::{MountStep, compare_mounts};
use nix::errno::Errno;

use crate::jail::error::JailError;
use crate::jail::userns::errno;

/// Compares every mount of this namespace with the steps.
pub(super) fn mounts(steps: &[MountStep]) -> Result<(), JailError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|e| JailError::step("mounts: list")(errno(e)))?;
    compare_mounts(&table, steps)
        .map_err(|wrong| JailError::Step { step: format!("mounts: check: {wrong}"), source: Errno::EPERM })
}
