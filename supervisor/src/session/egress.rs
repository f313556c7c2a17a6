//! What a spawn may reach: noted in its record, asked of the gateway at its start and again by every later supervisor, over with the spawn.
//!
//! The record holds no key: which provider a listener is for is noted by name, and its key comes from the settings of the day.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use agentapi_shared::egress::ListenerRole;
use agentapi_shared::shim::SOCKET;
use tracing::warn;

use super::{Session, blocking};
use crate::chain;
use crate::context::Context;
use crate::files::{Listener, SpawnEgress, SpawnFiles, SpawnRecord};
use crate::gateway::{Egress, ListenerSource};
use crate::settle::Settled;
use crate::shim_listeners;

/// What the record of a spawn notes of it; nothing, if it has no listeners.
pub(super) fn noted(settled: &Settled) -> Option<SpawnEgress> {
    let listener = |(role, port): (&ListenerRole, &u16)| {
        let model = match role {
            ListenerRole::Proxy => None,
            ListenerRole::Model { name, .. } => Some(name.clone()),
        };
        Listener { port: *port, model }
    };
    let listeners: Vec<_> = settled.roles.iter().zip(&settled.sandbox.listeners).map(listener).collect();
    (!listeners.is_empty()).then(|| SpawnEgress { policy: settled.egress.clone(), listeners })
}

impl Session {
    /// Has the gateway serve a living spawn. Without that its programs reach nothing.
    pub(super) async fn serve_egress(&self, files: &SpawnFiles, record: &SpawnRecord) {
        let Some(noted) = &record.egress else { return };
        let (roles, ports) = roles(&self.context, noted);
        let egress = Egress { policy: noted.policy.clone(), roles, listeners: source(files.clone(), ports) };
        if let Err(error) = self.context.gateway.serve(self.id, record.number, egress).await {
            warn!(session.id = %self.id, spawn = record.number, error = chain(&error), "programs of a session reach nothing");
        }
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
