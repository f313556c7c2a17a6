//! The product as its users have it: one command, a browser, real agents.

mod agents;
mod console;
mod keyframes;
mod machine;
mod modes;
mod outage;
mod project;
mod up;
