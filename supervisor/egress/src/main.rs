//! `agentapi-egress`: see the library.

use std::process::ExitCode;

use clap::Parser;

use agentapi_egress::{Args, run};

fn main() -> ExitCode {
    run(&Args::parse())
}
