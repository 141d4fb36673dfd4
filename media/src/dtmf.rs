//! Telephone-events (RFC 4733): what a leg pressed, told once per press, and presses of our own making.
//!
//! A press is many packets with one timestamp, the last of them three times. Any of them may be the first to arrive, so a press
//! is known by its timestamp and told with its first packet, whichever that is. Devices that move the timestamp inside a press
//! do not make two of it: a press cannot begin before the former one of the same key was let go.

use crate::drop::Drop;
use crate::engine::Out;
use crate::rtp::Rtp;
use crate::stream::Stream;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The 16 signals in the order of their event codes (RFC 4733 §3.2).
const SIGNALS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];
/// Between two packets of a press of our own, and between two presses (RFC 4733 §2.5.1.2 recommends 50 ms).
const STEP: Duration = Duration::from_millis(50);
/// Packets that say that it is over (RFC 4733 §2.5.1.4).
pub(crate) const ENDS: usize = 3;
/// Bounds of a press of our own: long enough to be recognised, short enough not to be a siren.
const LENGTH: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Presses that wait behind one another.
const QUEUE: usize = 16;
/// Presses faster than one in this time are not told, beyond a burst of [`QUEUE`] of them.
const PRESS: Duration = Duration::from_millis(50);

/// The event code of a signal; lower case letters are A to D as well.
pub fn event(signal: char) -> Option<u8> {
    let signal = signal.to_ascii_uppercase();
    SIGNALS.iter().position(|known| *known == signal).map(|code| code as u8)
}

/// The signal of an event code.
pub fn signal(event: u8) -> Option<char> {
    SIGNALS.get(usize::from(event)).copied()
}

/// One packet's say (RFC 4733 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub event: u8,
    pub end: bool,
    /// Power level without the sign.
    pub volume: u8,
    /// In timestamp units, since the press began.
    pub duration: u16,
}

impl Report {
    fn parse(payload: &[u8]) -> Result<Report, Drop> {
        let &[event, flags, high, low, ..] = payload else { return Err(Drop::BadEvent) };
        let duration = u16::from_be_bytes([high, low]);
        let report = Report { event, end: flags & 0x80 != 0, volume: flags & 0x3f, duration };
        signal(event).map(|_| report).ok_or(Drop::NotADigit)
    }

    pub fn bytes(self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.event, u8::from(self.end) << 7 | self.volume, high, low]
    }

    /// The same at another clock. A press too long for the field is told as long as the field can say.
    pub fn at(self, from: u32, to: u32) -> Report {
        let duration = u64::from(self.duration) * u64::from(to) / u64::from(from.max(1));
        Report { duration: u16::try_from(duration).unwrap_or(u16::MAX), ..self }
    }
}

/// The presses of one stream, as they arrive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presses {
    last: Option<Press>,
    /// When the presses so far would have been made by the fastest finger.
    paced: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Press {
    ssrc: u32,
    timestamp: u32,
    report: Report,
}

impl Presses {
    /// Reads one packet. `true`: a press begins with it.
    pub fn read(&mut self, now: Instant, packet: &Rtp<'_>, clock: u32) -> Result<(Report, bool), Drop> {
        let report = Report::parse(packet.payload())?;
        let (ssrc, timestamp) = (packet.ssrc(), packet.timestamp());
        let Some(last) = self.last.filter(|last| last.ssrc == ssrc) else {
            self.pace(now)?;
            self.last = Some(Press { ssrc, timestamp, report });
            return Ok((report, true));
        };
        let after = timestamp.wrapping_sub(last.timestamp);
        if after >= 1 << 31 {
            return Err(Drop::Late);
        }
        let same_key = report.event == last.report.event;
        // A held key's next packet may be missing (20 ms), a released one cannot be pressed before it was released.
        let until = u32::from(last.report.duration) + if last.report.end { 0 } else { clock / 50 };
        let goes_on = after == 0 || (same_key && !packet.marker() && after <= until);
        if !goes_on {
            self.pace(now)?;
        } else if !same_key {
            return Err(Drop::BadEvent);
        }
        self.last = Some(Press { ssrc, timestamp, report });
        Ok((report, !goes_on))
    }

    fn pace(&mut self, now: Instant) -> Result<(), Drop> {
        let next = self.paced.map_or(now, |paced| paced.max(now)) + PRESS;
        if next > now + PRESS * QUEUE as u32 {
            return Err(Drop::EventFlood);
        }
        self.paced = Some(next);
        Ok(())
    }
}

/// What a sink has last been told of a press.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// SSRC and timestamp of the press at its source.
    pub of: (u32, u32),
    /// Its timestamp here.
    pub timestamp: u32,
    pub report: Report,
}

/// Presses that came by signalling and go out as events, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Keypad {
    queue: VecDeque<(u8, Duration)>,
    next: Option<Instant>,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    event: u8,
    length: Duration,
    so_far: Duration,
    timestamp: u32,
}

