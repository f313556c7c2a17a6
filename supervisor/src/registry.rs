//! Every session of this host: finds them, starts them, routes what the control plane wants to them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use agentapi_shared::SessionId;
use agentapi_shared::jail::SLOTS_MAX;
use agentapi_shared::link::{Command, CommandError, CommandResult, HostMessage, Outcome, SpawnReport};
use agentapi_shared::runtime::{OnEnd, TaskGroup};
use agentapi_shared::shim::ShimRequest;
use tracing::{info, warn};

use crate::chain;
use crate::daemon::Context;
use crate::files::{self, SessionFiles};
use crate::session::{self, Answer, SessionHandle};
use crate::streams::{self, Orphan, Server};

/// The block of host ids that no session gets: agents are asked for their versions with it.
pub(crate) const PROBE_SLOT: u32 = SLOTS_MAX - 1;
/// After the grace period a stop waits this long for the last records to be written.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The sessions.
#[derive(Debug)]
pub(crate) struct Registry {
    context: Weak<Context>,
    tasks: TaskGroup,
    sessions: Mutex<HashMap<SessionId, SessionHandle>>,
    slots: Mutex<BTreeSet<u32>>,
}

impl Registry {
    pub(crate) fn new(context: Weak<Context>, tasks: TaskGroup) -> Self {
        Self { context, tasks, sessions: Mutex::default(), slots: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, SessionHandle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in every session on disk, all at once; how many of them run.
    pub(crate) async fn restore(&self, context: &Arc<Context>) -> std::io::Result<usize> {
        let mut found = tokio::task::JoinSet::new();
        for id in files::sessions(&context.state_dir)? {
            match SessionFiles::new(&context.state_dir, id).record() {
                Ok(record) => {
                    self.slots().insert(record.slot);
                    let (context, tasks) = (Arc::clone(context), self.tasks.clone());
                    found.spawn(async move { (id, session::restore(&context, &tasks, id).await) });
                }
                Err(error) => warn!(session.id = %id, %error, "a session's record cannot be read; it is left as it is"),
            }
        }
        for (id, restored) in found.join_all().await {
            match restored {
                Ok(handle) => {
                    self.lock().insert(id, handle);
                }
                Err(error) => warn!(session.id = %id, error = chain(&error), "a session could not be restored"),
            }
        }
        Ok(self.living().len())
    }

    /// The lowest block of host ids that no session holds.
    pub(crate) fn take_slot(&self) -> Option<u32> {
        let mut slots = self.slots();
        let free = (0..PROBE_SLOT).find(|slot| !slots.contains(slot))?;
        slots.insert(free);
        Some(free)
    }

    pub(crate) fn release_slot(&self, slot: u32) {
        self.slots().remove(&slot);
    }

    /// A purged session.
    pub(crate) fn forget(&self, id: SessionId) {
        self.lock().remove(&id);
    }

    fn living(&self) -> Vec<(SessionHandle, SpawnReport)> {
        let handles: Vec<SessionHandle> = self.lock().values().cloned().collect();
        handles
            .into_iter()
            .filter_map(|handle| {
                handle.view().newest.filter(|spawn| !spawn.state.is_ended()).map(|spawn| (handle, spawn))
            })
            .collect()
    }

    /// Spawns that live, and ended ones whose end the control plane does not know yet.
    pub(crate) fn inventory(&self, context: &Context) -> Vec<SpawnReport> {
        let newest: Vec<SpawnReport> = self.lock().values().filter_map(|handle| handle.view().newest).collect();
        let unknown_end = |spawn: &SpawnReport| context.outbox.holds_end_of(spawn.session, spawn.spawn).unwrap_or(true);
        newest.into_iter().filter(|spawn| !spawn.state.is_ended() || unknown_end(spawn)).collect()
    }

    /// Passes a command on; the reply goes to the link when it is there.
    pub(crate) fn command(&self, id: u64, session: SessionId, command: Command) {
        let Some(context) = self.context.upgrade() else { return };
        let known = self.lock().get(&session).cloned();
        let queued = match (known, command) {
            (Some(handle), command) => handle.command(command),
            (None, command @ Command::Start(_)) => {
                let handle = session::spawn(&context, &self.tasks, session);
                self.lock().insert(session, handle.clone());
                handle.command(command)
            }
            (None, Command::Stop { .. } | Command::Purge) => {
                let (done, answered) = tokio::sync::oneshot::channel();
                let _told = done.send(Ok(CommandResult::Done));
                Ok(answered)
            }
            (None, _) => Err(CommandError::new("not_found", "this host does not know the session")),
        };
        let link = context.link.clone();
        self.tasks.spawn("reply", OnEnd::Continue, async move {
            let answer: Answer = match queued {
                Ok(answered) => {
                    answered.await.unwrap_or_else(|_| Err(CommandError::new("internal", "the session's task ended")))
                }
                Err(error) => Err(error),
            };
            let outcome = answer.map_or_else(Outcome::Error, Outcome::Done);
            link.send(&HostMessage::Reply { id, outcome }).await;
        });
    }

    /// Opens a stream.
    pub(crate) async fn watch(&self, stream: u32, session: SessionId, spawn: u32, from: Option<u64>, limit: u64) {
        let Some(context) = self.context.upgrade() else { return };
        let handle = self.lock().get(&session).cloned();
        let view = handle.map(|handle| handle.view());
        let shim = view.and_then(|view| view.shim.filter(|_| view.newest.is_some_and(|newest| newest.spawn == spawn)));
        if let Some(shim) = shim {
            let room = context.streams.open(stream, session, spawn, limit, Server::Shim(Arc::clone(&shim)));
            if room {
                // If it has just ended, its session finds the stream among the orphans and serves it.
                let _sent = shim.send(&ShimRequest::Watch { stream, from, limit }).await;
                return;
            }
        }
        let files = SessionFiles::new(&context.state_dir, session).spawn(spawn);
        if matches!(files.exit(), Ok(Some(_))) {
            let wanted = Orphan { stream, next: from, limit };
            streams::serve_ended(
                &self.tasks,
                &context.streams,
                context.link.clone(),
                (session, spawn, files),
                wanted,
                true,
            );
            return;
        }
        let error = CommandError::new("not_found", format!("spawn {spawn} has no output on this host"));
        context.link.send(&HostMessage::WatchFailed { stream, error }).await;
    }

    /// Stops every session. `counted` hears first how many there are; the result is how many have ended.
    pub(crate) async fn stop_all(&self, grace_ms: u64, counted: impl FnOnce(usize)) -> usize {
        let living = self.living();
        counted(living.len());
        info!(sessions = living.len(), "stopping every session");
        let deadline = Duration::from_millis(grace_ms) + STOP_MARGIN;
        let mut waits = tokio::task::JoinSet::new();
        for (handle, spawn) in living {
            let mut view = handle.watch();
            let stop =
                Command::Stop { spawn: spawn.spawn, generation: spawn.generation, grace_ms, force: grace_ms == 0 };
            let _queued = handle.command(stop);
            waits.spawn(async move {
                let over = view.wait_for(|view| {
                    view.newest.as_ref().is_none_or(|newest| newest.spawn != spawn.spawn || newest.state.is_ended())
                });
                matches!(tokio::time::timeout(deadline, over).await, Ok(Ok(_)))
            });
        }
        waits.join_all().await.into_iter().filter(|ended| *ended).count()
    }
}
