//! Final responses to requests other than INVITE, sent again when the request is repeated (RFC 3261 §17.2.2, state
//! Completed, until timer J).
//!
//! A power cut makes tens of thousands of them within seconds, so one costs its bytes and a few words: they lie one after
//! another in blocks, a block is given back whole when the youngest in it is over, and none has a timer of its own.
//!
//! One is found by a keyed hash over flow and transaction: a stranger who does not know the key cannot make two of them
//! meet, and a repeat from elsewhere is no repeat.

use super::{ServerKey, T64, Transmit};
use crate::flow::Flow;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Bytes of a block, and for how long one is filled.
const BLOCK: usize = 1 << 20;
const FILLED: Duration = Duration::from_secs(2);
/// Most blocks: 128 MiB. Beyond that the oldest goes early; a repeat of what it held counts as a new request.
const MOST: usize = 128;

/// See the module text.
#[derive(Debug, Default)]
pub struct Answered {
    hash: RandomState,
    places: HashMap<u64, Place>,
    blocks: VecDeque<Block>,
    /// The number of the first block.
    first: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    block: u64,
    begin: u32,
    end: u32,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    hashes: Vec<u64>,
    begun: Instant,
    /// The youngest is over.
    until: Instant,
}

impl Answered {
    /// Keeps the final response to a request for 64·T1.
    pub fn keep(&mut self, now: Instant, flow: Flow, key: &ServerKey, response: &Bytes) {
        let full = |block: &Block| block.bytes.len() + response.len() > BLOCK || now >= block.begun + FILLED;
        if self.blocks.back().is_none_or(full) {
            if self.blocks.len() == MOST {
                self.drop_first();
            }
            let bytes = Vec::with_capacity(BLOCK.max(response.len()));
            self.blocks.push_back(Block { bytes, hashes: Vec::new(), begun: now, until: now });
        }
        let number = self.first + self.blocks.len() as u64 - 1;
        let Some(block) = self.blocks.back_mut() else { return };
        let begin = block.bytes.len();
        block.bytes.extend_from_slice(response);
        let (Ok(begin), Ok(end)) = (u32::try_from(begin), u32::try_from(block.bytes.len())) else { return };
        let hash = self.hash.hash_one((flow, key));
        block.hashes.push(hash);
        block.until = now + T64;
        self.places.insert(hash, Place { block: number, begin, end });
    }

    /// Is it a repeat? Then its response goes out again.
    pub fn repeat(&self, flow: Flow, key: &ServerKey, out: &mut Vec<Transmit>) -> bool {
        let response = || {
            let place = self.places.get(&self.hash.hash_one((flow, key)))?;
            let block = self.blocks.get(usize::try_from(place.block.checked_sub(self.first)?).ok()?)?;
            block.bytes.get(place.begin as usize..place.end as usize)
        };
        let Some(response) = response() else { return false };
        out.push(Transmit { flow, bytes: Bytes::copy_from_slice(response) });
        true
    }

    /// When [`Answered::timeout`] has something to forget.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.blocks.front().map(|block| block.until)
    }

    pub fn timeout(&mut self, now: Instant) {
        while self.blocks.front().is_some_and(|block| block.until <= now) {
            self.drop_first();
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn drop_first(&mut self) {
        let Some(block) = self.blocks.pop_front() else { return };
        for hash in block.hashes {
            if self.places.get(&hash).is_some_and(|place| place.block == self.first) {
                self.places.remove(&hash);
            }
        }
        self.first += 1;
        if self.places.is_empty() {
            self.places.shrink_to_fit();
        }
    }
}

#[cfg(test)]
// A base for virtual time; no test waits.
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::flow::Transport;
    use crate::message::Message;

    fn flow(port: u16) -> Flow {
        let remote = ([192, 0, 2, 1], port).into();
        Flow { transport: Transport::Udp, local: ([203, 0, 113, 5], 6050).into(), remote }
    }

    fn key(n: usize) -> ServerKey {
        let text = format!(
            "REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP b;branch=z9hG4bK{n}\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:c@d>\r\n\
             Call-ID: e\r\nCSeq: 1 REGISTER\r\n\r\n"
        );
        ServerKey::of(&Message::parse(text.into()).unwrap()).unwrap()
    }

    #[test]
    fn a_repeat_hears_the_same_for_64_t1_and_only_where_it_came_from() {
        let start = Instant::now();
        let (mut answered, mut out) = (Answered::default(), Vec::new());
        answered.keep(start, flow(1), &key(1), &Bytes::from_static(b"first"));
        answered.keep(start, flow(1), &key(2), &Bytes::from_static(b"second"));
        assert!(answered.repeat(flow(1), &key(1), &mut out));
        assert_eq!(out, [Transmit { flow: flow(1), bytes: Bytes::from_static(b"first") }]);
        assert!(!answered.repeat(flow(2), &key(1), &mut out));
        assert!(!answered.repeat(flow(1), &key(3), &mut out));
        answered.timeout(start + T64 - Duration::from_millis(1));
        assert_eq!(answered.len(), 2);
        assert_eq!(answered.next_deadline(), Some(start + T64));
        answered.timeout(start + T64);
        assert!(answered.is_empty());
        assert_eq!(answered.next_deadline(), None);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let start = Instant::now();
        let (mut answered, mut out) = (Answered::default(), Vec::new());
        let large = Bytes::from(vec![b'x'; BLOCK]);
        for n in 0..=MOST {
            answered.keep(start, flow(1), &key(n), &large);
        }
        assert_eq!(answered.len(), MOST);
        assert!(!answered.repeat(flow(1), &key(0), &mut out));
        assert!(answered.repeat(flow(1), &key(MOST), &mut out));
    }
}