impl Keypad {
    pub fn press(&mut self, now: Instant, event: u8, length: Duration) -> Result<(), Drop> {
        if self.queue.len() >= QUEUE {
            return Err(Drop::DuringDigit);
        }
        self.queue.push_back((event, length.clamp(LENGTH.0, LENGTH.1)));
        self.next.get_or_insert(now);
        Ok(())
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Sends what is due.
    pub fn play(&mut self, now: Instant, stream: &mut Stream, out: &mut Out) -> Result<(), Drop> {
        if self.next.is_none_or(|at| at > now) {
            return Ok(());
        }
        self.next = Some(now + STEP);
        let Some(mut held) = self.held else {
            // A packet tells what has been: the first one leaves when the key has been held for a step.
            match self.queue.pop_front() {
                Some((event, length)) => {
                    self.held = Some(Held { event, length, so_far: Duration::ZERO, timestamp: stream.moment(now) });
                }
                None => self.next = None,
            }
            return Ok(());
        };
        let begins = held.so_far.is_zero();
        held.so_far = (held.so_far + STEP).min(held.length);
        let end = held.so_far == held.length;
        for _ in 0..if end { ENDS } else { 1 } {
            let dialled = stream.dial(now, held.event, held.so_far, held.timestamp, (begins, end), out);
            dialled.inspect_err(|_| self.release())?;
        }
        self.held = (!end).then_some(held);
        Ok(())
    }

    /// Nobody presses any more: the held key is let go at once.
    pub fn stop(&mut self, now: Instant, stream: Option<&mut Stream>, out: &mut Out) {
        if let (Some(held), Some(stream)) = (self.held.filter(|held| !held.so_far.is_zero()), stream) {
            for _ in 0..ENDS {
                let _ = stream.dial(now, held.event, held.so_far, held.timestamp, (false, true), out);
            }
        }
        self.release();
    }

    fn release(&mut self) {
        *self = Keypad::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(marker: bool, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80, 101 | u8::from(marker) << 7, 0, 1];
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend(7u32.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// What the presses of these packets (marker, timestamp, event, end, duration) are; one packet in 20 ms.
    fn told(packets: &[(bool, u32, u8, bool, u16)]) -> String {
        #[allow(clippy::disallowed_methods)] // some instant to begin at
        let mut now = Instant::now();
        let mut presses = Presses::default();
        let mut told = String::new();
        for &(marker, timestamp, event, end, duration) in packets {
            let report = Report { event, end, volume: 10, duration };
            let bytes = packet(marker, timestamp, &report.bytes());
            if let Ok((read, true)) = presses.read(now, &Rtp::parse(&bytes).unwrap(), 8000) {
                told.extend(signal(read.event));
            }
            now += Duration::from_millis(20);
        }
        told
    }

    #[test]
    fn one_digit_per_press_whatever_is_lost_or_repeated() {
        let whole = [(true, 0, 5, false, 160), (false, 0, 5, false, 320), (false, 0, 5, true, 480), (false, 0, 5, true, 480)];
        let again = whole.map(|(m, ts, e, end, d)| (m, ts + 1600, e, end, d));
        assert_eq!(told(&whole), "5");
        assert_eq!(told(&whole[1..]), "5", "its start lost");
        assert_eq!(told(&whole[2..]), "5", "only its end arrives");
        assert_eq!(told(&[&whole[..], &again[..]].concat()), "55");
        assert_eq!(told(&[&whole[..2], &again[..]].concat()), "55", "the ends of the first lost");
        assert_eq!(told(&[&whole[..2], &again[1..]].concat()), "55", "and the start of the second");
        assert_eq!(told(&[&whole[..], &again[..1], &whole[3..]].concat()), "55", "a straggler of the first");
        assert_eq!(told(&[(true, 0, 10, false, 160), (true, 800, 11, true, 480)]), "*#");
    }

    #[test]
    fn a_timestamp_that_moves_inside_a_press_makes_no_second_one() {
        let moving: Vec<_> = (0..10u32).map(|n| (n == 0, n * 160, 3, n >= 7, (n.min(7) as u16 + 1) * 160)).collect();
        assert_eq!(told(&moving), "3");
        // RFC 4733 §2.5.1.3: a very long press goes on in a second segment.
        let long = [(true, 0, 3, false, 65_375), (false, 0, 3, false, 65_535), (false, 65_535, 3, false, 160)];
        assert_eq!(told(&long), "3");
    }

    #[test]
    fn wrong_lengths_other_events_and_floods_have_names() {
        #[allow(clippy::disallowed_methods)] // some instant to begin at
        let now = Instant::now();
        let mut presses = Presses::default();
        let mut read = |timestamp: u32, payload: &[u8]| {
            let bytes = packet(true, timestamp, payload);
            presses.read(now, &Rtp::parse(&bytes).unwrap(), 8000).map(|(report, new)| (report.event, new))
        };
        assert_eq!(read(0, &[]), Err(Drop::BadEvent));
        assert_eq!(read(0, &[1, 2, 3]), Err(Drop::BadEvent));
        assert_eq!(read(0, &[16, 10, 0, 160]), Err(Drop::NotADigit), "a flash");
        assert_eq!(read(0, &[1, 10, 0, 160, 9, 9]), Ok((1, true)));
        assert_eq!(read(0, &[2, 10, 0, 160]), Err(Drop::BadEvent), "two keys at one time");
        let told = (1..1000).filter(|n| read(n * 1600, &[1, 10, 0, 160]).is_ok()).count();
        assert_eq!(told, QUEUE - 1);
    }

    #[test]
    fn durations_follow_the_clock() {
        let report = Report { event: 1, end: true, volume: 3, duration: 800 };
        assert_eq!(report.bytes(), [1, 0x83, 3, 32]);
        assert_eq!(report.at(8000, 48_000).duration, 4800);
        assert_eq!(report.at(48_000, 8000).duration, 133);
        assert_eq!(report.at(16_000, 8000).duration, 400);
        assert_eq!(Report { duration: 20_000, ..report }.at(8000, 48_000).duration, u16::MAX);
        assert_eq!((event('*'), event('d'), event('x'), signal(11), signal(16)), (Some(10), Some(15), None, Some('#'), None));
    }
}
