//! The control plane with a real supervisor behind it, through its public surfaces.

mod failures;
