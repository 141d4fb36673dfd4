//! What one stream of one leg sends: one source, numbered without gaps whoever feeds it (RFC 3550 §5.1).

use crate::command::StreamPlan;
use crate::rtp::{self, Rtp};
use std::time::Instant;

/// What one stream of one leg sends: its own source, numbered without gaps whoever feeds it.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    /// The source it is fed from, and what turns its numbers into ours.
    pub feed: Option<(u32, u16, u32)>,
    /// Last packet sent: sequence number, timestamp, when.
    pub last: Option<(u16, u32, Instant)>,
    /// Video: a key frame has begun.
    pub started: bool,
    pub told: bool,
}

impl Sink {
    pub fn new() -> Sink {
        Sink { feed: None, last: None, started: false, told: false }
    }

    /// Our numbers for a packet of the feed. A new feed goes on where the last one ended, its timestamps by the time that
    /// has passed, so the receiver's buffer sees one stream.
    pub fn number(&mut self, now: Instant, plan: &StreamPlan, packet: &Rtp<'_>, clock: u32) -> (u16, u32) {
        let (ssrc, seq, ts) = (packet.ssrc(), packet.sequence(), packet.timestamp());
        let (seq_offset, ts_offset) = match self.feed {
            Some((fed, seq_offset, ts_offset)) if fed == ssrc => (seq_offset, ts_offset),
            _ => {
                let (next_seq, next_ts) = match self.last {
                    Some((last_seq, last_ts, at)) => {
                        let passed = now.saturating_duration_since(at).as_micros() * u128::from(clock) / 1_000_000;
                        (last_seq.wrapping_add(1), last_ts.wrapping_add((passed as u32).max(1)))
                    }
                    None => (plan.first_seq, plan.first_timestamp),
                };
                let offsets = (next_seq.wrapping_sub(seq), next_ts.wrapping_sub(ts));
                self.feed = Some((ssrc, offsets.0, offsets.1));
                offsets
            }
        };
        let (out_seq, out_ts) = (seq.wrapping_add(seq_offset), ts.wrapping_add(ts_offset));
        if self.last.is_none_or(|(last, ..)| rtp::later(out_seq, last)) {
            self.last = Some((out_seq, out_ts, now));
        }
        (out_seq, out_ts)
    }
}
