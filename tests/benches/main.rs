//! The benchmarks: what the whole product costs, each figure beside a peer or a physical limit measured in the same run.
//!
//! Prints Markdown. Nothing here is asserted but that it worked: figures belong to a machine and an hour, and only those of one run compare.
//! `cargo bench -p agentapi-tests -- [echo] [throughput] [unwatched] [idle] [start] [stalled] [queries] [gateway] [audit] [store] [embedded] [pages] [jail] [--quick] [--sessions N,N] [--against DIR]`
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its figures are its output, its progress goes beside them"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

mod audit;
mod bare;
mod echo;
mod embedded;
mod gateway;
mod idle;
mod jail;
mod log_text;
mod machine;
mod pages;
mod peers;
mod processes;
mod pty;
mod queries;
mod stalled;
mod start;
mod stats;
mod store;
mod throughput;
mod timed_command;
mod unwatched;
mod viewers;

/// What to run, and how much of it.
#[derive(Debug)]
struct Options {
    wanted: Vec<String>,
    /// Small counts: shows that everything works, measures nothing.
    quick: bool,
    sessions: Vec<usize>,
    /// Another build of the product, measured beside this one.
    against: Option<PathBuf>,
}

const ALL: [&str; 13] = [
    "echo",
    "throughput",
    "unwatched",
    "idle",
    "start",
    "stalled",
    "queries",
    "gateway",
    "audit",
    "store",
    "embedded",
    "pages",
    "jail",
];

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self { wanted: Vec::new(), quick: false, sessions: Vec::new(), against: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                // cargo's own.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--sessions" => {
                    let counts = words.next().map(String::as_str).unwrap_or_default();
                    options.sessions = counts.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--against" => options.against = words.next().map(PathBuf::from),
                name if ALL.contains(&name) => options.wanted.push(name.to_owned()),
                other => bail!("unknown: {other}; there are {ALL:?}, --quick, --sessions N,N, --against DIR"),
            }
        }
        if options.sessions.is_empty() {
            options.sessions = if options.quick { vec![2] } else { vec![1, 100, 500] };
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == name)
    }

    /// `full`, or `small` in a quick run.
    fn count(&self, full: usize, small: usize) -> usize {
        if self.quick { small } else { full }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // The bare relay's processes are this program again.
    let outcome = match words.split_first() {
        Some((role, rest)) if role.starts_with("bare-") => bare::play(role, rest),
        _ => Options::parse(&words).and_then(|options| run(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    // One thread: what measures must not spread over the cores of what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("{}", machine::facts()?);
        for name in ALL {
            if !options.wants(name) {
                continue;
            }
            eprintln!("measuring {name}");
            match name {
                "echo" => echo::run(options).await?,
                "throughput" => throughput::run(options).await?,
                "unwatched" => unwatched::run(options).await?,
                "idle" => {
                    idle::run(options).await?;
                    viewers::run(options).await?;
                }
                "start" => start::run(options).await?,
                "stalled" => stalled::run(options).await?,
                "queries" => queries::run(options).await?,
                "gateway" => gateway::run(options).await?,
                "audit" => audit::run(options).await?,
                "store" => store::run(options).await?,
                "embedded" => embedded::run(options).await?,
                "pages" => pages::run(options).await?,
                // Last: it gives up the sight of control groups.
                _ => jail::run(options).await?,
            }
        }
        println!("load at the end: {}", machine::load());
        Ok(())
    })
}
