//! One session: an actor that owns its record, its living spawn and the order of its commands.
//!
//! Everything about a session happens in its task, one thing after another. What others may know is in its [`SessionView`].

use std::io;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentapi_shared::link::{Command, CommandError, CommandResult, HostMessage, OutboxItem, SpawnReport};
use agentapi_shared::runtime::TaskGroup;
use agentapi_shared::shim::{ShimOutcome, ShimRequest, ShimStarted};
use agentapi_shared::{EventId, SessionId, SpawnState};
use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::abort::Abort;
use crate::chain;
use crate::context::Context;
use crate::files::{SessionFiles, SessionRecord, SpawnRecord};
use crate::shim_client::{ShimClient, ShimEnd};

mod disk;
mod egress;
mod inbox;
mod life;
mod start;
mod stop;

use inbox::{Asked, Busy, Inbox};
use stop::{Adopting, Stop};

/// A shim that has told the end of its spawn is over after milliseconds.
const SHIM_END_PATIENCE: Duration = Duration::from_secs(2);
/// Between looks at it.
const SHIM_END_PAUSE: Duration = Duration::from_millis(20);

/// The outcome of a command.
pub(crate) type Answer = Result<CommandResult, CommandError>;

/// What others may know of a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionView {
    /// The newest spawn.
    pub(crate) newest: Option<SpawnReport>,
    /// The shim of the living one.
    pub(crate) shim: Option<Arc<ShimClient>>,
}

/// To a session's actor.
#[derive(Debug, Clone)]
pub(crate) struct SessionHandle {
    commands: mpsc::Sender<Asked>,
    view: watch::Receiver<SessionView>,
}

impl SessionHandle {
    /// Queues a command; its answer comes later.
    pub(crate) fn command(&self, command: Command) -> Result<oneshot::Receiver<Answer>, CommandError> {
        let (answer, answered) = oneshot::channel();
        match self.commands.try_send((command, answer)) {
            Ok(()) => Ok(answered),
            Err(mpsc::error::TrySendError::Full(_)) => Err(inbox::full()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(CommandError::new("not_found", "the session was purged")),
        }
    }

    pub(crate) fn view(&self) -> SessionView {
        self.view.borrow().clone()
    }

    /// Follows what becomes of the session.
    pub(crate) fn watch(&self) -> watch::Receiver<SessionView> {
        self.view.clone()
    }
}

/// A future that a session's task polls. The lock is never taken: with it a session can be referred to from futures that move between threads.
type Waiting<T> = Mutex<BoxFuture<'static, T>>;
/// What starting a shim came to.
type Launched = io::Result<(ShimStarted, Child)>;

/// A spawn whose shim has not said yet that its program runs.
struct Starting {
    record: SpawnRecord,
    launched: Waiting<Launched>,
    abort: Abort,
    /// What it will be asked once it runs; it is given up if it does not in time.
    stop: Option<Stop>,
}

struct Live {
    record: SpawnRecord,
    state: SpawnState,
    shim: Arc<ShimClient>,
    ended: oneshot::Receiver<ShimEnd>,
    /// When what runs is killed from here, if it does not end as it was asked to.
    kill_at: Option<Instant>,
}

struct Session {
    context: Arc<Context>,
    id: SessionId,
    files: SessionFiles,
    record: Option<SessionRecord>,
    starting: Option<Starting>,
    live: Option<Live>,
    /// On the way to have the living spawn's egress served.
    serving: Option<Waiting<()>>,
    view: watch::Sender<SessionView>,
    purged: bool,
}

/// What a session does; to be run by whoever keeps its handle.
pub(crate) struct Actor {
    session: Session,
    inbox: Inbox,
    /// Of a session found on disk: told once its spawn is adopted or its end noted.
    adopted: Option<oneshot::Sender<()>>,
}

/// Why an actor came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActorEnd {
    /// The session is gone.
    Purged,
    /// The daemon ends; the session goes on.
    Daemon,
}

/// A session that may not exist on disk yet.
pub(crate) fn create(context: &Arc<Context>, id: SessionId) -> (SessionHandle, Actor) {
    let (commands, queue) = mpsc::channel(inbox::COMMANDS_MAX);
    let view = watch::Sender::new(SessionView::default());
    let handle = SessionHandle { commands, view: view.subscribe() };
    (handle, Actor { session: new_session(context, id, view), inbox: Inbox::new(queue), adopted: None })
}

