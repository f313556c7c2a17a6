//! From an accepted start to a running spawn, or to the record of a failed one.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::chown;
use std::sync::{Arc, Mutex};

use agentapi_shared::api::WorkspaceSource;
use agentapi_shared::jail::{AGENT_ID, CgroupStep, DiskDir, HOME, WORKSPACE};
use agentapi_shared::link::{CommandError, CommandResult, HostMessage, StartSpawn};
use agentapi_shared::runtime::TaskGroup;
use agentapi_shared::shim::{ShimStart, ShimStarted};
use agentapi_shared::{Exit, ExitReason, SpawnState};
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::disk::{self, DiskWork};
use super::egress::noted;
use super::{Answer, Launched, Session, Starting, blocking, internal};
use crate::abort::Abort;
use crate::agents::{self, AgentCommand, Inside};
use crate::cgroup::Place;
use crate::files::{SessionRecord, SpawnRecord, Storage};
use crate::gateway;
use crate::host::{Ids, Isolation};
use crate::idmap::{self, IdMapError};
use crate::launch;
use crate::plan::{self, PlanInput, Source};
use crate::promise::Promise;
use crate::settle::{Settled, Subject, settle};
use crate::workspace::{self, HostDir};
use crate::{chain, proc};

/// A start that is about to be made.
type Prepared = (SpawnRecord, ShimStart, Option<DiskWork>);

impl Session {
    pub(super) async fn start(&mut self, start: StartSpawn, answer: oneshot::Sender<Answer>) {
        if self.record.is_some() && self.live.is_none() && !self.is_over().await {
            let error = CommandError::new("already_running", "a spawn of this session still runs on its host");
            let _told = answer.send(Err(error));
            return;
        }
        let prepared = match self.admit(&start) {
            Ok(None) => {
                // Known already: the control plane did not hear our first answer.
                let _told = answer.send(Ok(CommandResult::Accepted));
                return self.report().await;
            }
            Ok(Some(prepared)) => prepared,
            Err(error) => {
                info!(session.id = %self.id, code = error.code, "start refused");
                let _told = answer.send(Err(error));
                return;
            }
        };
        let (record, shim_start, disk) = prepared;
        let _told = answer.send(Ok(CommandResult::Accepted));
        let starting = self.report_of(&record, SpawnState::Starting);
        self.view.send_modify(|view| view.newest = Some(starting.clone()));
        self.context.link.send(&HostMessage::Report(starting)).await;
        self.launch(record, shim_start, disk);
    }

    /// Checks a start and makes everything ready for it; none if it is known already.
    fn admit(&mut self, start: &StartSpawn) -> Result<Option<Prepared>, CommandError> {
        if self.record.as_ref().is_some_and(|record| start.generation < record.generation) {
            return Err(CommandError::new("stale_generation", "a newer wish for this session is known"));
        }
        let files = self.files.spawn(start.spawn);
        if files.record().is_ok() {
            return Ok(None);
        }
        if self.live.is_some() {
            return Err(CommandError::new("already_running", "another spawn of this session is running"));
        }
        let context = Arc::clone(&self.context);
        if context.ground.isolation == Isolation::None && !context.unsafe_no_jail {
            let detail = "this host cannot isolate sessions: run `agentapi doctor` on it; --unsafe-no-jail starts them without isolation";
            return Err(CommandError::new("refused", detail));
        }
        if let Some(reason) = context.self_test.standing().refusal() {
            return Err(CommandError::new("refused", reason));
        }
        let exposure = &context.exposure;
        let refused = |error: &dyn std::error::Error| CommandError::new("refused", chain(error));
        let command =
            agents::command(&start.agent, &start.command, &start.args, exposure).map_err(|error| refused(&error))?;
        // A path is checked before anything is made, so that a refusal leaves nothing behind.
        let foreign = match start.workspace.source {
            WorkspaceSource::Empty => None,
            WorkspaceSource::Path => {
                let path = start.workspace.path.as_deref().unwrap_or_default();
                let dir = workspace::resolve(path, &exposure.workspace_roots).map_err(|error| refused(&error))?;
                if let Some(reason) = context.private.reason(&dir.path) {
                    return Err(CommandError::new("refused", format!("workspace.path: {reason}")));
                }
                self.may_write(&dir)?;
                Some(dir)
            }
        };
        let storage = self.files.storage().map_err(internal)?;
        let subject = Subject {
            manifest: command.manifest.as_ref(),
            policy: &start.policy,
            read_only_paths: &exposure.read_only_paths,
            private: &context.private,
            storage,
        };
        let settled =
            settle(&context.settings, &context.ground, &start.sandbox, subject).map_err(|error| refused(&error))?;
        for (index, mount) in settled.sandbox.mounts.iter().enumerate().filter(|(_, mount)| mount.writable) {
            self.may_show(&mount.dir, &format!("sandbox.mounts[{index}].source"))?;
        }
        if context.ground.isolation != Isolation::None {
            disk::has_room(&context.state_dir).map_err(|error| refused(&error))?;
        }
        let (rules, listeners) = (settled.egress.allow.len(), settled.sandbox.listeners.len());
        debug!(session.id = %self.id, rules, listeners, sandbox = ?settled.sandbox, "sandbox settled");
        // Also if it was recorded by a supervisor that came no further.
        let first = self.record.is_none() || self.files.never_ran().map_err(internal)?;
        self.write_session(start)?;
        match self.prepare(start, &command, &settled, foreign, storage) {
            Ok(prepared) => Ok(Some(prepared)),
            Err(error) => {
                if first {
                    self.take_back();
                }
                Err(internal(error))
            }
        }
    }

