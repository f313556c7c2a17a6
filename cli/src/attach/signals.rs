//! Signals while the terminal is raw: each has to come by here, so that the terminal is given back first.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal means here.
pub(super) enum SignalEvent {
    /// The terminal has another size.
    Resized,
    /// This program is to end, by the signal of this number.
    End(i32),
}

/// The signals that concern an attached terminal.
pub(super) struct Signals {
    resized: Signal,
    ends: [(SignalKind, Signal); 4],
}

impl Signals {
    /// Listens from now on.
    pub(super) fn new() -> std::io::Result<Self> {
        let end = |kind: SignalKind| signal(kind).map(|signal| (kind, signal));
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            ends: [
                end(SignalKind::interrupt())?,
                end(SignalKind::terminate())?,
                end(SignalKind::hangup())?,
                end(SignalKind::quit())?,
            ],
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> SignalEvent {
        let [a, b, c, d] = &mut self.ends;
        let kind = tokio::select! {
            _ = self.resized.recv() => return SignalEvent::Resized,
            _ = a.1.recv() => a.0,
            _ = b.1.recv() => b.0,
            _ = c.1.recv() => c.0,
            _ = d.1.recv() => d.0,
        };
        SignalEvent::End(kind.as_raw_value())
    }
}
