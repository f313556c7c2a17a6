//! The three processes of the bare relay. Each ends when the one before it does.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, connect_async_with_config};

use crate::pty::SIZE;

const READ_BYTES: usize = 64 * 1024;

#[expect(clippy::print_stdout, reason = "how it says that it is ready")]
pub(super) fn ready(line: &str) -> Result<()> {
    println!("{line}");
    Ok(std::io::stdout().flush()?)
}

/// No message waits for the next.
fn config() -> WebSocketConfig {
    WebSocketConfig::default().write_buffer_size(0)
}

/// A PTY and a Unix socket, one poll over both; reads the PTY until it is empty or the buffer full, as the product's shim does.
pub(super) fn shim(socket: &Path, command: &[String]) -> Result<()> {
    let size = Winsize { ws_row: SIZE.rows, ws_col: SIZE.cols, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None)?;
    // A command that held the master could never see it close.
    fcntl(&pair.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let (program, args) = command.split_first().context("a command")?;
    let slave = || pair.slave.try_clone();
    let mut spawning = Command::new(program);
    spawning.args(args).env("TERM", "xterm-256color").stdin(slave()?).stdout(slave()?).stderr(slave()?);
    let mut child = spawning.spawn()?;
    // The command holds copies of the other side too.
    drop(spawning);
    drop(pair.slave);
    fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut master = File::from(pair.master);
    let listener = UnixListener::bind(socket)?;
    ready("ready")?;
    let (mut supervisor, _) = listener.accept()?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let interest = PollFlags::POLLIN;
        let mut fds = [PollFd::new(supervisor.as_fd(), interest), PollFd::new(master.as_fd(), interest)];
        poll(&mut fds, PollTimeout::NONE)?;
        let [typed, printed] = fds.map(|fd| fd.any().unwrap_or(false));
        if typed {
            let count = supervisor.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            master.write_all(buffer.get(..count).unwrap_or_default())?;
        }
        if printed {
            let filled = drain(&mut master, &mut buffer);
            if filled == 0 {
                break;
            }
            supervisor.write_all(buffer.get(..filled).unwrap_or_default())?;
        }
    }
    let _gone = child.kill();
    let _status = child.wait();
    Ok(())
}

fn drain(master: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match master.read(rest) {
            Ok(count) if count > 0 => filled += count,
            _ => break,
        }
    }
    filled
}

/// The Unix socket of the shim and the WebSocket to the plane.
pub(super) async fn supervisor(socket: &Path, plane: &str) -> Result<()> {
    let (mut from_shim, mut to_shim) = UnixStream::connect(socket).await?.into_split();
    let (ws, _) = connect_async_with_config(format!("ws://{plane}/"), Some(config()), true).await?;
    ready("ready")?;
    let (mut sink, mut stream) = ws.split();
    let up = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            if from_shim.read_buf(&mut buffer).await? == 0 {
                break;
            }
            sink.send(Message::Binary(buffer.split().freeze())).await?;
        }
        anyhow::Ok(())
    };
    let down = async {
        while let Some(message) = stream.next().await {
            to_shim.write_all(&message?.into_data()).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! { ended = up => ended, ended = down => ended }
}

/// Two WebSockets, one to the host and one to the viewer.
pub(super) async fn plane() -> Result<()> {
    let (hosts, viewers) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    ready(&format!("{} {}", hosts.local_addr()?, viewers.local_addr()?))?;
    let (host, viewer) = (accept(&hosts).await?, accept(&viewers).await?);
    let (mut to_host, mut from_host) = host.split();
    let (mut to_viewer, mut from_viewer) = viewer.split();
    let down = async {
        while let Some(message) = from_viewer.next().await {
            to_host.send(passed_on(message?)).await?;
        }
        anyhow::Ok(())
    };
    let up = async {
        while let Some(message) = from_host.next().await {
            to_viewer.send(passed_on(message?)).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! { ended = up => ended, ended = down => ended }
}

async fn accept(listener: &TcpListener) -> Result<WebSocketStream<TcpStream>> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(accept_async_with_config(stream, Some(config())).await?)
}

fn passed_on(message: Message) -> Message {
    let bytes: Bytes = message.into_data();
    Message::Binary(bytes)
}
