//! The way out: which socket or connection a flow is. Owned by the SIP thread, which never waits for a peer.

use super::udp::{Batch, Udp};
use super::{Counter, Counts, Opened};
use crate::flight::call_id;
use bytes::Bytes;
use sip_core::flow::{Flow, Transport};
use sip_core::timers::Timers;
use sip_core::transaction::Transmit;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;

/// RFC 3261 §18.1.1: larger requests belong on a stream, because UDP may have to cut them.
const LARGE: usize = 1300;
/// Call-IDs whose large request was told.
const TOLD: usize = 64;
/// How long a connection may last on which nobody has shown a right password: a phone registers, and a door calls, at once.
/// Otherwise strangers could hold all places there are.
const STRANGE: Duration = Duration::from_secs(60);

/// All ways to devices.
pub struct Wires {
    udp: Vec<Udp>,
    connections: HashMap<Flow, Opened>,
    /// When each is asked whether somebody has signed on it.
    strange: Timers<Flow>,
    counts: Arc<Counts>,
    told: VecDeque<String>,
}

impl Wires {
    pub fn new(udp: Vec<Udp>, counts: Arc<Counts>) -> Wires {
        Wires { udp, connections: HashMap::new(), strange: Timers::default(), counts, told: VecDeque::new() }
    }

