//! How the two daemons are called.

use std::ffi::OsString;

use serde_json::Value;

use super::UpPlan;
use super::children::DaemonPlan;
use super::preflight::Programs;

/// How the variables begin that say where a Supabase project is, and with which keys it is asked.
const PROJECT_VARIABLES: &str = "SUPABASE_";

/// Whether the control plane keeps its records in a Supabase project: then nobody is an admin by themselves.
pub(super) fn is_in_project() -> bool {
    ["SUPABASE_URL", "SUPABASE_URL_FILE", "SUPABASE_REST_URL", "SUPABASE_REST_URL_FILE"]
        .into_iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// The control plane, with everything it keeps in the data dir.
pub(super) fn controlplane_plan(plan: &UpPlan, programs: &Programs) -> DaemonPlan {
    let (data, listen) = (plan.data.clone(), plan.args.listen.clone());
    DaemonPlan {
        name: "controlplane",
        program: programs.controlplane.clone(),
        arguments: Box::new(move |last_ready| {
            // Port 0 was answered by the kernel once; a restart must come back where everyone looks for it.
            let chosen = last_ready.and_then(address).unwrap_or_else(|| listen.clone());
            vec![
                "--listen".into(),
                chosen.into(),
                "--data-dir".into(),
                data.controlplane().into(),
                "--credentials-file".into(),
                data.credentials().into(),
                "--host-credential-file".into(),
                data.host_credential().into(),
            ]
        }),
        withheld: None,
        log: plan.data.log("controlplane"),
    }
}

/// The supervisor. Its shims it finds by itself.
pub(super) fn supervisor_plan(plan: &UpPlan, programs: &Programs) -> DaemonPlan {
    let (data, roots, unsafe_no_jail) = (plan.data.clone(), plan.roots.clone(), plan.args.unsafe_no_jail);
    DaemonPlan {
        name: "supervisor",
        program: programs.supervisor.clone(),
        arguments: Box::new(move |_last_ready| {
            let mut words = vec![
                "run".into(),
                "--state-dir".into(),
                data.supervisor().into(),
                "--credential-file".into(),
                data.host_credential().into(),
            ];
            for root in &roots {
                words.extend(["--workspace-root".into(), root.into()]);
            }
            words.extend(local_degraded());
            words.extend(unsafe_no_jail.then(|| "--unsafe-no-jail".into()));
            words
        }),
        // The keys of a project pass by every rule of its database.
        withheld: Some(PROJECT_VARIABLES),
        log: plan.data.log("supervisor"),
    }
}

/// What of the sandbox may be missing on a machine of one's own, where all sessions are one person's: everything but the namespaces and the
/// system call filter. Sessions say what is missing.
const LOCAL_DEGRADED: [&str; 10] = [
    "landlock",
    "landlock-abi-1",
    "landlock-abi-2",
    "landlock-abi-3",
    "landlock-abi-4",
    "landlock-abi-5",
    "cgroup-hybrid",
    "no-cgroup",
    "no-disk-quota",
    "one-uid",
];

/// The same, as arguments of the supervisor.
pub(super) fn local_degraded() -> [OsString; 2] {
    ["--allow-degraded".into(), LOCAL_DEGRADED.join(",").into()]
}

/// `127.0.0.1:3284` of `{"ready":"http://127.0.0.1:3284"}`.
fn address(ready: &Value) -> Option<String> {
    let url = ready["ready"].as_str()?;
    Some(url.strip_prefix("http://")?.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::UpArgs;
    use crate::datadir::DataDir;

    #[test]
    fn a_restarted_control_plane_comes_back_on_the_port_it_got() {
        let args = UpArgs {
            listen: "127.0.0.1:0".into(),
            detach: false,
            keep_sessions: false,
            unsafe_no_jail: false,
            workspace_roots: Vec::new(),
            background: false,
        };
        let plan = UpPlan { args, data: DataDir::new("/data".into()), roots: vec!["/src".into()], json: false };
        let programs = Programs { controlplane: "c".into(), supervisor: "s".into(), shim: "h".into() };
        let plane = controlplane_plan(&plan, &programs);
        assert_eq!((plane.arguments)(None)[1], "127.0.0.1:0");
        let ready = serde_json::json!({"ready": "http://127.0.0.1:4711"});
        assert_eq!((plane.arguments)(Some(&ready))[1], "127.0.0.1:4711");
        let supervisor = (supervisor_plan(&plan, &programs).arguments)(None);
        assert_eq!(supervisor[5..7], ["--workspace-root", "/src"]);
        assert_eq!(supervisor[7], "--allow-degraded");
    }
}
