//! The control plane: REST API, terminals and console for people and programs, and the store of sessions.
//!
//! `api` translates HTTP to `domain`, which holds the rules; `store` keeps rows; `fleet` holds the hosts' links; `relay` moves
//! terminal bytes between links and viewers without parsing them.

pub mod admin;
pub mod api;
pub mod audit;
pub mod auth;
pub mod capability;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod domain;
pub mod events;
pub mod fleet;
pub mod identities;
pub mod identity;
pub mod jobs;
pub mod leases;
pub mod limits;
pub mod metrics;
pub mod migrate;
pub mod plane;
mod private_file;
pub mod relay;
pub mod request;
pub mod server;
pub mod sights;
pub mod sockets;
pub mod store;
pub mod stores;
mod ws_frame;

#[cfg(test)]
mod tests;
