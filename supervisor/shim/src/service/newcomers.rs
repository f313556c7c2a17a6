//! Connections that have not said yet what they want. Their first request decides: the listeners, and they are done, or anything else, and they are
//! the supervisor.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use agentapi_shared::shim::{ShimEvent, ShimRequest};

use super::Service;
use crate::connection::{Connection, Packet};

/// Whoever connects speaks at once, so that one is the rule. Overflow: the oldest is closed, and its other end may connect again.
const NEWCOMERS_MAX: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Vec<Connection>);

impl Newcomers {
    pub(super) fn push(&mut self, socket: UnixStream) {
        if self.0.len() == NEWCOMERS_MAX {
            self.0.remove(0);
        }
        self.0.extend(Connection::new(socket));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.0.iter()
    }
}

impl Service {
    pub(super) fn hear_newcomers(&mut self) {
        for mut newcomer in std::mem::take(&mut self.newcomers.0) {
            // An error is also the end of the connection.
            let Ok(packets) = newcomer.read() else { continue };
            match packets.first() {
                None => self.newcomers.0.push(newcomer),
                Some(Packet::Request(ShimRequest::Listeners)) => self.give_listeners(&newcomer),
                Some(_) => {
                    // A new supervisor: the old connection belongs to one that is gone.
                    self.disconnect();
                    self.connection = Some(newcomer);
                    self.obey(packets);
                }
            }
        }
    }

    fn give_listeners(&self, newcomer: &Connection) {
        let ports = self.egress.iter().map(|(port, _)| *port).collect();
        let fds: Vec<_> = self.egress.iter().map(|(_, listener)| listener.as_fd()).collect();
        if let Err(error) = newcomer.send_with_descriptors(&ShimEvent::Listeners { ports }, &fds) {
            crate::log(&format!("the listeners could not be handed out: {error}"));
        }
    }
}
