//! What every AgentAPI process agrees on.

pub mod size;

pub use size::WindowSize;
