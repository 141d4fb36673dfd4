//! What one stream of one leg sends: one source, numbered without gaps whoever feeds it (RFC 3550 §5.1).

use crate::command::{Codec, StreamPlan};
use crate::dtmf::Told;
use crate::quality::ticks;
use crate::rtp;
use std::time::Instant;

/// A numbering: a source's own, or that of its sound in another codec.
pub(crate) type Numbering = (u32, Option<Codec>);

/// The source a sink is fed from, and what turns its numbers into ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed {
    pub ssrc: u32,
    /// Its sound in this codec, if it is not what it sends.
    pub converted: Option<Codec>,
    seq: u16,
    timestamp: u32,
}

impl Feed {
    /// A timestamp of the source on our time line.
    pub fn timestamp(&self, theirs: u32) -> u32 {
        theirs.wrapping_add(self.timestamp)
    }
}

/// What a receiver has of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picture {
    Nothing,
    /// This key frame of the cache, and nothing after it.
    Still {
        generation: u64,
    },
    /// Everything that comes after this number of the source.
    Live {
        after: u16,
    },
}

/// See the module text.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    pub feed: Option<Feed>,
    /// Last packet sent: sequence number, timestamp, when.
    pub last: Option<(u16, u32, Instant)>,
    pub picture: Picture,
    /// Its first picture has been told of.
    pub told: bool,
    /// Audio: the last press that went out.
    pub press: Option<Told>,
}

impl Sink {
    pub fn new() -> Sink {
        Sink { feed: None, last: None, picture: Picture::Nothing, told: false, press: None }
    }

    /// The picture begins anew with the next key frame.
    pub fn restart(&mut self) {
        self.picture = Picture::Nothing;
    }

    /// Our numbers for a packet of the feed. A new feed goes on where the last one ended, its timestamps by the time that
    /// has passed, so the receiver's buffer sees one stream.
    pub fn number(
        &mut self,
        now: Instant,
        plan: &StreamPlan,
        (ssrc, converted): Numbering,
        (seq, ts): (u16, u32),
        clock: u32,
    ) -> (u16, u32) {
        let feed = match self.feed {
            Some(feed) if (feed.ssrc, feed.converted) == (ssrc, converted) => feed,
            _ => {
                let (next_seq, next_ts) = self.next(now, plan, clock);
                Feed { ssrc, converted, seq: next_seq.wrapping_sub(seq), timestamp: next_ts.wrapping_sub(ts) }
            }
        };
        self.feed = Some(feed);
        let (out_seq, out_ts) = (seq.wrapping_add(feed.seq), feed.timestamp(ts));
        if self.last.is_none_or(|(last, ..)| rtp::later(out_seq, last)) {
            self.last = Some((out_seq, out_ts, now));
        }
        (out_seq, out_ts)
    }

    /// Room for `count` packets between the newest packet of the feed, given by source, sequence number and timestamp, and the
    /// one after it. Returns the first number of the room and the timestamp of the newest packet on our time line.
    pub fn make_room(
        &mut self,
        now: Instant,
        plan: &StreamPlan,
        (ssrc, seq, ts): (u32, u16, u32),
        clock: u32,
        count: u16,
    ) -> (u16, u32) {
        let (first, next_ts) = self.next(now, plan, clock);
        let timestamp = match self.feed {
            Some(feed) if feed.ssrc == ssrc => feed.timestamp,
            _ => next_ts.wrapping_sub(ts),
        };
        let end = first.wrapping_add(count);
        let feed = Feed { ssrc, converted: None, seq: end.wrapping_sub(seq.wrapping_add(1)), timestamp };
        self.feed = Some(feed);
        self.last = Some((end.wrapping_sub(1), feed.timestamp(ts), now));
        (first, feed.timestamp(ts))
    }

    /// Numbers of a packet that is no feed's, and which ends the present one.
    pub fn insert(&mut self, now: Instant, plan: &StreamPlan, clock: u32) -> (u16, u32) {
        let next = self.next(now, plan, clock);
        self.last = Some((next.0, next.1, now));
        self.feed = None;
        next
    }

    /// The packet just numbered, if it is the last one, covers so much from `ts` on.
    pub fn lasted(&mut self, seq: u16, ts: u32, duration: u16) {
        if let Some(last) = self.last.as_mut().filter(|last| last.0 == seq) {
            last.1 = ts.wrapping_add(u32::from(duration));
        }
    }

    /// The next sequence number, and the timestamp by the time that has passed.
    pub fn next(&self, now: Instant, plan: &StreamPlan, clock: u32) -> (u16, u32) {
        match self.last {
            Some((seq, ts, at)) => (seq.wrapping_add(1), ts.wrapping_add(ticks(now.saturating_duration_since(at), clock).max(1))),
            None => (plan.first_seq, plan.first_timestamp),
        }
    }
}
