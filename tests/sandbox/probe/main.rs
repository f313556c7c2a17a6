//! The hostile program of the sandbox's tests. Inside a jail, or on the bare host as the control, it makes attempts for real and writes what
//! it saw; the harness outside judges by what came of them.
//!
//! Roles: `batch LABEL [NAME...]` makes attempts, each in a process of its own; `list` names them; `landlock` tells its version; `act NAME` is a badly
//! behaved agent;
//! `without-user-namespaces PROGRAM...` runs a program as root of a host that forbids them; `step` is a tracer of starts; called as
//! `agentapi-shim` it stands between supervisor and shim and changes the plan on its way, which is how a layer is taken away without any
//! switch in the product.

mod actors;
mod credentials;
mod filesystem;
mod interpose;
mod ipc;
mod kernel;
mod network;
mod outcome;
mod process;
mod resources;
mod run;
mod step;
mod sys;
mod tty;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let called = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if called.ends_with("agentapi-shim") {
        return interpose::run(&words);
    }
    match words.as_slice() {
        ["batch", _label, names @ ..] => run::batch(names),
        ["bare", _label, names @ ..] => run::bare(names),
        ["list"] => run::list(),
        ["without-user-namespaces", program @ ..] => run::without_user_namespaces(program),
        ["step", rest @ ..] => step::step(rest),
        ["whoami"] => run::whoami(),
        ["landlock"] => kernel::landlock(),
        ["act", actor, rest @ ..] => actors::act(actor, rest),
        _ => {
            run::say("usage: sandbox-probe batch LABEL [NAME...] | bare LABEL [NAME...] | list | act NAME");
            ExitCode::FAILURE
        }
    }
}
