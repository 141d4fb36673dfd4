//! Sockets under the SIP thread: UDP, and connections (TCP, TLS, WebSocket), each a task of its own. All of them put what
//! they hear into one bounded queue; whatever is refused, dropped or given up has a name in [`Counts`].

pub mod connection;
pub mod listener;
pub mod strangers;
pub mod tls;
pub mod udp;
pub mod wires;
mod ws;

use bytes::Bytes;
use sip_core::flow::Flow;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// What the SIP thread hears from the sockets.
#[derive(Debug)]
pub enum Incoming {
    /// One message, by whatever transport.
    Message(Flow, Bytes),
    /// A connection is open; messages for it go into its queue.
    Opened(Opened),
    /// It is gone.
    Closed { flow: Flow, id: u64 },
}

/// An open connection, for as long as the SIP thread keeps this.
#[derive(Debug)]
pub struct Opened {
    pub flow: Flow,
    /// Tells connections apart that have the same addresses one after the other.
    pub id: u64,
    /// Letting go of it closes the connection.
    pub messages: mpsc::Sender<Bytes>,
}

/// What is counted. The names are what operators see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    Opened,
    /// The peer closed it or reset it.
    ClosedByPeer,
    ClosedByUs,
    LimitTotal,
    LimitPerSource,
    /// The system has no socket left.
    AcceptFailed,
    /// TLS or WebSocket did not come about.
    HandshakeFailed,
    /// A WebSocket for something else than SIP (RFC 7118 §4).
    NoSubprotocol,
    /// No whole message in time after the beginning, or a message begun and not ended.
    HalfOpen,
    Idle,
    /// Nobody has signed on it in time.
    Strange,
    /// WebSocket pings without an answer.
    PingUnanswered,
    /// Messages for a peer that does not read.
    WriteQueueFull,
    WriteStuck,
    Garbage,
    HeadTooLong,
    BodyTooLong,
    WithoutLength,
    /// A message for a connection that is gone.
    NoConnection,
    /// A request of ours larger than UDP carries well (RFC 3261 §18.1.1), sent to a peer that only offers UDP.
    RequestOver1300,
}

const NAMES: [&str; 20] = [
    "stream_opened",
    "stream_closed_by_peer",
    "stream_closed_by_us",
    "stream_limit_total",
    "stream_limit_per_source",
    "stream_accept_failed",
    "stream_handshake_failed",
    "ws_without_sip_subprotocol",
    "stream_half_open",
    "stream_idle",
    "stream_unsigned",
    "ws_ping_unanswered",
    "stream_write_queue_full",
    "stream_write_stuck",
    "stream_garbage",
    "stream_head_too_long",
    "stream_body_too_long",
    "stream_without_length",
    "stream_no_connection",
    "request_over_1300",
];

/// Named counts of all sockets.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; NAMES.len()]);

impl Counts {
    pub fn add(&self, counter: Counter) {
        self.0[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// Every name with its count.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        NAMES.iter().zip(&self.0).map(|(name, count)| (*name, count.load(Ordering::Relaxed))).collect()
    }
}

impl Counter {
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_name() {
        let counts = Counts::default();
        for (counter, name) in [
            (Counter::Opened, "stream_opened"),
            (Counter::NoSubprotocol, "ws_without_sip_subprotocol"),
            (Counter::WriteStuck, "stream_write_stuck"),
            (Counter::WithoutLength, "stream_without_length"),
            (Counter::RequestOver1300, "request_over_1300"),
        ] {
            counts.add(counter);
            assert_eq!(counter.name(), name);
            assert!(counts.counts().contains(&(name, 1)));
        }
    }
}
