//! Whose packets are these, and where do ours go (D-16, D-17)?
//!
//! Before anything was received packets go where the SDP says. Each SDP opens a learning window in which the first packet
//! from an allowed address is believed; after that only that address is, with two ways to move: a new SSRC after two
//! packets in a row, a new address with the same SSRC after silence. Everything else is a stranger.

use crate::drop::Drop;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long an SDP opens the window.
const LEARN: Duration = Duration::from_secs(5);
/// Silence after which the known source may come from another address.
const SILENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(crate) struct Latch {
    sdp: Option<SocketAddr>,
    sip_source: IpAddr,
    learn_until: Instant,
    /// The believed source: address, SSRC, when heard last.
    source: Option<(SocketAddr, u32, Instant)>,
    /// A new SSRC from the believed address, heard once.
    candidate: Option<u32>,
}

impl Latch {
    pub fn new(now: Instant, sdp: Option<SocketAddr>, sip_source: IpAddr) -> Latch {
        Latch { sdp, sip_source, learn_until: now + LEARN, source: None, candidate: None }
    }

    /// A new SDP: the window opens again. The same address keeps what was learned, another one is believed anew.
    pub fn renegotiate(&mut self, now: Instant, sdp: Option<SocketAddr>) {
        if sdp != self.sdp {
            self.sdp = sdp;
            self.source = None;
        }
        self.learn_until = now + LEARN;
    }

    /// Where to send: to who was heard, else to what the SDP says.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.source.map(|(from, ..)| from).or(self.sdp)
    }

    /// May a packet from here pass?
    pub fn accept(&mut self, now: Instant, from: SocketAddr, ssrc: u32) -> Result<(), Drop> {
        let allowed = self.allowed(from);
        match &mut self.source {
            Some((known, known_ssrc, heard)) if *known == from => {
                if *known_ssrc != ssrc && self.candidate.replace(ssrc) != Some(ssrc) {
                    return Err(Drop::NewSource);
                }
                *known_ssrc = ssrc;
                *heard = now;
                self.candidate = None;
                Ok(())
            }
            Some((known, known_ssrc, heard)) if *known_ssrc == ssrc && now >= *heard + SILENCE => {
                *known = from;
                *heard = now;
                Ok(())
            }
            // Inside the window the SDP's own address outranks what was learned before it.
            Some((known, known_ssrc, heard)) if now < self.learn_until && Some(from) == self.sdp && *known != from => {
                (*known, *known_ssrc, *heard) = (from, ssrc, now);
                Ok(())
            }
            Some(_) => Err(Drop::ForeignSource),
            None if now < self.learn_until && allowed => {
                self.source = Some((from, ssrc, now));
                Ok(())
            }
            None if Some(from) == self.sdp => {
                self.source = Some((from, ssrc, now));
                Ok(())
            }
            None => Err(Drop::ForeignSource),
        }
    }

    /// RTCP and the like carry no media: the believed address's host, or one that may still be believed.
    pub fn knows(&self, from: SocketAddr) -> bool {
        match self.source {
            Some((known, ..)) => known.ip() == from.ip(),
            None => self.sdp.is_some_and(|sdp| sdp.ip() == from.ip()) || self.allowed(from),
        }
    }

    fn allowed(&self, from: SocketAddr) -> bool {
        let on_loopback = self.sip_source.is_loopback() && from.ip().is_loopback();
        Some(from) == self.sdp
            || from.ip() == self.sip_source
            // Several devices on one host have several loopback addresses, and a device that binds its media to 0.0.0.0
            // (baresip) sends from another one than it signals from; its port is then the only sign.
            || (on_loopback && self.sdp.is_some_and(|sdp| sdp.port() == from.port()))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_table_of_who_is_believed() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let fresh = || Latch::new(now, Some(address("10.0.0.1:4000")), "192.0.2.1".parse().unwrap());
        // (from, ms) of the first packet, and whether it is believed.
        for (from, ms, believed) in [
            ("10.0.0.1:4000", 0, true),
            ("10.0.0.1:4000", 9000, true),
            ("192.0.2.1:777", 0, true),
            ("192.0.2.1:777", 5001, false),
            ("10.0.0.1:4001", 0, false),
            ("203.0.113.9:4000", 0, false),
        ] {
            let mut latch = fresh();
            assert_eq!(latch.accept(after(ms), address(from), 1).is_ok(), believed, "{from} at {ms}");
            assert_eq!(latch.remote(), Some(address(if believed { from } else { "10.0.0.1:4000" })));
        }
    }

    #[test]
    fn a_latched_source_moves_only_in_known_ways() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let (home, away) = (address("192.0.2.1:700"), address("198.51.100.7:900"));
        let mut latch = Latch::new(now, Some(address("10.0.0.1:4000")), home.ip());
        assert_eq!(latch.accept(now, home, 1), Ok(()));
        assert_eq!(latch.accept(after(10), away, 2), Err(Drop::ForeignSource));
        assert_eq!(latch.accept(after(10), away, 1), Err(Drop::ForeignSource), "the source is not silent");
        assert_eq!(latch.accept(after(20), home, 3), Err(Drop::NewSource), "one packet of a new SSRC");
        assert_eq!(latch.accept(after(30), home, 3), Ok(()), "two of them");
        assert_eq!(latch.accept(after(600), away, 3), Ok(()), "the phone changed its network");
        assert_eq!(latch.remote(), Some(away));
    }

    #[test]
    fn baresip_signals_from_one_loopback_address_and_sends_from_another() {
        let now = Instant::now();
        let mut latch = Latch::new(now, Some(address("127.0.0.21:30100")), "127.0.0.21".parse().unwrap());
        assert_eq!(latch.accept(now, address("127.0.0.1:30102"), 1), Err(Drop::ForeignSource));
        assert_eq!(latch.accept(now, address("127.0.0.1:30100"), 1), Ok(()));
    }
}
