//! What the egress gateway costs: a tunnel and an answer of a model, each beside the direct way and beside a bare relay, the first byte, and idle
//! tunnels.
//!
//! Everything is on loopback, in one run and interleaved. Client and server are threads of this program, so that two of the machine's cores are
//! busy on the direct way too. CPU time tells more than speed where others are at work: the kernel's part in a transfer is charged to whichever end
//! it runs on, so it is the sum that compares.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use agentapi_tests::dir::TempDir;
use agentapi_tests::process::Daemon;
use anyhow::Result;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike as _;

use crate::Options;
use crate::bare::relay;
use crate::processes::Process;
use crate::stats::{Samples, Table};

mod ends;
mod real;

use ends::{Tls, echo, read_all, request, secure, source};
use real::Gateway;

/// The name that leads to loopback in the gateway's own /etc/hosts.
const NAME: &str = "bench.test";
/// Idle tunnels of the bar.
const TUNNELS: usize = 2000;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Extent {
    rounds: usize,
    bytes: u64,
    requests: usize,
    tunnels: usize,
}

/// One transfer.
type Way<'a> = dyn Fn() -> Result<()> + 'a;

/// A way, and the process between its ends.
type Between<'a> = (&'a Way<'a>, Option<Process>);

/// What one way took in all rounds.
#[derive(Debug, Default)]
struct Taken {
    mb_per_second: Samples,
    /// Milliseconds for a gigabyte: of the client, the server, and what is between them.
    cpu: [Samples; 3],
}

#[derive(Debug)]
struct Tables {
    speed: Table,
    processors: Table,
}

/// What there is to measure, in one run.
#[derive(Debug)]
struct Bench {
    tls: Tls,
    source: SocketAddr,
    secure: SocketAddr,
    echo: SocketAddr,
    gateway: Gateway,
    tunnel: (Daemon, SocketAddr),
    model: (Daemon, SocketAddr),
    _dir: TempDir,
}

/// Runs the part.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let extent = Extent {
        rounds: options.count(9, 1),
        bytes: options.count(1 << 30, 1 << 24) as u64,
        requests: options.count(500, 5),
        tunnels: options.count(TUNNELS, 20),
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let bench = Bench::new(extent.bytes).await?;
    // Threads that block have no place on the one thread of the runtime.
    tokio::task::spawn_blocking(move || bench.measure(extent)).await?
}

impl Bench {
    async fn new(bytes: u64) -> Result<Self> {
        let dir = TempDir::new();
        let (authority, log) = (dir.path().join("ca.pem"), dir.path().join("log"));
        let tls = Tls::new(&authority)?;
        let (source, secure, echo) = (source(bytes)?, secure(&tls, bytes)?, echo()?);
        let gateway = Gateway::start(dir.path(), [source, secure, echo].map(|address| address.port()), secure)?;
        let tunnel = relay("bare-tunnel", &[&source.to_string()], &log).await?;
        let authority = authority.to_string_lossy().into_owned();
        let model = relay("bare-model", &[&secure.to_string(), NAME, &authority], &log).await?;
        Ok(Self { tls, source, secure, echo, gateway, tunnel, model, _dir: dir })
    }

    fn measure(&self, extent: Extent) -> Result<()> {
        let mut tables = Tables::new();
        self.tunnels(&mut tables, extent)?;
        self.answers(&mut tables, extent)?;
        tables.speed.print();
        tables.processors.print();
        let columns = ["", "direct", "through the gateway", "more"];
        let mut table = Table::new("Egress gateway: waiting and memory", &columns);
        let (direct, through) = (self.tls.connect(self.secure)?, TcpStream::connect(self.gateway.model)?);
        first_byte(&mut table, extent.requests, direct, through)?;
        idle(&mut table, &self.gateway, self.echo.port(), extent.tunnels)?;
        table.print();
        Ok(())
    }

    fn tunnels(&self, tables: &mut Tables, extent: Extent) -> Result<()> {
        let bytes = extent.bytes;
        let direct = || read_all(TcpStream::connect(self.source)?, bytes);
        let bare = || read_all(TcpStream::connect(self.tunnel.1)?, bytes);
        let through = || read_all(self.gateway.tunnel(self.source.port())?, bytes);
        let (relay, gateway) = (Process(self.tunnel.0.pid()), Process(self.gateway.pid()?));
        tables.compare("one tunnel", extent, &[(&direct, None), (&bare, Some(relay)), (&through, Some(gateway))])
    }

