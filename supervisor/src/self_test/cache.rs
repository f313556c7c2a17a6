//! What the self-test has found once, and for what: as long as that is the same it need not be found again. Only that it held is kept.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Bench;
use crate::files;
use crate::host;
use crate::settings::Settings;
use crate::versions::Stamp;

/// In the state directory.
const FILE: &str = "self-test.json";

/// Everything that a jail is made of. Compared as it is: no hash says which part is another one.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    boot_id: String,
    /// Programs by what their files are: the time of change is the kernel's own.
    supervisor: Stamp,
    shim: Stamp,
    /// What the operator has said, in his file and on the command line.
    settings: String,
    /// What the host has.
    ground: String,
}

impl Known {
    /// As it is now.
    pub(super) fn now(bench: &Bench<'_>, settings: &Settings) -> io::Result<Self> {
        Ok(Self {
            boot_id: host::boot_id(),
            supervisor: Stamp::of(Path::new("/proc/self/exe"))?,
            shim: Stamp::of(bench.shim)?,
            settings: format!("{settings:?} {:?}", bench.exposure),
            ground: format!("{:?}", bench.ground),
        })
    }

    /// Whether the sandbox held when everything was as it is now.
    pub(super) fn is_kept(&self, state_dir: &Path) -> bool {
        files::read_json::<Self>(&state_dir.join(FILE)).is_ok_and(|kept| kept == *self)
    }

    /// It held.
    pub(super) fn keep(&self, state_dir: &Path) -> io::Result<()> {
        files::write_json(&state_dir.join(FILE), self)
    }
}
