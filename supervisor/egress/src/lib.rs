//! The egress gateway: one process per host, of a user of its own, through which everything goes that sessions send outside.
//!
//! It serves listeners that lie in the sessions' own network namespaces and that the supervisor hands to it; which listener accepted a connection
//! says whose it is. It keeps nothing on disk. It outlives the supervisor: tunnels go on, and records of what was decided wait for the next one.
//! It never decides by itself what is allowed: policies come from the supervisor, and without one nothing is.

mod ahead;
mod body;
mod config;
mod control;
mod decisions;
mod descriptors;
mod dial;
mod gateway;
mod guard;
mod hello;
mod lanes;
mod listen;
mod meter;
mod model;
mod names;
mod process;
mod proxy;
mod refusal;
mod ruling;
mod session;
mod socks;
mod splice;
mod sys;

pub(crate) use agentapi_shared::runtime::chain;
pub use config::Args;
pub use process::run;
