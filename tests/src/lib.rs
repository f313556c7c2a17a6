//! The harness of the black-box tests: real binaries in directories of their own, waits for facts with deadlines, and a control plane that a
//! supervisor can be tested against alone.

pub mod attempt;
pub mod plane;
pub mod process;
pub mod product;
pub mod project;
pub mod viewer;

pub use agentapi_test_postgres::{dir, wait};
