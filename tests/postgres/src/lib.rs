//! Postgres and PostgREST for tests, below every crate of ours: the schema's tests, the control plane's store and the whole product are
//! tested against the same real programs.

pub mod cluster;
pub mod dir;
pub mod jwt;
mod server;
pub mod wait;
