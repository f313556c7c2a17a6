//! The control plane with a real supervisor behind it, through its public surfaces.

mod audit;
mod bad_input;
mod failures;
mod many;
mod operator;
mod organizations;
mod programs;
mod starts;
mod viewers;
