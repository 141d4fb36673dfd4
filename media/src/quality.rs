//! How well a stream arrives: what we hear of a peer (RFC 3550 appendix A.1, A.3, A.8), and what it says of us (§6.4.1).

use crate::rtcp::ReceptionReport;
use crate::rtp::Rtp;
use std::time::{Duration, Instant};

/// Seconds from 1900 (NTP) to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;

/// Wall-clock time at some instant; the engine has no clock.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    at: Instant,
    ntp: u64,
}

impl WallClock {
    /// `unix`: time since 1970 at `at`.
    pub fn new(at: Instant, unix: Duration) -> WallClock {
        WallClock { at, ntp: (unix.as_secs() + NTP_EPOCH) << 32 | fraction(unix) }
    }

    /// NTP time: seconds in the upper half, their fraction in the lower.
    pub fn ntp(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.at);
        self.ntp.wrapping_add(passed.as_secs() << 32 | fraction(passed))
    }
}

fn fraction(time: Duration) -> u64 {
    (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000
}

/// The middle 32 bits of an NTP time: seconds and fraction, 16 bits each.
pub fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A span in units of a clock rate.
pub fn ticks(span: Duration, clock: u32) -> u32 {
    (span.as_micros() * u128::from(clock) / 1_000_000) as u32
}

/// What we hear of one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reception {
    pub ssrc: u32,
    began: Instant,
    base: u32,
    /// Highest sequence number, with the count of its wraps above.
    highest: u32,
    received: u32,
    /// Expected and received at the last report.
    prior: (u32, u32),
    /// Sixteen times the jitter, in clock units (A.8).
    jitter: u32,
    transit: u32,
}

impl Reception {
    pub fn new(now: Instant, packet: &Rtp<'_>) -> Reception {
        let seq = u32::from(packet.sequence());
        let transit = 0u32.wrapping_sub(packet.timestamp());
        Reception { ssrc: packet.ssrc(), began: now, base: seq, highest: seq, received: 0, prior: (0, 0), jitter: 0, transit }
    }

    /// A packet of this source, the first one too.
    pub fn packet(&mut self, now: Instant, packet: &Rtp<'_>, clock: u32) {
        self.received = self.received.wrapping_add(1);
        let ahead = packet.sequence().wrapping_sub(self.highest as u16);
        if ahead < 0x8000 {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
        }
        let arrival = (now.saturating_duration_since(self.began).as_micros() as u64 * u64::from(clock) / 1_000_000) as u32;
        let transit = arrival.wrapping_sub(packet.timestamp());
        let differs = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
        self.transit = transit;
        self.jitter = self.jitter.wrapping_add(differs).wrapping_sub((self.jitter + 8) >> 4);
    }

    fn expected(&self) -> u32 {
        self.highest.wrapping_sub(self.base).wrapping_add(1)
    }

    /// Packets that never came; copies make it less.
    pub fn lost(&self) -> i64 {
        i64::from(self.expected()) - i64::from(self.received)
    }

    /// Interarrival jitter in clock units.
    pub fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// The block of our next report. `last`: middle of the NTP time of its last sender report, and when that came.
    pub fn block(&mut self, now: Instant, last: Option<(u32, Instant)>) -> ReceptionReport {
        let (expected, received) = (self.expected(), self.received);
        let expected_since = expected.wrapping_sub(self.prior.0);
        let lost_since = i64::from(expected_since) - i64::from(received.wrapping_sub(self.prior.1));
        self.prior = (expected, received);
        let fraction = if expected_since == 0 { 0 } else { (lost_since.max(0) << 8) / i64::from(expected_since) };
        ReceptionReport {
            ssrc: self.ssrc,
            fraction_lost: fraction.min(255) as u8,
            total_lost: self.lost().clamp(0, 0x7f_ffff) as u32,
            last_sequence_number: self.highest,
            jitter: self.jitter(),
            last_sender_report: last.map_or(0, |(middle, _)| middle),
            delay: last.map_or(0, |(_, at)| ticks(now.saturating_duration_since(at), 1 << 16)),
        }
    }
}

