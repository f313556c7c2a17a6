//! Attempts on secrets: those of the host's daemons, of other sessions, of the model's provider.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use agentapi_tests::attempt::Params;
use nix::sys::resource::Resource;
use nix::sys::wait::WaitStatus;

use crate::outcome::{Row, Seen};
use crate::run::in_child;

pub(crate) const ROWS: &[Row] = &[
    Row { number: 71, name: "secret.environments", make: environments },
    Row { number: 71, name: "secret.arguments", make: arguments },
    Row { number: 71, name: "secret.files", make: files },
    Row { number: 74, name: "secret.core_dump", make: core_dump },
    Row { number: 75, name: "secret.own_environment", make: own_environment },
    Row { number: 76, name: "secret.private_keys", make: private_keys },
];
/// Files looked at, so that a large HOME does not take forever.
const FILES_MAX: usize = 4000;
/// A larger file holds no key.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn of_processes(file: &str, params: &Params) -> Seen {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = all.filter(|entry| {
        // What the probe itself was told is no secret of others.
        entry.file_name().to_string_lossy() != "self"
            && fs::read(entry.path().join(file))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&params.credential))
    });
    let found: Vec<String> = found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    Seen::open_if(!found.is_empty(), "absent", found.join(" "))
}

fn environments(params: &Params) -> Seen {
    of_processes("environ", params)
}

fn arguments(params: &Params) -> Seen {
    of_processes("cmdline", params)
}

fn own_environment(params: &Params) -> Seen {
    let named: Vec<String> =
        std::env::vars().filter(|(_, value)| value.contains(&params.credential)).map(|(name, _)| name).collect();
    Seen::open_if(!named.is_empty(), "absent", named.join(" "))
}

/// Files below some directories, links not followed, nothing that is not a file.
fn walk(dirs: &[&str]) -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = dirs.iter().map(PathBuf::from).collect();
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && !kind.is_socket() {
                found.push(entry.path());
            }
        }
        if found.len() > FILES_MAX {
            break;
        }
    }
    found
}

fn holds(path: &Path, what: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() <= FILE_BYTES_MAX)
        && fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(what))
}

fn search(params: &Params, what: &str, skip: &[&str]) -> Seen {
    let mut dirs = vec![params.home.as_str(), "/run", "/tmp", "/var/tmp", "/dev/shm", "/etc/agentapi", "/root"];
    // The bare host's control looks where its own bait lies.
    dirs.extend(params.shared_files.iter().filter_map(|path| Path::new(path).parent()?.to_str()));
    let found: Vec<String> = walk(&dirs)
        .into_iter()
        .filter(|path| !skip.iter().any(|name| path.ends_with(name)) && holds(path, what))
        .map(|path| path.display().to_string())
        .collect();
    Seen::open_if(!found.is_empty(), "absent", found.join(" "))
}

fn files(params: &Params) -> Seen {
    search(params, &params.credential, &[agentapi_tests::attempt::PARAMS_FILE])
}

fn private_keys(params: &Params) -> Seen {
    // In two parts, or the probe would find itself.
    search(params, concat!("PRIVATE ", "KEY-----"), &[])
}

/// Dies as programs do that leave their memory behind.
fn core_dump(params: &Params) -> Seen {
    crate::resources::raise(Resource::RLIMIT_CORE);
    let _here = std::env::set_current_dir(&params.workspace);
    let dumped = in_child(|| {
        let _raised = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV);
        0
    });
    match dumped {
        Ok(WaitStatus::Signaled(_, _, dumped)) => Seen::open_if(dumped, "no_dump", ""),
        other => Seen::held("FAILED").with(format!("{other:?}")),
    }
}