    /// Whether the supervisor can let an agent write there as its owner.
    fn may_write(&self, dir: &HostDir) -> Result<(), CommandError> {
        let own = nix::unistd::geteuid().as_raw();
        if self.context.ground.isolation == Isolation::Root {
            return self.may_show(dir, "workspace.path");
        }
        if dir.uid == own {
            return Ok(());
        }
        let detail = format!(
            "workspace.path `{}` belongs to uid {}, and a supervisor that is not root can only write as its own user (uid {own})",
            dir.path.display(),
            dir.uid
        );
        Err(CommandError::new("refused", detail))
    }

    /// Whether a directory of the host can be shown under the session's ids, where these are its own.
    fn may_show(&self, dir: &HostDir, field: &str) -> Result<(), CommandError> {
        let shown = match (self.context.ground.isolation, self.context.ground.ids()) {
            (Isolation::Root, Ids::Mapped) => idmap::check(dir),
            (Isolation::Root, Ids::OfHost) => {
                Err(IdMapError::NoUserNamespaces { path: dir.path.display().to_string() })
            }
            (Isolation::User | Isolation::None, _) => Ok(()),
        };
        shown.map_err(|error| CommandError::new("refused", format!("{field}: {}", chain(&error))))
    }

    /// Session record, directories, environment.
    fn write_session(&mut self, start: &StartSpawn) -> Result<(), CommandError> {
        let slot = match &self.record {
            Some(record) => record.slot,
            None => self.context.slots.take().ok_or_else(|| {
                CommandError::new("refused", "this host has no session slot left: purge ended sessions")
            })?,
        };
        let record = SessionRecord {
            id: self.id,
            agent: start.agent.clone(),
            command: start.command.clone(),
            args: start.args.clone(),
            workspace: start.workspace.clone(),
            slot,
            generation: start.generation,
        };
        let write = || {
            self.files.create()?;
            self.files.write_record(&record)?;
            start.env.as_ref().map_or(Ok(()), |env| self.files.write_env(env))
        };
        let written: io::Result<()> = write();
        self.record = Some(record);
        written.map_err(internal)
    }

    /// The first start failed before anything ran: as if it had never been asked for.
    fn take_back(&mut self) {
        let record = self.record.take();
        if let Err(error) = self.files.remove() {
            // Its slot stays with what is left of it.
            warn!(session.id = %self.id, %error, "the directory of a refused session could not be removed");
            return;
        }
        if let Some(record) = record {
            self.context.slots.release(record.slot);
        }
    }

    fn prepare(
        &mut self,
        start: &StartSpawn,
        command: &AgentCommand,
        settled: &Settled,
        foreign: Option<HostDir>,
        storage: Storage,
    ) -> io::Result<Prepared> {
        let context = &self.context;
        let slot = self.record.as_ref().map_or(0, |record| record.slot);
        let session_env = self.files.env()?;
        let foreign_workspace = foreign.is_some();
        let disk = settled.sandbox.limits.disk_bytes.map(|bytes| DiskWork {
            files: self.files.clone(),
            bytes,
            slot,
            manifest: command.manifest.clone(),
            env: session_env.clone(),
        });
        let own = match &disk {
            Some(_) => None,
            None => Some(self.own_dirs(command, foreign.as_ref(), &session_env, storage)?),
        };
        let (own_home, own_workspace) = own.as_ref().map(|(home, workspace)| (home, workspace)).unzip();
        let home = own_home.map_or(Source::Disk(DiskDir::Home), Source::Host);
        let workspace = foreign.as_ref().or(own_workspace).map_or(Source::Disk(DiskDir::Workspace), Source::Host);
        let plan = plan::plan(PlanInput {
            isolation: context.ground.isolation,
            ids: context.ground.ids(),
            sandbox: &settled.sandbox,
            egress_env: &gateway::environment(&settled.sandbox.listeners),
            landlock: context.ground.landlock(),
            cgroup: CgroupStep::default(),
            exposure: &context.exposure,
            slot,
            home,
            workspace,
            foreign_workspace,
            argv: command.argv.clone(),
            agent_env: &command.env(),
            session_env: &session_env,
        })
        .map_err(io::Error::other)?;
        let files = self.files.spawn(start.spawn);
        files.create()?;
        let record = SpawnRecord {
            number: start.spawn,
            generation: start.generation,
            command: command.argv.clone(),
            size: start.size,
            boot_id: context.boot_id.clone(),
            init_pid: None,
            init_began: None,
            posture: Some(settled.posture.clone()),
            egress: noted(settled),
            started_at: None,
        };
        files.write_record(&record)?;
        let journal_bytes_max = context.journal_bytes_max;
        let start = ShimStart { session: self.id, spawn: start.spawn, size: start.size, journal_bytes_max, plan };
        Ok((record, start, disk))
    }

