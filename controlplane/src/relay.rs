//! Viewers: many sockets that look at one stream.
//!
//! While at least one viewer watches a session, its newest spawn has one *live feed*: one stream on the host's link that fills one ring
//! of bounded size. A viewer is a position in that ring and a credit; it has no queue. A viewer whose bytes left the ring reads them
//! again from the host's journal over a *private feed*, or skips to a keyframe. Bytes pass through; nothing here parses a terminal.

mod feed;
mod hub;
pub mod output;
mod port;
mod ring;
mod socket;
mod viewer;

pub use feed::{AHEAD_BYTES, Feed};
pub use hub::{Hub, Hubs};
pub use port::Port;
pub use socket::{ViewerSocket, viewer_socket_config};
pub use viewer::{Attach, From, action_of, run};
