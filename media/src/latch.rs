//! Whose packets are these, and where do ours go (D-16, D-17)?
//!
//! Before anything was received packets go where the SDP says, or where it would say if its phone knew of its NAT. Each SDP
//! opens a learning window in which an allowed address is believed; after that only that address is, with two ways to move: a
//! new SSRC after two packets in a row, a new address with the same SSRC after silence. Everything else is a stranger.
//!
//! Neighbours behind one NAT share its address, and so are allowed. Therefore what a port's former call still sends is known
//! and refused, and a port that no SDP names gets nothing from us before two packets of one source came from it.

use crate::drop::Drop;
use crate::nat;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long an SDP opens the window.
const LEARN: Duration = Duration::from_secs(5);
/// Silence after which the known source may come from another address.
const SILENCE: Duration = Duration::from_millis(500);
/// Silence after which the former call of a port is forgotten.
const FORGET: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Source {
    address: SocketAddr,
    /// `None`: chosen by ICE, and nothing sent yet.
    ssrc: Option<u32>,
    heard: Instant,
    /// Named by the SDP, chosen by ICE, or heard twice.
    proved: bool,
}

/// Who had a pair before: a phone that has not understood yet still sends to it.
#[derive(Clone, Debug)]
pub(crate) struct Former {
    sdp: Option<SocketAddr>,
    sip_source: IpAddr,
    addresses: Vec<SocketAddr>,
    ssrc: Option<u32>,
    heard: Instant,
}

