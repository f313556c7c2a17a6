//! From an accepted start to a running spawn, or to the record of a failed one.

use std::io;
use std::os::unix::fs::chown;
use std::sync::Arc;

use agentapi_shared::api::WorkspaceSource;
use agentapi_shared::jail::{AGENT_ID, CgroupStep, HOME, WORKSPACE};
use agentapi_shared::link::{CommandError, CommandResult, HostMessage, StartSpawn};
use agentapi_shared::runtime::TaskGroup;
use agentapi_shared::shim::{ShimStart, ShimStarted};
use agentapi_shared::{Exit, ExitReason, SpawnState};
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::egress::noted;
use super::{Answer, Session, blocking, internal, stop};
use crate::agents::{self, AgentCommand, Inside};
use crate::cgroup::Place;
use crate::chain;
use crate::files::{SessionRecord, SpawnRecord};
use crate::gateway;
use crate::host::Isolation;
use crate::launch;
use crate::plan::{self, PlanInput};
use crate::settle::{Settled, Subject, settle};
use crate::workspace::{self, HostDir};

impl Session {
    pub(super) async fn start(&mut self, start: StartSpawn, answer: oneshot::Sender<Answer>, tasks: &TaskGroup) {
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
        let (record, shim_start) = prepared;
        let _told = answer.send(Ok(CommandResult::Accepted));
        let starting = self.report_of(&record, SpawnState::Starting);
        self.view.send_modify(|view| view.newest = Some(starting.clone()));
        self.context.link.send(&HostMessage::Report(starting)).await;
        self.launch(record, shim_start, tasks).await;
    }

    /// Checks a start and makes everything ready for it; none if it is known already.
    fn admit(&mut self, start: &StartSpawn) -> Result<Option<(SpawnRecord, ShimStart)>, CommandError> {
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
        let subject = Subject {
            manifest: command.manifest.as_ref(),
            foreign_workspace: foreign.is_some(),
            read_only_paths: &exposure.read_only_paths,
            private: &context.private,
        };
        let settled =
            settle(&context.settings, &context.ground, &start.sandbox, subject).map_err(|error| refused(&error))?;
        let (rules, listeners) = (settled.egress.allow.len(), settled.roles.len());
        debug!(session.id = %self.id, rules, listeners, sandbox = ?settled.sandbox, "sandbox settled");
        let first = self.record.is_none();
        self.write_session(start)?;
        match self.prepare(start, &command, &settled, foreign, first) {
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
        if self.context.ground.isolation == Isolation::Root || dir.uid == own {
            return Ok(());
        }
        let detail = format!(
            "workspace.path `{}` belongs to uid {}, and a supervisor that is not root can only write as its own user (uid {own})",
            dir.path.display(),
            dir.uid
        );
        Err(CommandError::new("refused", detail))
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
        first: bool,
    ) -> io::Result<(SpawnRecord, ShimStart)> {
        let context = &self.context;
        let slot = self.record.as_ref().map_or(0, |record| record.slot);
        let home = workspace::own(&self.files.home())?;
        let session_env = self.files.env()?;
        let foreign_workspace = foreign.is_some();
        let dir = match foreign {
            Some(dir) => dir,
            None => workspace::own(&self.files.workspace())?,
        };
        if first {
            let jailed = context.ground.isolation != Isolation::None;
            let (home_dir, workspace_dir) = (home.path.display().to_string(), dir.path.display().to_string());
            let inside = if jailed { (HOME, WORKSPACE) } else { (home_dir.as_str(), workspace_dir.as_str()) };
            if context.ground.isolation == Isolation::Root {
                let agent = Some(plan::uid_base(slot) + AGENT_ID);
                chown(&home.path, agent, agent)?;
                chown(self.files.workspace(), agent, agent)?;
            }
            if let Some(manifest) = &command.manifest {
                let inside = Inside { home: inside.0, workspace: inside.1, slot, env: &session_env };
                agents::write_files(manifest, &home.path, &inside)?;
            }
        }
        let plan = plan::plan(PlanInput {
            isolation: context.ground.isolation,
            sandbox: &settled.sandbox,
            egress_env: &gateway::environment(&settled.roles),
            landlock: context.ground.landlock(),
            cgroup: CgroupStep::default(),
            exposure: &context.exposure,
            slot,
            home: &home,
            workspace: &dir,
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
        Ok((record, ShimStart { session: self.id, spawn: start.spawn, size: start.size, journal_bytes_max, plan }))
    }

    async fn launch(&mut self, mut record: SpawnRecord, mut start: ShimStart, tasks: &TaskGroup) {
        let files = self.files.spawn(record.number);
        let (shim, spawn_files) = (self.context.shim.clone(), files.clone());
        let (cgroups, session) = (self.context.cgroups.clone(), self.id);
        let limits = record.posture.as_ref().map(|posture| posture.limits).unwrap_or_default();
        let launched = blocking(move || {
            let place = cgroups.make(session, &limits).map_err(io::Error::other)?;
            start.plan.cgroup = place.as_ref().map(Place::step).unwrap_or_default();
            launch::launch(&shim, &spawn_files, &start, place.as_ref()).map_err(io::Error::other)
        })
        .await;
        match launched {
            Ok((ShimStarted::Executed { init_pid }, child)) => {
                self.context.reaper.keep(child);
                record.init_pid = Some(init_pid);
                record.init_began = stop::began(init_pid);
                record.started_at = Some(OffsetDateTime::now_utc());
                if let Err(error) = files.write_record(&record) {
                    warn!(session.id = %self.id, %error, "the start of a spawn could not be noted");
                }
                // If it is over already there is nobody to connect to, and its record says how it went.
                match self.connect(&files, record.clone(), tasks).await {
                    Ok(()) => {
                        let posture = record.posture.as_ref();
                        let (profile, degraded) = (posture.map(|it| &it.profile), posture.map(|it| &it.degraded));
                        info!(session.id = %self.id, spawn = record.number, ?profile, ?degraded, "spawn running");
                        self.report().await;
                        self.serve_egress(&files, &record).await;
                    }
                    Err(_) => self.conclude(&record, tasks).await,
                }
            }
            Ok((ShimStarted::Born { .. } | ShimStarted::Failed { .. }, _)) => self.conclude(&record, tasks).await,
            Err(error) => {
                let detail = error.get_ref().map_or_else(|| error.to_string(), |source| chain(source));
                warn!(session.id = %self.id, spawn = record.number, error = detail, "shim could not be started");
                let exit = Exit { code: None, signal: None, reason: ExitReason::StartFailed, detail };
                self.conclude_with(&record, Some(exit), tasks).await;
            }
        }
    }
}