    /// HOME and workspace of a session without a disk, made if there are none, or if nothing has run in those that a crash has left half made.
    fn own_dirs(
        &self,
        command: &AgentCommand,
        foreign: Option<&HostDir>,
        env: &BTreeMap<String, String>,
        storage: Storage,
    ) -> io::Result<(HostDir, HostDir)> {
        self.files.create_dirs()?;
        let (home, own) = (workspace::own(&self.files.home())?, workspace::own(&self.files.workspace())?);
        // A spawn that failed at its disk is recorded, and has left no directories.
        if storage != Storage::New && !self.files.never_ran()? {
            return Ok((home, own));
        }
        let isolation = self.context.ground.isolation;
        let slot = self.record.as_ref().map_or(0, |record| record.slot);
        let shown = foreign.unwrap_or(&own);
        let bare = (home.path.display().to_string(), shown.path.display().to_string());
        let inside = if isolation == Isolation::None { (bare.0.as_str(), bare.1.as_str()) } else { (HOME, WORKSPACE) };
        if isolation == Isolation::Root {
            let agent = Some(plan::uid_base(slot) + AGENT_ID);
            chown(&home.path, agent, agent)?;
            chown(&own.path, agent, agent)?;
        }
        if let Some(manifest) = &command.manifest {
            agents::write_files(manifest, &home.path, &Inside { home: inside.0, workspace: inside.1, slot, env })?;
        }
        Ok((home, own))
    }

    /// Has the shim started beside the session's task, which goes on to hear whoever wants to stop it.
    fn launch(&mut self, record: SpawnRecord, mut start: ShimStart, disk: Option<DiskWork>) {
        let (shim, spawn_files) = (self.context.shim.clone(), self.files.spawn(record.number));
        let (cgroups, session) = (self.context.cgroups.clone(), self.id);
        let limits = record.posture.as_ref().map(|posture| posture.limits).unwrap_or_default();
        let abort = Abort::default();
        let aborting = abort.clone();
        let launched = blocking(move || {
            let disk = disk.map(|work| work.open(&aborting)).transpose().map_err(io::Error::other)?;
            aborting.check().map_err(io::Error::other)?;
            let place = cgroups.make(session, &limits).map_err(io::Error::other)?;
            start.plan.cgroup = place.as_ref().map(Place::step).unwrap_or_default();
            spawn_files.write_promise(&Promise::of(&start.plan, place.as_ref()))?;
            let with = launch::With { place: place.as_ref(), disk: disk.as_ref(), patience: None };
            launch::launch(&shim, &spawn_files, &start, with, &aborting).map_err(io::Error::other)
        });
        self.starting = Some(Starting { record, launched: Mutex::new(Box::pin(launched)), abort, stop: None });
    }

    /// What became of it.
    pub(super) async fn launched(&mut self, launched: Launched, tasks: &TaskGroup) {
        let Some(Starting { mut record, abort, stop, .. }) = self.starting.take() else { return };
        let files = self.files.spawn(record.number);
        match launched {
            Ok((ShimStarted::Executed { init_pid }, child)) => {
                self.context.reaper.keep(child);
                record.init_pid = Some(init_pid);
                record.init_began = proc::began(init_pid);
                record.started_at = Some(OffsetDateTime::now_utc());
                let (noting, noted) = (files.clone(), record.clone());
                if let Err(error) = blocking(move || noting.write_record(&noted)).await {
                    warn!(session.id = %self.id, %error, "the start of a spawn could not be noted");
                }
                // If it is over already there is nobody to connect to, and its record says how it went.
                match self.connect(&files, record.clone(), tasks).await {
                    Ok(()) if let Some(stop) = stop => self.stop_live(stop).await,
                    Ok(()) => {
                        let posture = record.posture.as_ref();
                        let (profile, degraded) = (posture.map(|it| &it.profile), posture.map(|it| &it.degraded));
                        info!(session.id = %self.id, spawn = record.number, ?profile, ?degraded, "spawn running");
                        self.report().await;
                        self.serving = self.serve_egress(&files).map(Mutex::new);
                    }
                    Err(_) => self.conclude(&record, tasks).await,
                }
            }
            Ok((ShimStarted::Born { .. } | ShimStarted::Failed { .. }, _)) => self.conclude(&record, tasks).await,
            Err(_) if abort.is_aborted() => {
                let detail = "it had not started yet when it was stopped".to_owned();
                let exit = Exit { code: None, signal: None, reason: ExitReason::Killed, detail };
                self.conclude_with(&record, Some(exit), tasks).await;
            }
            Err(error) => {
                let detail = error.get_ref().map_or_else(|| error.to_string(), |source| chain(source));
                warn!(session.id = %self.id, spawn = record.number, error = detail, "shim could not be started");
                let exit = Exit { code: None, signal: None, reason: ExitReason::StartFailed, detail };
                self.conclude_with(&record, Some(exit), tasks).await;
            }
        }
    }
}
