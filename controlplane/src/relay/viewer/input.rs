//! What a viewer types, and the size it would like.

use std::time::Duration;

use agentapi_shared::frame::Header;
use agentapi_shared::link::{Command, CommandError};
use agentapi_shared::runtime::OnEnd;
use agentapi_shared::viewer::{ServerMessage, ViewerMode};
use agentapi_shared::{SpawnState, WindowSize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::debug;

use super::{End, Viewer};
use crate::domain;
use crate::store::Scope;
use crate::store::records::SessionChange;

/// A window that is being dragged asks for many sizes; the program gets the one it comes to rest at.
const RESIZE_DEBOUNCE: Duration = Duration::from_millis(100);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Viewer<S> {
    /// One INPUT frame: on to the host, or refused with a reason.
    pub(super) async fn input(&mut self, header: Header, payload: &[u8]) -> Result<(), End> {
        let seq = header.position;
        if let Err(refused) = self.forward(header, payload) {
            let message = ServerMessage::InputRefused { seq, code: refused.code, detail: refused.detail };
            self.socket.say(&message).await?;
        }
        Ok(())
    }

    fn forward(&mut self, header: Header, payload: &[u8]) -> Result<(), CommandError> {
        if self.mode == ViewerMode::Ro {
            return Err(CommandError::new("read_only", "this viewer may only look"));
        }
        let view = self.seat.hub.view();
        let runs = matches!(view.record.state(), SpawnState::Running | SpawnState::Stopping);
        if !runs || header.stream != view.record.spawn() {
            return Err(CommandError::new("not_running", "this spawn does not run"));
        }
        let link = view.record.host.and_then(|host| self.plane.fleet.link(host));
        let link = link.ok_or_else(|| CommandError::new("unreachable", "the host is not connected"))?;
        if !self.seat.port.begin_input(header.position, payload.len()) {
            return Err(CommandError::new("input_full", "too much input is not written yet"));
        }
        let live = self.seat.hub.live(&link, self.flow.offset_in(header.stream));
        link.input(live.stream(), &self.seat.port, header.position, payload);
        self.take_size();
        Ok(())
    }

    /// Who types owns the size.
    pub(super) fn take_size(&mut self) {
        let Some(before) = self.seat.hub.take_size(self.seat.viewer) else { return };
        if before.is_some() {
            let detail = json!({ "viewer": self.seat.viewer, "from": before });
            self.plane.trail.size_taken(&self.principal, self.seat.hub.session(), detail);
        }
        if self.seat.port.wanted().is_some() {
            self.resize_at = Some(Instant::now());
        }
    }

    /// The size that this viewer would like, now or as soon as it owns the size.
    pub(super) fn want_size(&mut self, size: WindowSize) {
        self.seat.port.want(size);
        if self.seat.hub.view().size_owner == Some(self.seat.viewer) {
            self.resize_at = Some(Instant::now() + RESIZE_DEBOUNCE);
        }
    }

    /// Has the terminal resized to what this viewer would like.
    pub(super) fn apply_size(&mut self) {
        self.resize_at = None;
        let view = self.seat.hub.view();
        let Some(size) = self.seat.port.wanted().filter(|size| *size != view.record.size) else { return };
        if view.size_owner != Some(self.seat.viewer) || view.record.state() != SpawnState::Running {
            return;
        }
        let plane = self.plane.clone();
        let record = view.record;
        let tasks = plane.tasks.clone();
        tasks.spawn("resize", OnEnd::Continue, async move {
            let command = Command::Resize { spawn: record.spawn(), size };
            let resized = async {
                plane.fleet.command(&record, command).await?;
                domain::change(&plane, Scope::System, record.id, None, |record| {
                    Ok((record.size != size).then(|| SessionChange { size: Some(size), ..SessionChange::default() }))
                })
                .await
            };
            if let Err(failure) = resized.await {
                // The viewer sees that the size did not change.
                debug!(session.id = %record.id, error = &failure as &dyn std::error::Error, "resize failed");
            }
        });
    }
}
