//! The session's own disk, which comes as a mount that is attached nowhere, and its directories.
//!
//! A part of a mount can be had only where that mount is attached (before Linux 6.15), so for a moment it is, in this namespace alone.

use std::os::fd::OwnedFd;
use std::path::Path;

use agentapi_shared::jail::MountStep;
use nix::mount::{MntFlags, umount2};

use super::{BASE, describe};
use crate::jail::error::JailError;
use crate::sys::{self, Attributes};

/// A detached tree for each of the steps that show a directory of the disk, in their order. Afterwards the disk is nowhere else.
pub(super) fn directories(disk: Option<OwnedFd>, steps: &[MountStep]) -> Result<Vec<OwnedFd>, JailError> {
    let Some(disk) = disk else { return Ok(Vec::new()) };
    let base = Path::new(BASE);
    sys::move_mount(&disk, base).map_err(JailError::step("disk: attach"))?;
    let mut trees = Vec::new();
    for step in steps {
        if let MountStep::Disk { dir, .. } = step {
            let failed = |source| JailError::Step { step: describe(step), source };
            let tree = sys::open_tree(&base.join(dir.name()), false).map_err(failed)?;
            let attributes = Attributes { no_devices: true, ..Attributes::default() };
            sys::set_attributes(&tree, attributes, false).map_err(failed)?;
            trees.push(tree);
        }
    }
    umount2(base, MntFlags::MNT_DETACH).map_err(JailError::step("disk: detach"))?;
    Ok(trees)
}
