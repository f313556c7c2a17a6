//! The keyframe that follows a change of size.
//!
//! Terminals lay long rows out anew each in its own way, also those of the primary screen behind an alternate one. What the program does not
//! draw again would stay different from the host's screen, so that later output lands in the wrong place. The keyframe is sent exactly
//! at its offset, between the bytes before and after it, so no byte is skipped and the offsets stay whole.

use std::time::Duration;

use tokio::time::Instant;

use crate::relay::feed::{Feed, KeptKeyframe};

/// A size has settled when no other followed for this long: a window that is dragged has many.
const SETTLED_AFTER: Duration = Duration::from_millis(250);

/// Keyframes asked for after one change. A program that prints so much that each comes too late has scrolled its screen away.
const TRIES_MAX: u32 = 4;

/// Where it stands with that keyframe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Refresh {
    /// None is needed.
    #[default]
    Idle,
    /// The size may change again until then.
    Settling { until: Instant, tries: u32 },
    /// To be asked for.
    Due { tries: u32 },
    /// The one with this number will do.
    Asked { number: u64, tries: u32 },
}

impl Refresh {
    /// The viewer was told another size.
    pub(super) fn resized(&mut self) {
        *self = Self::Settling { until: Instant::now() + SETTLED_AFTER, tries: 0 };
    }

    /// When it wants to be looked at.
    pub(super) fn timer(&self) -> Option<Instant> {
        if let Self::Settling { until, .. } = self { Some(*until) } else { None }
    }

    /// The time may have come.
    pub(super) fn timer_fired(&mut self, now: Instant) {
        if let Self::Settling { until, tries } = *self
            && until <= now
        {
            *self = Self::Due { tries };
        }
    }

    /// What was asked of this feed will not be answered.
    pub(super) fn feed_left(&mut self) {
        if let Self::Asked { tries, .. } = *self {
            *self = Self::Due { tries };
        }
    }

    /// The keyframe to be sent as soon as the viewer, now at `offset` with marks up to `mark`, has the output before it.
    pub(super) fn keyframe(&mut self, feed: &Feed, offset: u64, mark: u64) -> Option<KeptKeyframe> {
        if let Self::Due { tries } = *self {
            // A stream that was sent to its end answers nothing more.
            let asks = tries < TRIES_MAX && feed.end().is_none();
            *self = if asks { Self::Asked { number: feed.request_keyframe(), tries: tries + 1 } } else { Self::Idle };
        }
        let Self::Asked { number, tries } = *self else { return None };
        let kept = feed.keyframe_from(number)?;
        if kept.offset < offset || kept.mark < mark {
            *self = Self::Settling { until: Instant::now() + SETTLED_AFTER, tries };
            return None;
        }
        Some(kept)
    }
}
