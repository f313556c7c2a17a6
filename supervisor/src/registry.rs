//! Every session of this host: finds them, starts them, routes what the control plane wants to them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentapi_shared::SessionId;
use agentapi_shared::link::{Command, CommandError, CommandResult, HostMessage, Outcome, SpawnReport};
use agentapi_shared::runtime::{OnEnd, TaskGroup};
use agentapi_shared::shim::ShimRequest;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::chain;
use crate::context::Context;
use crate::files::{self, SessionFiles};
use crate::plan;
use crate::session::{self, Actor, ActorEnd, Answer, SessionHandle, blocking};
use crate::streams::{self, Orphan, Server};

/// A daemon that starts waits this long for the shims, which are all asked at once.
const ADOPT_PATIENCE: Duration = Duration::from_secs(5);
/// After the grace period a stop waits this long for the last records to be written.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The sessions.
#[derive(Debug)]
pub(crate) struct Registry {
    context: Arc<Context>,
    sessions: Mutex<HashMap<SessionId, SessionHandle>>,
}

impl Registry {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self { context, sessions: Mutex::default() })
    }

    /// What the sessions share.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Tasks of the daemon.
    pub(crate) fn tasks(&self) -> &TaskGroup {
        &self.context.tasks
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, SessionHandle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in every session on disk, all at once. A shim that does not answer in time holds up its own session alone: those are still being
    /// adopted when this is done, and are what it returns.
    pub(crate) async fn restore(self: &Arc<Self>) -> std::io::Result<JoinSet<()>> {
        let mut adoptions = JoinSet::new();
        for id in files::sessions(&self.context.state_dir)? {
            let files = SessionFiles::new(&self.context.state_dir, id);
            match files.record() {
                Ok(record) => self.context.slots.hold(record.slot),
                // Whoever asked for it has no answer, and asks again or wants it gone.
                Err(_) if files.is_unborn().unwrap_or(false) => {
                    if let Err(error) = files.remove() {
                        warn!(session.id = %id, %error, "what a start that was cut off has left could not be removed");
                    }
                    continue;
                }
                Err(error) => {
                    warn!(session.id = %id, %error, "a session's record cannot be read; it is left as it is");
                    // It may live, under its ids.
                    if let Some(slot) = files.owner().ok().and_then(plan::slot_of) {
                        self.context.slots.hold(slot);
                    }
                    continue;
                }
            }
            match session::restore(&self.context, id) {
                Ok((handle, actor, adoption)) => {
                    self.run(id, handle, actor);
                    adoptions.spawn(adoption.wait());
                }
                Err(error) => warn!(session.id = %id, error = chain(&error), "a session could not be restored"),
            }
        }
        let all = async { while adoptions.join_next().await.is_some() {} };
        if timeout(ADOPT_PATIENCE, all).await.is_err() {
            warn!(sessions = adoptions.len(), "some sessions are still being adopted");
        }
        Ok(adoptions)
    }

    /// How many sessions run.
    pub(crate) fn running(&self) -> usize {
        self.living().len()
    }

    /// Keeps a session until it is purged.
    fn run(self: &Arc<Self>, id: SessionId, handle: SessionHandle, actor: Actor) {
        self.lock().insert(id, handle);
        let registry = Arc::downgrade(self);
        let tasks = self.tasks().clone();
        self.tasks().spawn("session", OnEnd::Continue, async move {
            let end = actor.run(tasks).await;
            if let (ActorEnd::Purged, Some(registry)) = (end, registry.upgrade()) {
                registry.lock().remove(&id);
            }
        });
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

    /// Ended spawns whose end the control plane has. Asked before [`Registry::inventory`], which must not wait for the disk.
    pub(crate) async fn known_ends(&self) -> HashSet<(SessionId, u32)> {
        let newest: Vec<SpawnReport> = self.lock().values().filter_map(|handle| handle.view().newest).collect();
        let context = Arc::clone(&self.context);
        let known = blocking(move || {
            let is_known = |spawn: &SpawnReport| {
                spawn.state.is_ended() && !context.outbox.holds_end_of(spawn.session, spawn.spawn).unwrap_or(true)
            };
            Ok(newest.into_iter().filter(is_known).map(|spawn| (spawn.session, spawn.spawn)).collect())
        });
        // An end that is told once more does no harm.
        known.await.unwrap_or_default()
    }

    /// Spawns that live, and ended ones but for those whose end the control plane has. What has ended since that was asked is among them.
    pub(crate) fn inventory(&self, known_ends: &HashSet<(SessionId, u32)>) -> Vec<SpawnReport> {
        let newest: Vec<SpawnReport> = self.lock().values().filter_map(|handle| handle.view().newest).collect();
        newest.into_iter().filter(|spawn| !known_ends.contains(&(spawn.session, spawn.spawn))).collect()
    }

    /// Passes a command on; the reply goes to the link when it is there.
    pub(crate) fn command(self: &Arc<Self>, id: u64, session: SessionId, command: Command) {
        let known = self.lock().get(&session).cloned();
        let queued = match (known, command) {
            (Some(handle), command) => handle.command(command),
            (None, command @ Command::Start(_)) => {
                let (handle, actor) = session::create(&self.context, session);
                self.run(session, handle.clone(), actor);
                handle.command(command)
            }
            (None, Command::Stop { .. } | Command::Purge) => {
                let (done, answered) = tokio::sync::oneshot::channel();
                let _told = done.send(Ok(CommandResult::Done));
                Ok(answered)
            }
            (None, _) => Err(CommandError::new("not_found", "this host does not know the session")),
        };
        let link = self.context.link.clone();
        self.tasks().spawn("reply", OnEnd::Continue, async move {
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
        let handle = self.lock().get(&session).cloned();
        let view = handle.map(|handle| handle.view());
        let shim = view.and_then(|view| view.shim.filter(|_| view.newest.is_some_and(|newest| newest.spawn == spawn)));
        if let Some(shim) = shim {
            let room = self.context.streams.open(stream, session, spawn, limit, Server::Shim(Arc::clone(&shim)));
            if room {
                // If it has just ended, its session finds the stream among the orphans and serves it.
                let _sent = shim.send(&ShimRequest::Watch { stream, from, limit }).await;
                return;
            }
        }
        let files = SessionFiles::new(&self.context.state_dir, session).spawn(spawn);
        if matches!(files.exit(), Ok(Some(_))) {
            let wanted = Orphan { stream, next: from, limit };
            streams::serve_ended(
                self.tasks(),
                &self.context.streams,
                self.context.link.clone(),
                (session, spawn, files),
                wanted,
                true,
            );
            return;
        }
        let error = CommandError::new("not_found", format!("spawn {spawn} has no output on this host"));
        self.context.link.send(&HostMessage::WatchFailed { stream, error }).await;
    }

    /// Stops every session. `counted` hears first how many there are; the result is how many have ended.
    pub(crate) async fn stop_all(&self, grace_ms: u64, counted: impl FnOnce(usize)) -> usize {
        let living = self.living();
        counted(living.len());
        info!(sessions = living.len(), "stopping every session");
        let deadline = Duration::from_millis(grace_ms) + STOP_MARGIN;
        let mut waits = JoinSet::new();
        for (handle, spawn) in living {
            let mut view = handle.watch();
            let stop =
                Command::Stop { spawn: spawn.spawn, generation: spawn.generation, grace_ms, force: grace_ms == 0 };
            let _queued = handle.command(stop);
            waits.spawn(async move {
                let over = view.wait_for(|view| {
                    view.newest.as_ref().is_none_or(|newest| newest.spawn != spawn.spawn || newest.state.is_ended())
                });
                matches!(timeout(deadline, over).await, Ok(Ok(_)))
            });
        }
        waits.join_all().await.into_iter().filter(|ended| *ended).count()
    }
}
