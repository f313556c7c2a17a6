//! `session input` and `session screen`: a terminal without a terminal.

use std::io::{IsTerminal as _, Read as _};

use agentapi_shared::SessionId;
use agentapi_shared::api::{INPUT_BYTES_MAX, InputWritten, ScreenFormat, SendInput};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Context, select};
use crate::args::{InputArgs, ScreenArgs};
use crate::attach::{Filter, FilterPolicy};
use crate::client::Client;
use crate::failure::{ExitKind, Failure};
use crate::output::{self, Format};

/// Bytes of one request: base64 makes them a third more, and the limit is one of the request.
const CHUNK_BYTES: usize = INPUT_BYTES_MAX / 2;

pub(super) async fn input(context: &Context<'_>, args: &InputArgs) -> anyhow::Result<()> {
    let from_stdin = args.text.is_none() && args.keys.is_empty();
    if from_stdin && std::io::stdin().is_terminal() {
        let words = "nothing to type: give --text or --keys, or pipe it in (to type yourself: agentapi session attach)";
        return Err(Failure::new(ExitKind::Usage, words).into());
    }
    let id = select::resolve(&context.client, &args.session.session).await?.id;
    let written = if from_stdin {
        pipe(&context.client, id).await?
    } else {
        let text = args.text.clone().map(|text| SendInput { text: Some(text), ..SendInput::default() });
        let keys = (!args.keys.is_empty()).then(|| SendInput { keys: Some(args.keys.clone()), ..SendInput::default() });
        send_all(&context.client, id, text.into_iter().chain(keys)).await?
    };
    if context.format == Format::Json {
        output::json(&written)?;
    }
    Ok(())
}

/// Sends one after the other; the sum of what was written, and the offset at the last.
async fn send_all(
    client: &Client,
    id: SessionId,
    inputs: impl IntoIterator<Item = SendInput>,
) -> Result<InputWritten, Failure> {
    let mut sum = InputWritten { written: 0, offset: 0 };
    for input in inputs {
        let written = client.input(id, &input).await?;
        sum = InputWritten { written: sum.written + written.written, offset: written.offset };
    }
    Ok(sum)
}

async fn pipe(client: &Client, id: SessionId) -> anyhow::Result<InputWritten> {
    let mut sum = InputWritten { written: 0, offset: 0 };
    loop {
        // Blocks the one thread of this program, which has nothing else to do meanwhile.
        let mut chunk = Vec::new();
        std::io::stdin().lock().take(CHUNK_BYTES as u64).read_to_end(&mut chunk).context("cannot read stdin")?;
        if chunk.is_empty() {
            return Ok(sum);
        }
        let input = SendInput { bytes_base64: Some(STANDARD.encode(&chunk)), ..SendInput::default() };
        let written = send_all(client, id, [input]).await?;
        sum = InputWritten { written: sum.written + written.written, offset: written.offset };
    }
}

pub(super) async fn screen(context: &Context<'_>, args: &ScreenArgs) -> anyhow::Result<()> {
    let id = select::resolve(&context.client, &args.session.session).await?.id;
    let format = if args.ansi { ScreenFormat::Ansi } else { ScreenFormat::Text };
    let screen = context.client.screen(id, format, args.scrollback, args.spawn, None).await?;
    match (context.format, format) {
        (Format::Json, _) => output::json(&screen)?,
        (Format::Text, ScreenFormat::Text) => output::line(output::clean_lines(&screen.text).trim_end_matches('\n')),
        (Format::Text, ScreenFormat::Ansi) => {
            // Colours may reach our terminal, questions and clipboard writes may not.
            let mut filter = Filter::new(FilterPolicy { clipboard: false });
            let mut out = Vec::with_capacity(screen.text.len());
            filter.push(screen.text.as_bytes(), &mut out);
            output::bytes(&out);
            output::line("\u{1b}[m");
        }
    }
    Ok(())
}
