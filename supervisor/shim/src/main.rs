//! `agentapi-shim`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    agentapi_shim::run(&args)
}
