//! The programs that make and mend file systems, from e2fsprogs: each in a process of its own, which ends. It has the locked image as its standard
//! input, so that the lock is there as long as it writes, also if whoever started it is gone.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::abort::{Abort, Aborted};

/// Making takes milliseconds.
const MAKE_SECONDS_MAX: &str = "10";
/// Mending takes a second for some 100,000 files.
const MEND_SECONDS_MAX: &str = "120";
/// Where they are: the paths of services often lack the directories of root's programs.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin:/run/current-system/sw/bin";

/// Named one by one, so that it does not depend on this host's mke2fs.conf. The journal is for a crash of the host, and because what is deleted is
/// then given back with each of its commits, in few large pieces: without one each file is, and 10,000 of them take half a minute.
const FEATURES: &str = "none,has_journal,extent,flex_bg,64bit,dir_index,dir_nlink,extra_isize,filetype,huge_file,large_file,metadata_csum,sparse_super";
/// One inode for so many bytes: a million files in 16 GiB, as ext4 has it everywhere. Their tables are holes until they are used.
const BYTES_PER_INODE: &str = "16384";

/// What they work on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) path: &'a Path,
    /// Open, with the lock.
    pub(super) locked: &'a File,
}

/// Why one of them did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// It is not there.
    #[error("disk: {tool} is not installed: apt-get install e2fsprogs")]
    Missing { tool: &'static str },
    /// It could not be run.
    #[error("disk: cannot run {tool}")]
    Run { tool: &'static str, source: io::Error },
    /// It is not wanted any more.
    #[error(transparent)]
    Aborted(#[from] Aborted),
    /// It says no.
    #[error("disk: {tool}: {words}")]
    Failed { tool: &'static str, words: String },
}

/// Journal of disks in MiB: the least there is for small ones; more than this nobody waits for, and all of it is used sooner or later.
const JOURNAL_MB: (&str, &str) = ("size=4", "size=16");
/// Disks from here on are not small.
const SMALL_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Makes a file system on a locked image of this size.
pub(super) fn make(image: Image<'_>, bytes: u64, abort: &Abort) -> Result<(), ToolError> {
    const TOOL: &str = "mkfs.ext4";
    let journal = if bytes < SMALL_BYTES_MAX { JOURNAL_MB.0 } else { JOURNAL_MB.1 };
    let options = ["-q", "-F", "-b", "4096", "-i", BYTES_PER_INODE, "-m", "0", "-O", FEATURES, "-J", journal];
    // Errors stop writing, so that they do not spread. The image is all zeroes: neither journal nor tables have to be written.
    let more = ["-e", "remount-ro", "-E", "discard,lazy_journal_init=1,root_owner=0:0"];
    let tool = Tool { name: TOOL, seconds_max: MAKE_SECONDS_MAX, options: &[&options[..], &more[..]].concat() };
    let output = run(tool, image, abort)?;
    if output.status.success() { Ok(()) } else { Err(failed(TOOL, &output)) }
}

/// Mends a locked one, as far as that goes without anybody to ask.
pub(super) fn mend(image: Image<'_>, abort: &Abort) -> Result<(), ToolError> {
    const TOOL: &str = "e2fsck";
    // From here on, errors are left.
    const LEFT: i32 = 4;
    let tool = Tool { name: TOOL, seconds_max: MEND_SECONDS_MAX, options: &["-f", "-y"] };
    let output = run(tool, image, abort)?;
    if output.status.code().is_some_and(|code| code < LEFT) { Ok(()) } else { Err(failed(TOOL, &output)) }
}

/// One of them, as it is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool<'a> {
    pub(super) name: &'static str,
    pub(super) seconds_max: &'static str,
    pub(super) options: &'a [&'a str],
}

pub(super) fn run(
    Tool { name, seconds_max, options }: Tool<'_>,
    image: Image<'_>,
    abort: &Abort,
) -> Result<Output, ToolError> {
    // What timeout(1) says where there is no such program.
    const NOT_FOUND: i32 = 127;
    let failed_to_run = |source| ToolError::Run { tool: name, source };
    abort.check()?;
    let mut tool = Command::new("timeout")
        .args(["-k", "1", seconds_max, name])
        .args(options)
        .arg(image.path)
        .env_clear()
        .env("PATH", PATH)
        .process_group(0)
        .stdin(Stdio::from(image.locked.try_clone().map_err(failed_to_run)?))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed_to_run)?;
    let group = Pid::from_raw(tool.id().cast_signed());
    // timeout(1) kills what has not ended a second after it was asked to. The tool is asked too: versions of timeout(1) that are asked just after
    // they have started it end without it.
    let watched = abort.watch(move || {
        let _ended = killpg(group, Signal::SIGTERM);
    });
    let mut said = Vec::new();
    let read = tool.stderr.take().map_or(Ok(0), |mut stderr| stderr.read_to_end(&mut said));
    let ended = waitid(Id::Pid(group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    // Once it is reaped, others can have its number.
    let wanted = watched.and(abort.watch(|| {}));
    let status = tool.wait().map_err(failed_to_run)?;
    wanted?;
    read.and(ended.map_err(io::Error::from)).map_err(failed_to_run)?;
    let output = Output { status, stdout: Vec::new(), stderr: said };
    if output.status.code() == Some(NOT_FOUND) { Err(ToolError::Missing { tool: name }) } else { Ok(output) }
}

fn failed(tool: &'static str, output: &Output) -> ToolError {
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let words = if said.is_empty() { output.status.to_string() } else { said };
    ToolError::Failed { tool, words }
}
