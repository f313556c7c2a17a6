//! The supervisor and its shims as real processes, against a control plane that does what each test says.

mod crashes;
mod disks;
mod doctor;
mod egress;
mod harness;
mod inits;
mod policy;
mod refusals;
mod sessions;
mod shims;
mod stops;