/// A session found on disk. `Adoption` resolves when its spawn is adopted or its end noted.
pub(crate) fn restore(context: &Arc<Context>, id: SessionId) -> io::Result<(SessionHandle, Actor, Adoption)> {
    let (handle, mut actor) = create(context, id);
    actor.session.record = Some(actor.session.files.record()?);
    let (done, adopted) = oneshot::channel();
    actor.adopted = Some(done);
    Ok((handle, actor, Adoption(adopted)))
}

/// See [`restore`].
pub(crate) struct Adoption(oneshot::Receiver<()>);

impl Adoption {
    /// Until the shim has answered or is over. A shim that lives may take for ever.
    pub(crate) async fn wait(self) {
        // An actor that is gone adopts nothing more.
        let _adopted = self.0.await;
    }
}

impl Actor {
    /// Runs until the session is purged or the daemon ends.
    pub(crate) async fn run(mut self, tasks: TaskGroup) -> ActorEnd {
        if let Some(adopted) = self.adopted.take() {
            let mut adopting = Adopting::new(&self.session);
            let done = tokio::select! {
                done = self.session.adopt(&tasks) => done,
                () = adopting.hear(&mut self.inbox) => Ok(()),
            };
            if let Err(error) = done {
                warn!(session.id = %self.session.id, %error, "a session's newest spawn cannot be read");
            }
            // Whoever waited may have given up.
            let _told = adopted.send(());
            if let Some((spawn, generation, stop)) = adopting.stop()
                && let Err(error) = self.session.stop(spawn, generation, stop).await
            {
                warn!(session.id = %self.session.id, %error, "a session could not be stopped");
            }
        }
        self.session.run(self.inbox, tasks).await
    }
}

fn new_session(context: &Arc<Context>, id: SessionId, view: watch::Sender<SessionView>) -> Session {
    let files = SessionFiles::new(&context.state_dir, id);
    let context = Arc::clone(context);
    Session { context, id, files, record: None, starting: None, live: None, serving: None, view, purged: false }
}