/// What a peer said of what we send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Of the packets since its report before, in 1/256.
    pub fraction_lost: u8,
    /// Packets since the beginning.
    pub lost: u32,
    /// In clock units.
    pub jitter: u32,
    /// From our sender report and back (RFC 3550 §6.4.1, DLSR).
    pub round_trip: Option<Duration>,
}

impl Heard {
    /// Reads a block about our source.
    pub fn read(now_ntp: u64, block: &ReceptionReport) -> Heard {
        let round_trip = (block.last_sender_report != 0).then(|| {
            let units = middle(now_ntp).wrapping_sub(block.last_sender_report).wrapping_sub(block.delay);
            Duration::from_micros((u64::from(units) * 1_000_000) >> 16)
        });
        Heard {
            fraction_lost: block.fraction_lost,
            lost: block.total_lost,
            jitter: block.jitter,
            // Clocks do not agree to the last unit; a span of minutes is a lie.
            round_trip: round_trip.filter(|span| *span < Duration::from_secs(60)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;

    fn packet(seq: u16, timestamp: u32) -> Vec<u8> {
        let mut packet = vec![0x80, 0];
        packet.extend(seq.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0, 0, 0, 7]);
        packet
    }

    #[test]
    fn loss_over_a_wrap_and_per_report() {
        let now = Instant::now();
        let mut reception: Option<Reception> = None;
        let mut give = |seq: u16| {
            let bytes = packet(seq, 0);
            let rtp = Rtp::parse(&bytes).unwrap();
            let reception = reception.get_or_insert_with(|| Reception::new(now, &rtp));
            reception.packet(now, &rtp, 8000);
            *reception
        };
        for seq in [65_533u16, 65_534, 65_535, 1] {
            give(seq);
        }
        let mut first = give(2);
        assert_eq!(first.lost(), 1, "number 0");
        let block = first.block(now, None);
        assert_eq!((block.fraction_lost, block.total_lost, block.last_sequence_number), (256u32.div_euclid(6) as u8, 1, 65_538));
        assert_eq!(first.block(now, None).fraction_lost, 0, "since the last report");
    }

    #[test]
    fn a_steady_stream_has_no_jitter_and_an_unsteady_one_has() {
        let now = Instant::now();
        let measure = |late: &dyn Fn(u16) -> u64| {
            let bytes = packet(0, 0);
            let mut reception = Reception::new(now, &Rtp::parse(&bytes).unwrap());
            for n in 0..100u16 {
                let at = now + Duration::from_millis(u64::from(n) * 20 + late(n));
                let bytes = packet(n, u32::from(n) * 160);
                reception.packet(at, &Rtp::parse(&bytes).unwrap(), 8000);
            }
            reception.jitter()
        };
        assert_eq!(measure(&|_| 0), 0);
        let jitter = measure(&|n| u64::from(n % 2) * 10);
        assert!((70..=85).contains(&jitter), "10 ms are 80 units: {jitter}");
    }

    #[test]
    fn the_round_trip_is_what_the_peer_did_not_keep() {
        let now = Instant::now();
        let clock = WallClock::new(now, Duration::from_secs(1_000_000));
        let sent = clock.ntp(now + Duration::from_secs(1));
        let block = ReceptionReport {
            last_sender_report: middle(sent),
            delay: ticks(Duration::from_millis(500), 1 << 16),
            ..ReceptionReport::default()
        };
        let heard = Heard::read(clock.ntp(now + Duration::from_millis(1580)), &block);
        let round_trip = heard.round_trip.unwrap().as_millis();
        assert!((79..=81).contains(&round_trip), "{round_trip}");
        assert_eq!(Heard::read(sent, &ReceptionReport { delay: 70_000, ..block }).round_trip, None);
    }
}
