//! Secrets in the memory and the limits of the processes around an agent.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use agentapi_tests::wait::eventually;
use anyhow::Result;

use crate::scene::{CREDENTIAL, Scene};

/// Whether a text is anywhere in the writable memory of a process.
pub(crate) fn in_memory(pid: i32, text: &str) -> Result<bool> {
    /// Read at a time.
    const CHUNK: usize = 1 << 20;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[v")) {
        let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) else { continue };
        let (mut at, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        while at < end {
            // A little twice, so that nothing hides at a border.
            let mut chunk = vec![0; CHUNK.min(usize::try_from(end - at)?)];
            let length = memory.read_at(&mut chunk, at).unwrap_or(0);
            if chunk[..length].windows(text.len()).any(|window| window == text.as_bytes()) {
                return Ok(true);
            }
            let step = chunk.len() as u64;
            at += if at + step < end { step - text.len() as u64 } else { step };
        }
    }
    Ok(false)
}

#[tokio::test]
async fn no_process_around_an_agent_holds_what_the_supervisor_holds() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("memory", &["sandbox-probe", "act", "idle"]).await?;
    let members =
        eventually("the agent is there", || async { scene.members(running.session).ok().filter(|all| all.len() >= 2) })
            .await;
    // The control: it is in the supervisor's, whose environment it was put into.
    assert!(in_memory(scene.daemon.pid(), CREDENTIAL)?, "the search finds it where it is");
    let shim = scene.shim(running.session)?.pid;
    for pid in members.iter().map(|process| process.pid).chain([shim]) {
        assert!(!in_memory(pid, CREDENTIAL)?, "process {pid} holds it");
    }
    Ok(())
}

#[tokio::test]
async fn neither_agent_nor_shim_leaves_its_memory_behind() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("core", &["sandbox-probe", "act", "idle"]).await?;
    let members =
        eventually("the agent is there", || async { scene.members(running.session).ok().filter(|all| all.len() >= 2) })
            .await;
    let shim = scene.shim(running.session)?.pid;
    for pid in members.iter().map(|process| process.pid).chain([shim]) {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        // One byte is what switches off even a core that a program of the host would take.
        let limited = words.get(4..6).is_some_and(|limits| limits.iter().all(|limit| ["0", "1"].contains(limit)));
        let closed = fs::metadata(format!("/proc/{pid}/environ"))
            .is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0);
        assert!(limited || closed, "process {pid} may leave a core: {line}");
    }
    Ok(())
}