impl Session {
    async fn run(mut self, mut inbox: Inbox, tasks: TaskGroup) -> ActorEnd {
        let shutdown = tasks.cancelled();
        while !self.purged {
            let kill_at = self.kill_at();
            let overdue = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let Self { starting, live, serving, .. } = &mut self;
            let busy = if starting.is_some() { Busy::Yes } else { Busy::No };
            let launched = async {
                match starting {
                    Some(starting) => starting.launched.get_mut().unwrap_or_else(PoisonError::into_inner).await,
                    None => std::future::pending().await,
                }
            };
            let ended = async {
                match live {
                    Some(live) => (&mut live.ended).await.unwrap_or(ShimEnd::Gone),
                    None => std::future::pending().await,
                }
            };
            let served = async {
                match serving {
                    Some(serving) => serving.get_mut().unwrap_or_else(PoisonError::into_inner).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // First: the daemon's end ends the connection as well, and says nothing about the shim. A start is waited for: its record is to be whole.
                biased;
                () = shutdown.cancelled(), if busy == Busy::No => return ActorEnd::Daemon,
                launched = launched => self.launched(launched, &tasks).await,
                end = ended => self.ended(end, &tasks).await,
                () = overdue => self.overdue().await,
                () = served => self.serving = None,
                asked = inbox.next(busy) => match asked {
                    Some((command, answer)) => self.command(command, answer).await,
                    None => return ActorEnd::Daemon,
                },
            }
        }
        ActorEnd::Purged
    }

    async fn command(&mut self, command: Command, answer: oneshot::Sender<Answer>) {
        let outcome = match command {
            // A start answers as soon as it is accepted and goes on.
            Command::Start(start) => return self.start(start, answer).await,
            Command::Stop { spawn, generation, grace_ms, force } => {
                self.stop(spawn, generation, Stop::new(grace_ms, force)).await
            }
            Command::Purge => self.purge().await,
            Command::Input { spawn, bytes_base64 } => match self.shim_of(spawn) {
                Ok(shim) => request(&shim, |id| ShimRequest::Input { id, bytes_base64 }).await,
                Err(error) => Err(error),
            },
            Command::Resize { spawn, size } => match self.shim_of(spawn) {
                Ok(shim) => {
                    let done = request(&shim, |id| ShimRequest::Resize { id, size }).await;
                    if let (Ok(_), Some(live)) = (&done, &mut self.live) {
                        live.record.size = size;
                        self.publish();
                    }
                    done
                }
                Err(error) => Err(error),
            },
            Command::Screen { spawn, format, scrollback } => match self.shim_of(spawn) {
                Ok(shim) => request(&shim, |id| ShimRequest::Screen { id, format, scrollback }).await,
                Err(_) => {
                    let files = self.files.spawn(spawn);
                    // As large as a scrollback, on a disk that may be slow.
                    let last = blocking(move || Ok(files.final_screen()?.respond(format, scrollback))).await;
                    last.map(|last| CommandResult::Screen(Box::new(last))).map_err(|_| {
                        CommandError::new("not_found", format!("spawn {spawn} has left no screen on its host"))
                    })
                }
            },
        };
        // Whoever asked may have given up.
        let _told = answer.send(outcome);
    }

    fn shim_of(&self, spawn: u32) -> Result<Arc<ShimClient>, CommandError> {
        let live = self.live.as_ref().filter(|live| live.record.number == spawn);
        live.map(|live| Arc::clone(&live.shim))
            .ok_or_else(|| CommandError::new("not_running", format!("spawn {spawn} is not running")))
    }

    async fn purge(&mut self) -> Answer {
        if self.live.is_some() {
            return Err(CommandError::new("already_running", "the session is running: stop it first"));
        }
        if !self.is_over().await {
            return Err(CommandError::new("already_running", "a spawn of the session still runs on its host"));
        }
        // Before the slot is free: the ids of processes that still run are nobody else's.
        self.clear_groups().await.map_err(internal)?;
        let files = self.files.clone();
        blocking(move || files.remove()).await.map_err(internal)?;
        let (context, session) = (Arc::clone(&self.context), self.id);
        blocking(move || context.outbox.purged(session).map_err(io::Error::other)).await.map_err(internal)?;
        if let Some(record) = self.record.take() {
            self.context.slots.release(record.slot);
        }
        self.purged = true;
        info!(session.id = %self.id, "session purged");
        Ok(CommandResult::Done)
    }

    /// Whether no shim of the session lives. One may although none is connected: of a spawn whose record cannot be read. One that has told its end
    /// is waited for.
    async fn is_over(&self) -> bool {
        let deadline = Instant::now() + SHIM_END_PATIENCE;
        loop {
            match self.files.is_held() {
                Ok(false) => return true,
                Ok(true) if Instant::now() < deadline => tokio::time::sleep(SHIM_END_PAUSE).await,
                Ok(true) => return false,
                Err(error) => {
                    warn!(session.id = %self.id, %error, "whether a session's shim lives cannot be found out");
                    return false;
                }
            }
        }
    }

    fn raise_generation(&mut self, generation: u64) -> io::Result<()> {
        if let Some(record) = &mut self.record
            && generation > record.generation
        {
            record.generation = generation;
            self.files.write_record(record)?;
        }
        Ok(())
    }

    fn report_of(&self, record: &SpawnRecord, state: SpawnState) -> SpawnReport {
        let seq = SpawnState::ALL.iter().position(|known| *known == state).unwrap_or(0) as u64;
        SpawnReport {
            session: self.id,
            spawn: record.number,
            generation: record.generation,
            seq,
            state,
            size: record.size,
            command: record.command.clone(),
            started_at: record.started_at,
            ended_at: None,
            exit: None,
            posture: record.posture.clone().map(Box::new),
        }
    }

    /// Shows the living spawn to others.
    fn publish(&self) {
        if let Some(live) = &self.live {
            let newest = Some(self.report_of(&live.record, live.state));
            self.view.send_replace(SessionView { newest, shim: Some(Arc::clone(&live.shim)) });
        }
    }

    /// Shows the living spawn to others and to the control plane.
    async fn report(&self) {
        self.publish();
        if let Some(live) = &self.live {
            self.context.link.send(&HostMessage::Report(self.report_of(&live.record, live.state))).await;
        }
    }

    async fn audit(&self, action: &str, spawn: u32) {
        let item = OutboxItem::Audit {
            id: EventId::generate(),
            at: OffsetDateTime::now_utc(),
            session: Some(self.id),
            action: action.to_owned(),
            detail: serde_json::json!({ "spawn": spawn }),
        };
        let context = Arc::clone(&self.context);
        if let Err(error) = blocking(move || context.outbox.audit(&item).map_err(io::Error::other)).await {
            warn!(session.id = %self.id, action, error = chain(&error), "an audit entry could not be put into the outbox");
        }
    }
}

async fn request(shim: &ShimClient, make: impl FnOnce(u64) -> ShimRequest) -> Answer {
    Ok(match shim.request(make).await? {
        ShimOutcome::Written { written, offset } => CommandResult::Written { written, offset },
        ShimOutcome::Screen(screen) => CommandResult::Screen(screen),
        ShimOutcome::Done => CommandResult::Done,
        ShimOutcome::Error(error) => return Err(error),
    })
}

fn internal(error: impl std::error::Error) -> CommandError {
    CommandError::new("internal", chain(&error))
}

/// Runs something that blocks beside the tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}