    /// The place of a UDP socket that has something to read, looked for from `first` on: a flood at one must not starve the others.
    pub async fn readable(&self, first: usize) -> usize {
        poll_fn(|context| {
            let mut turn = (first..self.udp.len()).chain(0..first.min(self.udp.len()));
            turn.find(|at| self.udp[*at].poll_readable(context)).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// One batch of datagrams of the socket at this place; how many there were.
    pub fn read(&self, place: usize, batch: &mut Batch, take: impl FnMut(Flow, Bytes)) -> usize {
        self.udp.get(place).map_or(0, |socket| socket.read(batch, take))
    }

    /// Every name with its count.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let mut counts = self.counts.counts();
        counts.push(("udp_lost", self.udp.iter().map(|socket| socket.lost).sum()));
        counts
    }

    /// Takes over a connection; gives the flow back if an older one had the same addresses.
    pub fn open(&mut self, now: Instant, opened: Opened) -> Option<Flow> {
        self.strange.set(opened.flow, Some(now + STRANGE));
        self.connections.insert(opened.flow, opened).map(|before| before.flow)
    }

    /// `false`: that connection is not the one we know by this flow.
    pub fn close(&mut self, flow: &Flow, id: u64) -> bool {
        let known = self.connections.get(flow).is_some_and(|connection| connection.id == id);
        known && self.let_go(flow)
    }

    /// A connection that has had its time to be signed on. Asked once.
    pub fn due(&mut self, now: Instant) -> Option<Flow> {
        self.strange.pop(now)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.strange.next()
    }

    /// Nobody has signed on it.
    pub fn close_strange(&mut self, flow: &Flow) {
        if self.let_go(flow) {
            self.counts.add(Counter::Strange);
        }
    }

    fn let_go(&mut self, flow: &Flow) -> bool {
        self.strange.set(*flow, None);
        self.connections.remove(flow).is_some()
    }

    /// Sends at once or not at all. `false`: the connection is gone, or its peer does not read and it goes now.
    pub fn send(&mut self, transmit: &Transmit) -> bool {
        if !transmit.flow.transport.is_reliable() {
            self.warn_if_large(transmit);
            if let Some(socket) = self.udp.iter_mut().find(|socket| socket.owns(transmit.flow.local)) {
                socket.send(&transmit.flow, &transmit.bytes);
            }
            return true;
        }
        let Some(connection) = self.connections.get(&transmit.flow) else {
            self.counts.add(Counter::NoConnection);
            return false;
        };
        match connection.messages.try_send(transmit.bytes.clone()) {
            Ok(()) => return true,
            Err(TrySendError::Full(_)) => self.counts.add(Counter::WriteQueueFull),
            Err(TrySendError::Closed(_)) => self.counts.add(Counter::NoConnection),
        }
        self.let_go(&transmit.flow);
        false
    }

    /// A device offers TCP by registering over it; nothing is ever opened towards one (most are behind NAT). So a large
    /// request goes out over UDP all the same, and the operator learns once per call why a picture may fail to come.
    fn warn_if_large(&mut self, transmit: &Transmit) {
        if transmit.bytes.len() <= LARGE || transmit.flow.transport != Transport::Udp || transmit.bytes.starts_with(b"SIP/") {
            return;
        }
        let call_id = call_id(&transmit.bytes).unwrap_or_default();
        if self.told.iter().any(|told| told == call_id) {
            return;
        }
        self.counts.add(Counter::RequestOver1300);
        tracing::warn!(call_id, flow = %transmit.flow, bytes = transmit.bytes.len(), "a large request goes over UDP; TCP at the device avoids fragments");
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        self.told.push_back(call_id.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tokio::sync::mpsc;

    fn flow(transport: Transport) -> Flow {
        Flow { transport, local: ([127, 0, 0, 1], 6050).into(), remote: ([127, 0, 0, 2], 5060).into() }
    }

    fn opened(id: u64, queue: usize) -> (Opened, mpsc::Receiver<Bytes>) {
        let (messages, outbox) = mpsc::channel(queue);
        (Opened { flow: flow(Transport::Tcp), id, messages }, outbox)
    }

    #[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
    fn start() -> Instant {
        Instant::now()
    }

    fn transmit(transport: Transport, bytes: impl Into<Bytes>) -> Transmit {
        Transmit { flow: flow(transport), bytes: bytes.into() }
    }

    #[test]
    fn a_large_request_over_udp_is_told_once_per_call() {
        let counts = Arc::new(Counts::default());
        let mut wires = Wires::new(Vec::new(), counts.clone());
        let large = |start: &str, call_id: &str| format!("{start}\r\nCall-ID: {call_id}\r\nX: {}\r\n\r\n", "x".repeat(1300));
        for (start, call_id) in [("INVITE sip:a SIP/2.0", "a"), ("INVITE sip:a SIP/2.0", "a"), ("SIP/2.0 200 OK", "b")] {
            wires.send(&transmit(Transport::Udp, large(start, call_id)));
        }
        assert_eq!(counts.get(Counter::RequestOver1300), 1);
        wires.send(&transmit(Transport::Udp, large("INVITE sip:a SIP/2.0", "c")));
        wires.send(&transmit(Transport::Tcp, large("INVITE sip:a SIP/2.0", "d")));
        assert_eq!(counts.get(Counter::RequestOver1300), 2);
    }

    #[test]
    fn a_peer_that_does_not_read_loses_its_connection() {
        let counts = Arc::new(Counts::default());
        let mut wires = Wires::new(Vec::new(), counts.clone());
        let (connection, outbox) = opened(1, 1);
        assert_eq!(wires.open(start(), connection), None);
        let message = transmit(Transport::Tcp, "x");
        assert!(wires.send(&message));
        assert!(!wires.send(&message), "its queue is full");
        assert!(outbox.is_closed(), "the connection's task is told");
        assert!(!wires.send(&message), "it is gone");
        assert_eq!((counts.get(Counter::WriteQueueFull), counts.get(Counter::NoConnection)), (1, 1));
        assert!(!wires.close(&message.flow, 1), "its end is known already");
    }

    #[test]
    fn the_end_of_an_older_connection_with_the_same_addresses_is_not_that_of_the_newer() {
        let mut wires = Wires::new(Vec::new(), Arc::default());
        let (older, _outbox) = opened(1, 1);
        let (newer, _outbox) = opened(2, 1);
        let flow = older.flow;
        assert_eq!((wires.open(start(), older), wires.open(start(), newer)), (None, Some(flow)));
        assert!(!wires.close(&flow, 1));
        assert!(wires.close(&flow, 2));
    }
    #[test]
    fn a_connection_is_asked_once_whether_somebody_signed_on_it() {
        let (counts, now) = (Arc::new(Counts::default()), start());
        let mut wires = Wires::new(Vec::new(), counts.clone());
        let (connection, outbox) = opened(1, 1);
        let flow = connection.flow;
        wires.open(now, connection);
        assert_eq!(wires.next_deadline(), Some(now + STRANGE));
        assert_eq!(wires.due(now), None);
        assert_eq!(wires.due(now + STRANGE), Some(flow));
        assert_eq!(wires.due(now + STRANGE * 2), None);
        wires.close_strange(&flow);
        assert!(outbox.is_closed());
        assert_eq!(counts.get(Counter::Strange), 1);
        let (connection, _outbox) = opened(2, 1);
        wires.open(now, connection);
        assert!(wires.close(&flow, 2));
        assert_eq!(wires.due(now + STRANGE), None, "it is gone already");
    }
}
