//! Attempts to get out of a session, to look into another, to use up the host: by a real process in a real jail, made by the real supervisor
//! and shim, each judged by what came of it and with a control that shows that it works where nothing is in its way.
//!
//! `table` lists all of them and where they are made. Everything runs from the directory of the built programs, so that the whole can be copied
//! to another machine: this program into `deps/`, beside that `sandbox-probe`, `agentapi-supervisor` and `agentapi-shim`.

mod bait;
mod batch;
mod credentials;
mod filesystem;
mod golden;
mod hosts;
mod matrix;
mod modes;
mod network;
mod outside;
mod process;
mod resources;
mod scene;
mod steps;
mod table;
mod tenants;
mod tools;
mod tty;
mod world;
