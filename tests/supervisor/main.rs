//! The supervisor and its shims as real processes, against a control plane that does what each test says.

mod crashes;
mod harness;
mod inits;
mod policy;
mod sessions;
mod shims;