impl Former {
    /// Is this packet of the former call?
    pub fn sent(&mut self, now: Instant, from: SocketAddr, ssrc: Option<u32>) -> bool {
        let known = self.addresses.contains(&from) || (ssrc.is_some() && self.ssrc == ssrc);
        let sent = known && now < self.heard + FORGET;
        if sent {
            self.heard = now;
        }
        sent
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Latch {
    sdp: Option<SocketAddr>,
    sip_source: IpAddr,
    learn_until: Instant,
    /// The believed source.
    source: Option<Source>,
    /// A packet of another source that might be believed after a second one: address, SSRC, sequence number.
    candidate: Option<(SocketAddr, u32, u16)>,
    /// Where a STUN request or RTCP on the RTP port came from: packets go there until RTP tells more.
    hint: Option<SocketAddr>,
    /// ICE has chosen the source; only ICE chooses another one (RFC 8445 §8.1.1).
    chosen: bool,
    /// The leg's SIP comes from elsewhere since the source was believed.
    moved: bool,
    former: Option<Former>,
}

impl Latch {
    pub fn new(now: Instant, sdp: Option<SocketAddr>, sip_source: IpAddr) -> Latch {
        Latch {
            sdp,
            sip_source,
            learn_until: now + LEARN,
            source: None,
            candidate: None,
            hint: None,
            chosen: false,
            moved: false,
            former: None,
        }
    }

    /// The pair was another call's. The same phone may call again from the same port.
    pub fn succeed(&mut self, former: Former) {
        let same_phone = former.sdp.is_some() && former.sdp == self.sdp && former.sip_source == self.sip_source;
        self.former = (!same_phone).then_some(former);
    }

    /// What the next call on this pair must not believe.
    pub fn into_former(self, now: Instant, rtcp: impl Iterator<Item = SocketAddr>) -> Former {
        let source = self.source.as_ref();
        let rtp = [source.map(|source| source.address), self.hint, self.sdp, self.presumed()];
        Former {
            sdp: self.sdp,
            sip_source: self.sip_source,
            addresses: rtp.into_iter().flatten().chain(rtcp).collect(),
            ssrc: source.and_then(|source| source.ssrc),
            heard: now,
        }
    }

    /// A new SDP: the window opens again. The same address keeps what was learned, another one is believed anew.
    pub fn renegotiate(&mut self, now: Instant, sdp: Option<SocketAddr>, sip_source: IpAddr) {
        if sdp != self.sdp {
            self.source = None;
            self.hint = None;
            self.chosen = false;
        }
        self.moved |= sip_source != self.sip_source;
        self.sdp = sdp;
        self.sip_source = sip_source;
        self.learn_until = now + LEARN;
    }

    /// Where to send: to who was heard, else to what the SDP means.
    pub fn remote(&self) -> Option<SocketAddr> {
        let heard = self.source.as_ref().filter(|source| source.proved).map(|source| source.address);
        heard.or(self.hint).or(self.presumed())
    }

    /// What the SDP means: a phone that gives its address at home is reached at its NAT, most likely by the same port (D-16).
    fn presumed(&self) -> Option<SocketAddr> {
        let sdp = self.sdp?;
        Some(if nat::hides(sdp.ip(), self.sip_source) { SocketAddr::new(self.sip_source, sdp.port()) } else { sdp })
    }

    /// May a packet from here pass?
    pub fn accept(&mut self, now: Instant, from: SocketAddr, ssrc: u32, seq: u16) -> Result<(), Drop> {
        let named = self.is_named(from);
        if !named && self.is_former(now, from, Some(ssrc)) {
            return Err(Drop::FormerCall);
        }
        let open = now < self.learn_until;
        let allowed = named || Some(from) == self.hint || (open && from.ip() == self.sip_source);
        let Some(source) = self.source else {
            return if allowed { self.believe(now, from, ssrc, named) } else { Err(Drop::ForeignSource) };
        };
        if source.address == from {
            let known = source.ssrc.is_none_or(|known| known == ssrc);
            if !known && !self.is_second(from, ssrc, seq) {
                return Err(Drop::NewSource);
            }
            return self.believe(now, from, ssrc, true);
        }
        if self.chosen {
            return Err(Drop::ForeignSource);
        }
        // The phone changed its network: nobody else knows its SSRC.
        if source.ssrc == Some(ssrc) && now >= source.heard + SILENCE {
            return self.believe(now, from, ssrc, true);
        }
        // Inside the window the SDP's own address outranks what was learned before it.
        if open && named && (Some(from) == self.sdp || !self.is_named(source.address)) {
            return self.believe(now, from, ssrc, true);
        }
        if open && allowed && (!source.proved || self.moved) {
            return if self.is_second(from, ssrc, seq) { self.believe(now, from, ssrc, true) } else { Err(Drop::NewSource) };
        }
        Err(Drop::ForeignSource)
    }

    /// A verified ICE check chose this address (RFC 8445 §7.3.1.5). It may come from anywhere, at any time.
    pub fn choose(&mut self, now: Instant, from: SocketAddr) {
        let ssrc = self.source.as_ref().and_then(|source| source.ssrc);
        self.source = Some(Source { address: from, ssrc, heard: now, proved: true });
        self.chosen = true;
    }

    /// A STUN request, or RTCP on the RTP port: it tells where its sender is. `verified` by ICE, else by the rules of RTP.
    pub fn hint(&mut self, now: Instant, from: SocketAddr, verified: bool) {
        if verified || (now < self.learn_until && (from.ip() == self.sip_source || self.is_named(from))) {
            self.hint = Some(from);
        }
    }

    /// RTCP and the like carry no media: the believed address's host, or one that may still be believed.
    pub fn knows(&self, from: SocketAddr) -> bool {
        match &self.source {
            Some(source) if source.address.ip() == from.ip() => true,
            Some(source) if source.proved => false,
            _ => self.is_named(from) || self.sdp.is_some_and(|sdp| sdp.ip() == from.ip()) || from.ip() == self.sip_source,
        }
    }

    /// Is RTP from here heard already?
    pub fn believes(&self, from: SocketAddr) -> bool {
        self.source.as_ref().is_some_and(|source| source.address == from)
    }

    /// Does the former call of this pair still send?
    pub fn is_former(&mut self, now: Instant, from: SocketAddr, ssrc: Option<u32>) -> bool {
        self.former.as_mut().is_some_and(|former| former.sent(now, from, ssrc))
    }

    fn believe(&mut self, now: Instant, from: SocketAddr, ssrc: u32, proved: bool) -> Result<(), Drop> {
        self.source = Some(Source { address: from, ssrc: Some(ssrc), heard: now, proved });
        self.candidate = None;
        self.moved = false;
        Ok(())
    }

    /// Does it follow a packet of the same source? If not it is the first of it.
    fn is_second(&mut self, from: SocketAddr, ssrc: u32, seq: u16) -> bool {
        let first = self.candidate.replace((from, ssrc, seq));
        first.is_some_and(|(address, source, number)| (address, source) == (from, ssrc) && number != seq)
    }

    /// The address of the SDP, as it is written or as it is meant.
    fn is_named(&self, from: SocketAddr) -> bool {
        let on_loopback = self.sip_source.is_loopback() && from.ip().is_loopback();
        Some(from) == self.sdp
            || Some(from) == self.presumed()
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// When, from where, SSRC, sequence number; what comes of it, and where packets go then.
    type Row = (u64, &'static str, u32, u16, Result<(), Drop>, &'static str);

    fn play(sdp: &str, sip: &str, rows: &[Row]) -> Latch {
        let start = Instant::now();
        let mut latch = Latch::new(start, Some(address(sdp)), ip(sip));
        for (ms, from, ssrc, seq, result, sends_to) in rows {
            let now = start + Duration::from_millis(*ms);
            assert_eq!(latch.accept(now, address(from), *ssrc, *seq), *result, "{from} SSRC {ssrc} at {ms}");
            assert_eq!(latch.remote(), Some(address(sends_to)), "after {from} SSRC {ssrc} at {ms}");
        }
        latch
    }

    #[test]
    fn before_anything_was_heard_packets_go_where_the_sdp_means() {
        for (sdp, sip, sends_to) in [
            ("203.0.113.5:4000", "203.0.113.5", "203.0.113.5:4000"),
            ("198.51.100.7:4000", "203.0.113.5", "198.51.100.7:4000"),
            ("192.168.1.5:4000", "203.0.113.5", "203.0.113.5:4000"),
            ("192.168.1.5:4000", "192.168.1.5", "192.168.1.5:4000"),
            ("192.168.1.5:4000", "10.9.9.9", "192.168.1.5:4000"),
            ("[fd00::5]:4000", "2001:db8::9", "[2001:db8::9]:4000"),
            ("192.168.1.5:4000", "2001:db8::9", "192.168.1.5:4000"),
            ("127.0.0.21:4000", "127.0.0.1", "127.0.0.21:4000"),
        ] {
            let latch = Latch::new(Instant::now(), Some(address(sdp)), ip(sip));
            assert_eq!(latch.remote(), Some(address(sends_to)), "SDP {sdp}, SIP from {sip}");
        }
        assert_eq!(Latch::new(Instant::now(), None, ip("203.0.113.5")).remote(), None);
    }

    #[test]
    fn the_table_of_who_is_believed_first() {
        let (sdp, sip) = ("10.0.0.1:4000", "192.0.2.1");
        let (presumed, foreign) = ("192.0.2.1:4000", Err(Drop::ForeignSource));
        // What the SDP names or means is believed at any time.
        play(sdp, sip, &[(0, sdp, 1, 1, Ok(()), sdp)]);
        play(sdp, sip, &[(9000, sdp, 1, 1, Ok(()), sdp)]);
        play(sdp, sip, &[(9000, presumed, 1, 1, Ok(()), presumed)]);
        // Another port of the SIP source within the window; packets go there from the second on.
        let port = "192.0.2.1:777";
        play(sdp, sip, &[(0, port, 1, 1, Ok(()), presumed), (20, port, 1, 2, Ok(()), port)]);
        play(sdp, sip, &[(5001, port, 1, 1, foreign, presumed)]);
        // Nobody else.
        play(sdp, sip, &[(0, "10.0.0.1:4001", 1, 1, foreign, presumed), (0, "203.0.113.9:4000", 1, 1, foreign, presumed)]);
    }

    #[test]
    fn one_packet_of_a_neighbour_does_not_win_against_the_phone() {
        let (sdp, sip) = ("10.0.0.1:4000", "192.0.2.1");
        let (phone, spray, presumed) = ("192.0.2.1:777", "192.0.2.1:6666", "192.0.2.1:4000");
        let new = Err(Drop::NewSource);
        let rows = [
            (0, spray, 9, 1, Ok(()), presumed),
            (10, phone, 1, 1, new, presumed),
            (20, spray, 8, 1, new, presumed),
            (30, phone, 1, 2, new, presumed),
            (50, phone, 1, 3, Ok(()), phone),
            (60, spray, 9, 2, Err(Drop::ForeignSource), phone),
            (70, presumed, 3, 2, Ok(()), presumed),
        ];
        play(sdp, sip, &rows);
    }

    #[test]
    fn a_latched_source_moves_only_in_known_ways() {
        let (sdp, home, away) = ("192.0.2.1:700", "192.0.2.1:700", "198.51.100.7:900");
        let foreign = Err(Drop::ForeignSource);
        let rows = [
            (0, home, 1, 1, Ok(()), home),
            (10, away, 2, 1, foreign, home),
            // The source is not silent.
            (10, away, 1, 2, foreign, home),
            (20, home, 3, 1, Err(Drop::NewSource), home),
            (30, home, 1, 2, Ok(()), home),
            (40, home, 3, 2, Err(Drop::NewSource), home),
            // Doubled on the way.
            (40, home, 3, 2, Err(Drop::NewSource), home),
            (50, home, 3, 3, Ok(()), home),
            (549, away, 3, 4, foreign, home),
            (550, away, 3, 4, Ok(()), away),
            // The window is open: the SDP's own address.
            (570, home, 3, 5, Ok(()), home),
        ];
        play(sdp, "192.0.2.1", &rows);
        // After the window the SDP's address has no privilege any more.
        let late = [(0, home, 1, 1, Ok(()), home), (6000, away, 1, 2, Ok(()), away), (6010, home, 1, 3, foreign, away)];
        play(sdp, "192.0.2.1", &late);
    }

    #[test]
    fn a_leg_whose_sip_moved_may_send_from_there_with_a_new_ssrc() {
        let (sdp, sip) = ("192.168.1.5:4000", "203.0.113.5");
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut latch = play(sdp, sip, &[(0, "203.0.113.5:777", 1, 1, Ok(()), "203.0.113.5:4000")]);
        let new = address("198.51.100.7:888");
        latch.renegotiate(after(6000), Some(address(sdp)), new.ip());
        assert_eq!(latch.accept(after(6010), new, 2, 1), Err(Drop::NewSource));
        assert_eq!(latch.accept(after(6030), new, 2, 2), Ok(()));
        assert_eq!(latch.remote(), Some(new));
    }

    #[test]
    fn baresip_signals_from_one_loopback_address_and_sends_from_another() {
        let sdp = "127.0.0.21:30100";
        let rows = [
            (0, "127.0.0.1:30102", 1, 1, Err(Drop::ForeignSource), sdp),
            (0, "127.0.0.1:30100", 1, 1, Ok(()), "127.0.0.1:30100"),
        ];
        play(sdp, "127.0.0.21", &rows);
    }

    #[test]
    fn a_hint_is_followed_until_rtp_tells_more_and_ice_outranks_all() {
        let start = Instant::now();
        let mut latch = Latch::new(start, Some(address("10.0.0.1:4000")), ip("192.0.2.1"));
        let (stranger, phone, chosen) = (address("203.0.113.9:1"), address("192.0.2.1:777"), address("198.51.100.7:9"));
        latch.hint(start, stranger, false);
        assert_eq!(latch.remote(), Some(address("192.0.2.1:4000")));
        latch.hint(start, phone, false);
        assert_eq!(latch.remote(), Some(phone));
        latch.choose(start, chosen);
        assert_eq!(latch.accept(start, phone, 1, 1), Err(Drop::ForeignSource));
        assert_eq!(latch.accept(start, chosen, 1, 1), Ok(()));
        let later = start + Duration::from_secs(2);
        assert_eq!(latch.accept(later, phone, 1, 2), Err(Drop::ForeignSource), "only ICE moves it");
        latch.choose(later, phone);
        assert_eq!((latch.accept(later, phone, 1, 2), latch.remote()), (Ok(()), Some(phone)));
    }

    #[test]
    fn what_the_former_call_sends_is_not_believed_unless_it_is_the_same_phone() {
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        // Two phones behind one NAT.
        let (nat, home) = (ip("203.0.113.5"), address("192.168.1.5:4000"));
        let old = address("203.0.113.5:7000");
        let mut first = Latch::new(start, Some(home), nat);
        assert_eq!(first.accept(start, old, 7, 1), Ok(()));
        let former = first.into_former(after(10), std::iter::empty());
        let mut second = Latch::new(after(41), Some(address("192.168.1.6:4000")), nat);
        second.succeed(former.clone());
        assert_eq!(second.accept(after(41), old, 8, 1), Err(Drop::FormerCall), "its address");
        assert_eq!(second.accept(after(41), address("203.0.113.5:7001"), 7, 9), Err(Drop::FormerCall), "its source");
        assert_eq!(second.accept(after(41), address("203.0.113.5:7002"), 3, 9), Ok(()));
        let mut again = Latch::new(after(41), Some(home), nat);
        again.succeed(former.clone());
        assert_eq!(again.accept(after(41), old, 7, 9), Ok(()), "the same phone rings again");
        let mut late = Latch::new(after(71), Some(address("192.168.1.6:4000")), nat);
        late.succeed(former);
        assert_eq!(late.accept(after(71), old, 8, 1), Ok(()), "silent for a minute: its port may be another phone's now");
    }
}
