//! x
pub mod terminal;
