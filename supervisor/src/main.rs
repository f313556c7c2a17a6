//! `agentapi-supervisor`: the daemon of a worker host, and the tools an operator has beside it.

use std::process::ExitCode;

use clap::Parser;

use agentapi_supervisor::{Args, run};

fn main() -> ExitCode {
    run(Args::parse())
}
