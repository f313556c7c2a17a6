//! The bodies of the REST API, shared by the control plane that serves them and the CLI that reads them.
//!
//! Requests refuse unknown fields, so that a typing error is an error and not a default.

mod audit;
mod organization;
mod problem;
mod sandbox;
mod sandbox_policy;
mod session;
mod system;

pub use audit::*;
pub use organization::*;
pub use problem::{FieldError, Problem};
pub use sandbox::*;
pub use sandbox_policy::*;
pub use session::*;
pub use system::*;