    fn answers(&self, tables: &mut Tables, extent: Extent) -> Result<()> {
        let plain = |address| {
            let mut stream = TcpStream::connect(address)?;
            request(&mut stream, "/large")?;
            read_all(stream, extent.bytes)
        };
        let direct = || {
            let mut stream = self.tls.connect(self.secure)?;
            request(&mut stream, "/large")?;
            read_all(stream, extent.bytes)
        };
        let (bare, through) = (|| plain(self.model.1), || plain(self.gateway.model));
        let (relay, gateway) = (Process(self.model.0.pid()), Process(self.gateway.pid()?));
        let ways: [Between<'_>; 3] = [(&direct, None), (&bare, Some(relay)), (&through, Some(gateway))];
        tables.compare("one answer of a model", extent, &ways)
    }
}

impl Tables {
    fn new() -> Self {
        let speed = ["MB/s", "direct", "bare relay", "gateway", "of direct", "of the relay"];
        let processors = ["ms of CPU for a GB", "client", "server", "between", "together"];
        Self {
            speed: Table::new("Egress gateway", &speed),
            processors: Table::new("Egress gateway: processors", &processors),
        }
    }

    /// The three ways in turn: directly, by the bare relay, by the gateway.
    fn compare(&mut self, what: &str, extent: Extent, ways: &[Between<'_>; 3]) -> Result<()> {
        let mut taken = [(); 3].map(|()| Taken::default());
        for _ in 0..extent.rounds {
            for ((way, between), taken) in ways.iter().zip(&mut taken) {
                taken.add(*way, *between, extent.bytes as f64 / 1e9)?;
            }
        }
        let [direct, bare, through] = &taken;
        let speed = |way: &Taken| format!("{:.0} ({})", way.mb_per_second.median(), way.mb_per_second.range());
        let share = |of: &Taken| format!("{:.0} %", 100.0 * through.mb_per_second.median() / of.mb_per_second.median());
        self.speed.row(&[what, &speed(direct), &speed(bare), &speed(through), &share(direct), &share(bare)]);
        for (way, taken) in ["direct", "bare relay", "gateway"].iter().zip(&taken) {
            let parts = taken.cpu.each_ref().map(Samples::median);
            let [client, server, between] = parts.map(|part| format!("{part:.0}"));
            let together = format!("{:.0}", parts.iter().sum::<f64>());
            self.processors.row(&[&format!("{what}, {way}"), &client, &server, &between, &together]);
        }
        Ok(())
    }
}

impl Taken {
    fn add(&mut self, way: &Way<'_>, between: Option<Process>, gigabytes: f64) -> Result<()> {
        let (before, start) = (used(between)?, Instant::now());
        way()?;
        self.mb_per_second.push(1e3 * gigabytes / start.elapsed().as_secs_f64());
        for ((samples, before), after) in self.cpu.iter_mut().zip(before).zip(used(between)?) {
            samples.push(1e3 * after.saturating_sub(before).as_secs_f64() / gigabytes);
        }
        Ok(())
    }
}

/// CPU time of this thread, of this program's others, and of a process.
fn used(between: Option<Process>) -> Result<[Duration; 3]> {
    let of = |who| -> Result<Duration> {
        let usage = getrusage(who)?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Ok(Duration::from_micros(micros.unsigned_abs()))
    };
    let (client, all) = (of(UsageWho::RUSAGE_THREAD)?, of(UsageWho::RUSAGE_SELF)?);
    let between = between.map_or(Ok(Duration::ZERO), |process| process.usage().map(|usage| usage.cpu))?;
    Ok([client, all.saturating_sub(client), between])
}

/// From a request on a connection that is open to the first byte of its answer.
fn first_byte(table: &mut Table, requests: usize, mut direct: impl Read + Write, mut through: TcpStream) -> Result<()> {
    through.set_nodelay(true)?;
    let (mut directs, mut throughs) = (Samples::default(), Samples::default());
    for _ in 0..requests {
        directs.push_us(one(&mut direct)?);
        throughs.push_us(one(&mut through)?);
    }
    let cell = |samples: &Samples| format!("{:.0} (p90 {:.0})", samples.median(), samples.quantile(0.9));
    let more = format!("+{:.0} µs", throughs.median() - directs.median());
    table.row(&["first byte of an answer, µs", &cell(&directs), &cell(&throughs), &more]);
    Ok(())
}

fn one(stream: &mut (impl Read + Write)) -> Result<Duration> {
    let start = Instant::now();
    request(stream, "/small")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let took = start.elapsed();
    let mut answer = byte.to_vec();
    while !answer.ends_with(b"small") {
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    Ok(took)
}

fn idle(table: &mut Table, gateway: &Gateway, port: u16, tunnels: usize) -> Result<()> {
    let process = Process(gateway.pid()?);
    let before = process.usage()?.rss_kib;
    let mut open = Vec::new();
    for _ in 0..tunnels {
        let mut tunnel = gateway.tunnel(port)?;
        // Both ways have moved something.
        tunnel.write_all(b"x")?;
        tunnel.read_exact(&mut [0])?;
        open.push(tunnel);
    }
    let after = process.usage()?.rss_kib;
    let (before, after) = (format!("{:.1} MB", before as f64 / 1024.0), format!("{:.1} MB", after as f64 / 1024.0));
    table.row(&[&format!("resident: none, {tunnels} idle tunnels"), &before, &after, ""]);
    Ok(())
}
