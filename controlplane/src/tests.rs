//! The control plane as its clients see it: a real listener on a free port, real WebSockets, and a simulated host that speaks the
//! real link protocol.

mod api;
mod audit;
mod client;
mod credentials;
mod fleet;
mod host;
mod leases;
mod limits;
mod matrix;
mod newcomers;
mod organizations;
mod people;
mod viewers;
