//! The life of a spawn as its session sees it: its shim is found and connected to, comes back when the connection breaks, and its end is noted.

use std::io;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::link::{CommandError, HostMessage};
use agentapi_shared::runtime::TaskGroup;
use agentapi_shared::{Exit, ExitReason, SpawnState};
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Live, Session, SessionView, blocking};
use crate::chain;
use crate::files::{SpawnFiles, SpawnRecord};
use crate::shim_client::{self, ShimEnd};
use crate::streams;

/// Between attempts to reach a shim that lives and does not answer.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

impl Session {
    /// Finds the newest spawn of a session that is on disk: its shim, or its end.
    pub(super) async fn adopt(&mut self, tasks: &TaskGroup) -> io::Result<()> {
        let Some(number) = self.files.spawns()?.pop() else { return self.clear_groups().await };
        let files = self.files.spawn(number);
        let record = match files.record() {
            Ok(record) => record,
            // It may live, and is then left as it is.
            Err(error) if files.is_held()? => return Err(error),
            Err(_) => return self.clear_groups().await,
        };
        if files.exit()?.is_none() {
            if files.is_held()? {
                // It is there, also while its shim does not answer: nobody is to think that it is lost.
                let newest = Some(self.report_of(&record, SpawnState::Running));
                self.view.send_replace(SessionView { newest, shim: None });
            }
            match self.connect_living(&files, &record, tasks).await {
                Ok(()) => {
                    info!(session.id = %self.id, spawn = number, "running spawn adopted");
                    self.renew_egress(&files).await;
                    self.report().await;
                    if let Some(served) = self.serve_egress(&files) {
                        served.await;
                    }
                    self.audit("spawn.readopted", number).await;
                    return Ok(());
                }
                Err(error) => info!(session.id = %self.id, spawn = number, %error, "spawn has no shim any more"),
            }
        }
        self.conclude(&record, tasks).await;
        Ok(())
    }

    /// Connects to the shim of a spawn and takes it as the living one.
    pub(super) async fn connect(
        &mut self,
        files: &SpawnFiles,
        mut record: SpawnRecord,
        tasks: &TaskGroup,
    ) -> io::Result<()> {
        let (told, ended) = oneshot::channel();
        let context = &self.context;
        let (link, streams, scratch) = (context.link.clone(), Arc::clone(&context.streams), context.shim_bytes.clone());
        let (shim, hello) =
            shim_client::connect(files, tasks, link, streams, scratch, told, (self.id, record.number)).await?;
        record.size = hello.size;
        self.live = Some(Live { record, state: SpawnState::Running, shim, ended, kill_at: None });
        self.publish();
        Ok(())
    }

    /// The same, as often as it takes while the shim lives: a spawn is never given up because a connection failed.
    async fn connect_living(&mut self, files: &SpawnFiles, record: &SpawnRecord, tasks: &TaskGroup) -> io::Result<()> {
        loop {
            match self.connect(files, record.clone(), tasks).await {
                Err(error) if files.is_held()? => {
                    warn!(session.id = %self.id, spawn = record.number, %error, "a living shim does not answer, trying again");
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
                settled => return settled,
            }
        }
    }

    pub(super) async fn ended(&mut self, end: ShimEnd, tasks: &TaskGroup) {
        let Some(live) = self.live.take() else { return };
        let files = self.files.spawn(live.record.number);
        let unknown = matches!(end, ShimEnd::Gone) && matches!(files.exit(), Ok(None));
        // A connection can break without its shim: then the spawn lives on, and its streams start anew.
        if unknown && self.connect_living(&files, &live.record, tasks).await.is_ok() {
            warn!(session.id = %self.id, "the connection to a shim broke and was made again");
            for orphan in self.context.streams.orphans(self.id, live.record.number) {
                let error = CommandError::new("interrupted", "the connection to the session's terminal broke");
                self.context.link.send(&HostMessage::WatchFailed { stream: orphan.stream, error }).await;
            }
            return;
        }
        self.conclude(&live.record, tasks).await;
    }

    /// Notes the end of a spawn, making its records first if its shim was killed; its streams are served from the journal from here on.
    pub(super) async fn conclude(&mut self, record: &SpawnRecord, tasks: &TaskGroup) {
        self.conclude_with(record, None, tasks).await;
    }

    /// The same, for an end whose reason is known here better than from the records.
    pub(super) async fn conclude_with(&mut self, record: &SpawnRecord, known: Option<Exit>, tasks: &TaskGroup) {
        // Before it is released: it would be served afterwards.
        self.serving = None;
        if let Err(error) = self.clear_groups().await {
            warn!(session.id = %self.id, %error, "what a spawn has left could not be ended");
        }
        self.context.gateway.release(self.id, record.number).await;
        let files = self.files.spawn(record.number);
        if matches!(files.exit(), Ok(None)) {
            recover(&self.context.shim, &files, record.number).await;
        }
        let (found, ended_at) = match files.exit() {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => (no_record(), OffsetDateTime::now_utc()),
        };
        let mut exit = known.unwrap_or(found);
        if exit.reason == ExitReason::ShimLost && record.boot_id != self.context.boot_id {
            exit.reason = ExitReason::HostRebooted;
            exit.detail = "the host was rebooted under the session; restart it".to_owned();
        }
        let mut report =
            self.report_of(record, if exit.reason.is_exit() { SpawnState::Exited } else { SpawnState::Failed });
        info!(session.id = %self.id, spawn = record.number, reason = ?exit.reason, "spawn ended");
        report.ended_at = Some(ended_at);
        report.exit = Some(exit);
        // On disk before anybody hears of it, and disks may be slow: others type meanwhile.
        let (context, noted) = (Arc::clone(&self.context), report.clone());
        if let Err(error) = blocking(move || context.outbox.ended(&noted).map_err(io::Error::other)).await {
            warn!(session.id = %self.id, error = chain(&error), "the end of a spawn could not be put into the outbox");
        }
        self.view.send_replace(SessionView { newest: Some(report), shim: None });
        let context = &self.context;
        for orphan in context.streams.orphans(self.id, record.number) {
            let spawn = (self.id, record.number, files.clone());
            streams::serve_ended(tasks, &context.streams, context.link.clone(), spawn, orphan, orphan.next.is_none());
        }
    }

    /// Ends every process that the session may still have, and removes its control groups.
    pub(super) async fn clear_groups(&self) -> io::Result<()> {
        let (cgroups, session) = (self.context.cgroups.clone(), self.id);
        blocking(move || cgroups.clear(session).map_err(io::Error::other)).await
    }
}

fn no_record() -> Exit {
    let detail = "the session's terminal process was killed and left no record".to_owned();
    Exit { code: None, signal: None, reason: ExitReason::ShimLost, detail }
}

/// Has the shim program write the records of a spawn from its journal: the bytes in it are parsed in a process of their own.
async fn recover(shim: &std::path::Path, files: &SpawnFiles, number: u32) {
    let (shim, dir): (PathBuf, PathBuf) = (shim.to_owned(), files.path().to_owned());
    let run = move || {
        Process::new(shim)
            .arg("recover")
            .arg(dir)
            .arg(number.to_string())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    match blocking(run).await {
        Ok(status) if status.success() => {}
        Ok(status) => warn!(%status, "the records of a lost spawn could not be made"),
        Err(error) => warn!(%error, "the records of a lost spawn could not be made"),
    }
}
