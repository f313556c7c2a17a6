//! What a spawn's jail was made from, kept beside its record, so that `doctor --session` can compare what is with what was meant.

use std::fs;
use std::path::PathBuf;

use agentapi_shared::jail::JailPlan;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Place, Write};
use crate::proc::field;

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Promise {
    /// The plan, without the program: its environment holds secrets.
    pub(crate) plan: JailPlan,
    /// Filters of system calls on each process: the jail's own, and those that the supervisor itself is under.
    pub(crate) filters: u32,
    /// Its groups, by the directories in which processes are.
    pub(crate) groups: Vec<PathBuf>,
    /// What was written into their files.
    pub(crate) limits: Vec<Write>,
}

impl Promise {
    /// Of a spawn that is about to be started.
    pub(crate) fn of(plan: &JailPlan, place: Option<&Place>) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let inherited: u32 = field(&status, "Seccomp_filters").parse().unwrap_or(0);
        let mut plan = plan.clone();
        plan.exec.argv = Vec::new();
        plan.exec.env = Vec::new();
        Self {
            filters: inherited + u32::from(plan.filter.is_some()),
            groups: place.map(Place::of_processes).unwrap_or_default(),
            limits: place.map(|place| place.writes().to_vec()).unwrap_or_default(),
            plan,
        }
    }
}
