//! The egress gateway as it runs: the real program between a session's network namespace, its own, and a world made for the test, with real clients.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that cannot be made is a failed test")]

mod addresses;
mod caps;
mod dns;
mod lifecycle;
mod model;
mod network;
mod origin;
mod rules;
mod smuggling;
mod supervisor;
mod tls;
