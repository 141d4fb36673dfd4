//! Where the datagrams of strangers wait: those of addresses that the Switchboard knows are handled at once, so that a flood
//! overflows this queue and nothing else.

use bytes::Bytes;
use sip_core::flow::Flow;
use std::collections::VecDeque;

/// Datagrams that may wait: a fifth of a second of what strangers may cost. More would only be answered when it has been
/// repeated already.
const MOST: usize = 8192;

/// One datagram and where it came in.
pub type Datagram = (Flow, Bytes);

/// See the module text.
#[derive(Debug, Default)]
pub struct Strangers {
    waiting: VecDeque<Datagram>,
    lost: u64,
}

impl Strangers {
    /// A full queue loses the newest, as a full socket would: SIP repeats.
    pub fn put(&mut self, datagram: Datagram) {
        if self.waiting.len() < MOST {
            self.waiting.push_back(datagram);
        } else {
            self.lost += 1;
        }
    }

    pub fn take(&mut self) -> Option<Datagram> {
        self.waiting.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Datagrams that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sip_core::flow::Transport;

    #[test]
    fn a_flood_overflows_and_the_oldest_are_served() {
        let mut strangers = Strangers::default();
        for port in 0..MOST as u16 + 10 {
            let (local, remote) = (([127, 0, 0, 1], 6050).into(), ([127, 0, 0, 2], port).into());
            strangers.put((Flow { transport: Transport::Udp, local, remote }, Bytes::from_static(b"flood")));
        }
        assert_eq!(strangers.lost(), 10);
        assert_eq!(strangers.take().map(|(flow, _)| flow.remote.port()), Some(0));
    }
}
