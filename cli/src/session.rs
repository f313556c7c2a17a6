//! `agentapi session`: one file per group of commands; here which command goes where, and how a session is named.

mod create;
mod egress;
mod list;
mod select;
mod stop;
mod terminal;
mod wait;

use std::io::IsTerminal as _;

use crate::args::{AttachArgs, GlobalArgs, SessionCommand};
use crate::attach;
use crate::client::Client;
use crate::config::{self, Environment};
use crate::output::Format;

/// What every command here needs.
struct Context<'a> {
    client: Client,
    format: Format,
    env: &'a Environment,
}

/// Runs one command.
pub(crate) async fn session(command: &SessionCommand, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let client = Client::new(config::server(global, env)?)?;
    let format = if global.json { Format::Json } else { Format::Text };
    let context = Context { client, format, env };
    match command {
        SessionCommand::Create(args) => create::create(&context, args).await,
        SessionCommand::List(args) => list::list(&context, args).await,
        SessionCommand::Show(args) => list::show(&context, args).await,
        SessionCommand::Attach(args) => attach_to(&context, args).await,
        SessionCommand::Input(args) => terminal::input(&context, args).await,
        SessionCommand::Screen(args) => terminal::screen(&context, args).await,
        SessionCommand::Egress(args) => egress::list(&context, args).await,
        SessionCommand::Wait(args) => wait::wait(&context, args).await,
        SessionCommand::Restart(args) => stop::restart(&context, args).await,
        SessionCommand::Stop(args) => stop::stop(&context, args).await,
        SessionCommand::Purge(args) => stop::purge(&context, args).await,
    }
}

async fn attach_to(context: &Context<'_>, args: &AttachArgs) -> anyhow::Result<()> {
    let id = select::resolve(&context.client, &args.session.session).await?.id;
    let options =
        attach::Options { read_only: args.read_only, detach_keys: args.detach_keys.clone(), clipboard: args.clipboard };
    attach::attach(&context.client, id, &options).await
}

/// Whether a person sits at both ends.
fn at_a_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
