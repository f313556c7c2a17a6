//! What a spawn may reach: noted in its record, asked of the gateway at its start and, settled anew, by every later supervisor, over with the spawn.
//!
//! The record holds no key: which provider a listener is for is noted by name, and its key comes from the settings of the day.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use agentapi_shared::api::NetworkMode;
use agentapi_shared::egress::ListenerRole;
use agentapi_shared::shim::SOCKET;
use futures_util::future::BoxFuture;
use tracing::{info, warn};

use super::{Session, blocking};
use crate::context::Context;
use crate::files::{SpawnEgress, SpawnFiles};
use crate::gateway::{Egress, ListenerSource};
use crate::sandbox::Listener;
use crate::settle::{self, Settled};
use crate::{agents, chain, shim_listeners};

/// What the record of a spawn notes of it; nothing, if it has no listeners.
pub(super) fn noted(settled: &Settled) -> Option<SpawnEgress> {
    let listeners = settled.sandbox.listeners.clone();
    (!listeners.is_empty()).then(|| SpawnEgress { policy: settled.egress.clone(), listeners })
}

impl Session {
    /// Has the gateway serve the living spawn: to be waited for, and dropped with the spawn. Without that its programs reach nothing.
    pub(super) fn serve_egress(&self, files: &SpawnFiles) -> Option<BoxFuture<'static, ()>> {
        let record = &self.live.as_ref()?.record;
        let noted = record.egress.as_ref()?;
        let (mut roles, mut ports) = roles(&self.context, noted);
        let closed = record.posture.as_ref().is_some_and(|posture| posture.network == NetworkMode::Off);
        if closed {
            // The proxy, which says why, is all that is left.
            (roles, ports) = std::iter::zip(roles, ports).filter(|(role, _)| *role == ListenerRole::Proxy).unzip();
        }
        let egress = Egress { policy: noted.policy.clone(), roles, listeners: source(files.clone(), ports) };
        let (gateway, id, spawn) = (self.context.gateway.clone(), self.id, record.number);
        Some(Box::pin(async move {
            if closed {
                // What is open ends.
                gateway.release(id, spawn).await;
            }
            if let Err(error) = gateway.serve(id, spawn, egress).await {
                warn!(session.id = %id, spawn, error = chain(&error), "programs of a session reach nothing");
            }
        }))
    }

    /// Settles what the living spawn may reach by the settings of today. Its jail stays what it is: one whose network would not be filtered any more
    /// reaches nothing.
    pub(super) async fn renew_egress(&mut self, files: &SpawnFiles) {
        let (context, id) = (&self.context, self.id);
        let agent = self.record.as_ref().map(|record| record.agent.as_str()).unwrap_or_default();
        let Some(record) = self.live.as_mut().map(|live| &mut live.record) else { return };
        let (Some(noted), Some(posture)) = (&mut record.egress, &mut record.posture) else { return };
        let (roles, _) = roles(context, noted);
        let renewed = settle::renew(&context.settings, &posture.profile, agents::manifest(agent).as_ref(), &roles);
        let (policy, network) = match renewed {
            Ok(policy) => (policy, NetworkMode::Filtered),
            Err(error) => {
                warn!(session.id = %id, spawn = record.number, error = chain(&error), "a running session reaches nothing any more");
                (settle::closed(&context.settings), NetworkMode::Off)
            }
        };
        if noted.policy == policy && posture.network == network {
            return;
        }
        let (allow, deny) = (policy.allow.len(), policy.deny.len());
        info!(session.id = %id, spawn = record.number, ?network, allow, deny, "what a running session may reach has changed with the settings");
        (noted.policy, posture.network) = (policy, network);
        let number = record.number;
        if let Err(error) = files.write_record(record) {
            warn!(session.id = %id, spawn = number, %error, "what a session may reach could not be noted");
        }
        self.audit("spawn.egress_changed", number).await;
    }
}

/// What each listener is for, as far as the settings still know its provider, and their ports.
fn roles(context: &Context, noted: &SpawnEgress) -> (Vec<ListenerRole>, Vec<u16>) {
    let role = |listener: &Listener| match &listener.model {
        None => Some((ListenerRole::Proxy, listener.port)),
        Some(name) => {
            let role = context.settings.models.get(name)?.role(name);
            role.inspect_err(|error| warn!(model = name, error = chain(error), "a model provider is not served"))
                .ok()
                .map(|role| (role, listener.port))
        }
    };
    noted.listeners.iter().filter_map(role).unzip()
}

/// Asks the shim, and takes those that are wanted.
fn source(files: SpawnFiles, ports: Vec<u16>) -> ListenerSource {
    Arc::new(move || {
        let (files, ports) = (files.clone(), ports.clone());
        Box::pin(blocking(move || {
            let mut given = files.with_short_path(SOCKET, shim_listeners::listeners)?;
            let take = |port: &u16| -> io::Result<OwnedFd> {
                let at = given.iter().position(|(given, _)| given == port).ok_or(io::ErrorKind::NotFound)?;
                Ok(given.swap_remove(at).1)
            };
            ports.iter().map(take).collect()
        }))
    })
}
