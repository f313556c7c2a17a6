//! The local control socket: what an operator on this host may ask the running daemon, with or without a control plane.
//!
//! One request line of JSON, answer lines of JSON. Only the daemon's own user reaches it: it lies in a directory of mode 0700.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::runtime::OnEnd;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::config::StopAllOptions;
use crate::files;
use crate::registry::Registry;

/// Name in the state directory.
const SOCKET: &str = "supervisor.sock";
/// A request is some dozen bytes.
const REQUEST_BYTES_MAX: u64 = 4096;
/// A request must come at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    StopAll { grace_ms: u64 },
}

/// Binds the socket, in place of one that a killed daemon has left.
pub(crate) fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let path = state_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    files::with_short_path(state_dir, SOCKET, |path| UnixListener::bind(path))
}

/// Serves requests, each in a task of its own.
pub(crate) async fn serve(registry: Arc<Registry>, listener: UnixListener) {
    let cancelled = registry.tasks().cancelled();
    loop {
        let accepted = tokio::select! {
            () = cancelled.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                let serving = Arc::clone(&registry);
                registry.tasks().spawn("control request", OnEnd::Continue, async move {
                    if let Err(error) = answer(&serving, socket).await {
                        warn!(%error, "a control request failed");
                    }
                });
            }
            Err(error) => warn!(%error, "the control socket cannot accept"),
        }
    }
}

async fn answer(registry: &Registry, mut socket: UnixStream) -> io::Result<()> {
    let mut line = String::new();
    let (reader, writer) = socket.split();
    let mut reader = tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let mut writer = writer;
    match serde_json::from_str(&line)? {
        Request::StopAll { grace_ms } => {
            let (told, counted) = tokio::sync::oneshot::channel();
            let stopping = registry.stop_all(grace_ms, |count| {
                // The caller may be gone; the sessions are stopped all the same.
                let _told = told.send(count);
            });
            tokio::pin!(stopping);
            let announce = async {
                let count = counted.await.unwrap_or(0);
                writer.write_all(format!("{{\"sessions\":{count}}}\n").as_bytes()).await
            };
            let (stopped, _announced) = tokio::join!(&mut stopping, announce);
            writer.write_all(format!("{{\"stopped\":{stopped}}}\n").as_bytes()).await
        }
    }
}

/// The other end: asks, and prints the answers as they come.
pub(crate) fn stop_all(options: &StopAllOptions) -> ExitCode {
    match ask(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _told = writeln!(
                io::stderr(),
                "agentapi-supervisor: no supervisor answers in {}: {error}",
                options.state_dir.display()
            );
            ExitCode::FAILURE
        }
    }
}

fn ask(options: &StopAllOptions) -> io::Result<()> {
    let connect = |path: &Path| std::os::unix::net::UnixStream::connect(path);
    let mut socket = files::with_short_path(&options.state_dir, SOCKET, connect)?;
    let mut request = serde_json::to_vec(&Request::StopAll { grace_ms: options.grace_ms })?;
    request.push(b'\n');
    socket.write_all(&request)?;
    let mut out = io::stdout().lock();
    for line in BufReader::new(socket).lines() {
        writeln!(out, "{}", line?)?;
        out.flush()?;
    }
    Ok(())
}
