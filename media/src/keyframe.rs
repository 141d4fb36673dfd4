//! The key-frame cache (D-19): parameter sets, the last complete key frame of the door, and the few packets since.
//!
//! A phone that joins gets the picture from here at once, and every picture begins from here: a key frame counts when its last
//! packet is there and none is missing, so what is passed on is never half of one. Packets are kept as they came (RFC 6184 §5.6
//! single NAL units, §5.7 STAP-A, §5.8 FU-A); only their headers are ours.
//!
//! One allocation per key frame; none per packet.

use crate::h264::{self, PPS, SPS};
use crate::rtp::{self, Rtp};
use bytes::Bytes;
use std::time::Instant;

/// Longest group that is kept, in bytes (D-19).
pub const LIMIT: usize = 128 << 10;
/// And in packets: those without content must not fill the memory either.
const PACKETS: usize = 1024;
/// A group is passed on up to the live packet if it has at most so many packets after its key frame (D-19).
pub const BRIDGE: usize = 30;
/// Parameter sets that are kept; a stream has one SPS and one or two PPS.
const MAX_SETS: usize = 8;
/// A buffer up to this size is used again; delimiters before every picture must not cost an allocation each.
const SMALL: usize = 16 << 10;
/// Longest parameter set that is kept.
const MAX_SET: usize = 512;

/// One kept packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    pub timestamp: u32,
    pub marker: bool,
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    begin: u32,
    length: u16,
    marker: bool,
    timestamp: u32,
}

/// A key frame and what followed it without a gap.
#[derive(Clone, Debug, Default)]
struct Group {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// How many entries are the key frame itself.
    key: usize,
    /// The key frame brings its own SPS.
    sets: bool,
}

impl Group {
    /// `false`: the group is too large now.
    fn push(&mut self, packet: &Rtp<'_>) -> bool {
        let payload = packet.payload();
        let begin = self.bytes.len() as u32;
        self.bytes.extend_from_slice(payload);
        // A datagram is shorter than 64 KB.
        let length = payload.len() as u16;
        self.entries.push(Entry { begin, length, marker: packet.marker(), timestamp: packet.timestamp() });
        self.bytes.len() <= LIMIT && self.entries.len() <= PACKETS
    }

    fn packets(&self) -> impl Iterator<Item = Kept<'_>> {
        self.entries.iter().map(|entry| {
            let begin = entry.begin as usize;
            let payload = self.bytes.get(begin..begin + usize::from(entry.length)).unwrap_or_default();
            Kept { timestamp: entry.timestamp, marker: entry.marker, payload }
        })
    }
}

/// A picture that is arriving and may become the key frame.
#[derive(Debug, Default)]
struct Arriving {
    /// Empty: nothing is.
    group: Group,
    timestamp: u32,
    /// Its first slice has begun.
    begun: bool,
}

impl Arriving {
    /// `true`: a key frame is lost by it.
    fn give_up(&mut self) -> bool {
        self.group.bytes.clear();
        self.group.entries.clear();
        self.group.sets = false;
        std::mem::take(&mut self.begun)
    }

    fn is_any(&self) -> bool {
        !self.group.entries.is_empty()
    }
}

/// What a packet did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    Nothing,
    /// Packets are missing before this one.
    Gap,
    /// It completes a key frame.
    KeyFrame,
    /// The key frame that is arriving does not fit; [`KeyFrames::opening`] is what there is of it, up to this packet.
    TooLarge,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct KeyFrames {
    /// NAL units with their header: SPS and PPS.
    sets: Vec<Vec<u8>>,
    kept: Group,
    /// `kept` goes on to the last packet.
    contiguous: bool,
    kept_at: Option<Instant>,
    /// Counts what was put into `kept`.
    generation: u64,
    arriving: Arriving,
    /// A key frame that does not fit is passing.
    too_large: Option<u32>,
    /// Source, sequence number and timestamp of the newest packet.
    last: Option<(u32, u16, u32)>,
    key_frames: u64,
    broken: u64,
}

impl KeyFrames {
    /// A cache that knows the parameter sets of the door's SDP (`sprop-parameter-sets`, RFC 6184 §8.1).
    pub fn new(parameter_sets: &[Bytes]) -> KeyFrames {
        let mut cache = KeyFrames::default();
        cache.learn_sets(parameter_sets);
        cache
    }

    /// Sets of a later SDP.
    pub fn learn_sets(&mut self, parameter_sets: &[Bytes]) {
        parameter_sets.iter().for_each(|unit| self.learn(unit));
    }

    /// Complete key frames seen, and those that lost a packet on the way.
    pub fn counts(&self) -> (u64, u64) {
        (self.key_frames, self.broken)
    }

    /// Source, sequence number and timestamp of the newest packet.
    pub fn last(&self) -> Option<(u32, u16, u32)> {
        self.last
    }

    /// Changes with the key frame.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A key frame, or what leads up to one, is arriving.
    pub fn is_arriving(&self) -> bool {
        self.arriving.is_any()
    }

    /// When the key frame was complete; `None`: there is none.
    pub fn kept_at(&self) -> Option<Instant> {
        self.kept_at
    }

    /// A packet of the door, in the order of arrival.
    pub fn take(&mut self, now: Instant, packet: &Rtp<'_>) -> Took {
        let (ssrc, seq, timestamp) = (packet.ssrc(), packet.sequence(), packet.timestamp());
        let follows = match self.last {
            Some((known, last, _)) if known == ssrc => {
                if !rtp::later(seq, last) {
                    // A copy, or one that comes late: its place was counted as a gap.
                    return Took::Nothing;
                }
                seq == last.wrapping_add(1)
            }
            Some(_) => false,
            None => true,
        };
        self.last = Some((ssrc, seq, timestamp));
        let mut took = Took::Nothing;
        if !follows {
            self.contiguous = false;
            self.broken += u64::from(self.arriving.give_up());
            took = Took::Gap;
        }
        let seen = h264::look(packet.payload());
        if seen.prefix {
            self.learn_from(packet.payload());
        }
        if self.contiguous {
            let followers = self.kept.entries.len() - self.kept.key;
            self.contiguous = followers < BRIDGE && self.kept.push(packet);
        }
        match self.arrive(packet, seen) {
            Took::KeyFrame => {
                self.keep();
                self.contiguous = true;
                self.kept_at = Some(now);
                self.key_frames += 1;
                Took::KeyFrame
            }
            Took::TooLarge => {
                self.keep();
                self.contiguous = false;
                self.kept_at = None;
                self.too_large = Some(timestamp);
                Took::TooLarge
            }
            Took::Nothing | Took::Gap => took,
        }
    }

    /// What has arrived takes the place of the last key frame, whose buffer is given back unless it is small.
    fn keep(&mut self) {
        std::mem::swap(&mut self.kept, &mut self.arriving.group);
        self.kept.key = self.kept.entries.len();
        self.generation += 1;
        if self.arriving.group.bytes.capacity() > SMALL {
            self.arriving.group = Group::default();
        }
        self.arriving.give_up();
    }

    /// Adds a packet to the picture that is arriving.
    fn arrive(&mut self, packet: &Rtp<'_>, seen: h264::Seen) -> Took {
        let timestamp = packet.timestamp();
        if self.too_large == Some(timestamp) {
            return Took::Nothing;
        }
        self.too_large = None;
        if self.arriving.is_any() && self.arriving.timestamp != timestamp {
            self.broken += u64::from(self.arriving.give_up());
        }
        // A picture begins with parameter sets, delimiters or SEI, or at once with its first slice.
        let begins = seen.prefix || seen.idr_begins;
        if seen.slice || (seen.idr && !self.arriving.begun && !seen.idr_begins) || (!begins && !self.arriving.is_any()) {
            self.arriving.give_up();
            return Took::Nothing;
        }
        let arriving = &mut self.arriving;
        if seen.idr_begins && !std::mem::replace(&mut arriving.begun, true) {
            // Key frames of one door are much alike.
            arriving.group.bytes.reserve(self.kept.bytes.len());
        }
        arriving.timestamp = timestamp;
        arriving.group.sets |= seen.sps;
        if !arriving.group.push(packet) {
            if arriving.begun {
                return Took::TooLarge;
            }
            arriving.give_up();
            return Took::Nothing;
        }
        match (packet.marker(), arriving.begun) {
            (true, true) => Took::KeyFrame,
            (true, false) => {
                arriving.give_up();
                Took::Nothing
            }
            (false, _) => Took::Nothing,
        }
    }

    /// The packets a picture begins with: parameter sets if the key frame brings none, then the key frame. Single NAL units fit
    /// into both packetization modes.
    pub fn opening(&self) -> impl Iterator<Item = Kept<'_>> {
        let timestamp = self.kept.entries.first().map_or(0, |entry| entry.timestamp);
        let sets = self.sets.iter().filter(|_| !self.kept.sets);
        let sets = sets.map(move |unit| Kept { timestamp, marker: false, payload: unit });
        sets.chain(self.kept.packets().take(self.kept.key))
    }

    /// What came after the key frame, up to the last packet; `None` if something is missing or it is too long a way.
    pub fn followers(&self) -> Option<impl Iterator<Item = Kept<'_>>> {
        self.contiguous.then(|| self.kept.packets().skip(self.kept.key))
    }

    /// The key frame as a byte stream (H.264 annex B): SPS, PPS, slices, each after a start code.
    pub fn annex_b(&self) -> Option<Bytes> {
        self.kept_at?;
        let mut stream = Vec::with_capacity(self.kept.bytes.len() + 64);
        for packet in self.opening() {
            for piece in h264::pieces(packet.payload) {
                if piece.first {
                    stream.extend_from_slice(&[0, 0, 0, 1, piece.header]);
                }
                stream.extend_from_slice(piece.body);
            }
        }
        Some(stream.into())
    }

    fn learn_from(&mut self, payload: &[u8]) {
        for piece in h264::pieces(payload) {
            if matches!(piece.kind(), SPS | PPS) && piece.first && piece.last && piece.body.len() < MAX_SET {
                let unit: Vec<u8> = std::iter::once(piece.header).chain(piece.body.iter().copied()).collect();
                self.learn(&unit);
            }
        }
    }

    /// A parameter set replaces the one of its number (H.264 §7.4.1.2.1).
    fn learn(&mut self, unit: &[u8]) {
        let Some(id) = set_id(unit) else { return };
        if let Some(known) = self.sets.iter_mut().find(|known| set_id(known) == Some(id)) {
            if known != unit {
                known.clear();
                known.extend_from_slice(unit);
            }
        } else if self.sets.len() < MAX_SETS && unit.len() <= MAX_SET {
            self.sets.push(unit.to_vec());
            // An SPS before the PPS that refer to it.
            self.sets.sort_by_key(|unit| unit[0] & 0x1f);
        }
    }
}

/// Kind and number of a parameter set: `seq_parameter_set_id` follows profile, constraints and level; `pic_parameter_set_id`
/// comes first (H.264 §7.3.2.1.1, §7.3.2.2).
fn set_id(unit: &[u8]) -> Option<(u8, u32)> {
    let kind = unit.first()? & 0x1f;
    let body = match kind {
        SPS => unit.get(4..)?,
        PPS => unit.get(1..)?,
        _ => return None,
    };
    Some((kind, exp_golomb(body)?))
}

/// ue(v) of H.264 §9.1, as far as two bytes go; the ids are below 256.
fn exp_golomb(bytes: &[u8]) -> Option<u32> {
    let word = u32::from(*bytes.first()?) << 24
        | u32::from(bytes.get(1).copied().unwrap_or(0)) << 16
        | u32::from(bytes.get(2).copied().unwrap_or(0)) << 8;
    let zeros = word.leading_zeros();
    (zeros <= 8).then(|| (word << zeros >> (31 - zeros)) - 1)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test needs some instant to begin at
mod tests {
    use super::*;

    const SPS_0: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x80, 1];
    const PPS_0: &[u8] = &[0x68, 0x80, 2];

    fn rtp(seq: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 97 | u8::from(marker) << 7];
        packet.extend(seq.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(7u32.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn give(cache: &mut KeyFrames, seq: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Took {
        cache.take(Instant::now(), &Rtp::parse(&rtp(seq, timestamp, marker, payload)).unwrap())
    }

    fn opening(cache: &KeyFrames) -> Vec<Vec<u8>> {
        cache.opening().map(|packet| packet.payload.to_vec()).collect()
    }

    #[test]
    fn a_key_frame_counts_when_its_last_packet_is_there() {
        let mut cache = KeyFrames::default();
        assert_eq!(give(&mut cache, 1, 0, false, SPS_0), Took::Nothing);
        assert_eq!(give(&mut cache, 2, 0, false, PPS_0), Took::Nothing);
        assert_eq!(give(&mut cache, 3, 0, false, &[0x7c, 0x85, 0x88]), Took::Nothing);
        assert_eq!(cache.kept_at(), None);
        assert_eq!(give(&mut cache, 4, 0, true, &[0x7c, 0x45, 0x99]), Took::KeyFrame);
        assert_eq!(opening(&cache).len(), 4, "its own parameter sets, once");
        assert_eq!(
            cache.annex_b().unwrap(),
            [&[0, 0, 0, 1], SPS_0, &[0, 0, 0, 1], PPS_0, &[0, 0, 0, 1, 0x65, 0x88, 0x99]].concat()
        );
        assert_eq!(give(&mut cache, 5, 3000, true, &[0x41, 0x9a]), Took::Nothing);
        assert_eq!(cache.followers().unwrap().count(), 1);
    }

    #[test]
    fn a_key_frame_that_lost_a_packet_does_not_replace_a_whole_one() {
        let mut cache = KeyFrames::default();
        give(&mut cache, 1, 0, true, &[0x65, 0x88, 1]);
        let kept = opening(&cache);
        assert_eq!(give(&mut cache, 2, 3000, false, &[0x7c, 0x85, 0x88]), Took::Nothing);
        assert_eq!(give(&mut cache, 4, 3000, true, &[0x7c, 0x45, 0x99]), Took::Gap);
        assert_eq!((opening(&cache), cache.counts()), (kept, (1, 1)));
        assert!(cache.followers().is_none(), "nothing leads from it to the live picture");
    }

    #[test]
    fn parameter_sets_of_the_sdp_open_a_picture_whose_stream_has_none() {
        let sets = [PPS_0, SPS_0].map(Bytes::from_static);
        let mut cache = KeyFrames::new(&sets);
        assert_eq!(give(&mut cache, 9, 0, true, &[0x65, 0x88]), Took::KeyFrame);
        assert_eq!(opening(&cache), [SPS_0.to_vec(), PPS_0.to_vec(), vec![0x65, 0x88]]);
        // The stream's own take their place.
        let newer: &[u8] = &[0x67, 0x42, 0xe0, 0x1e, 0x80, 9];
        give(&mut cache, 10, 3000, true, newer);
        give(&mut cache, 11, 6000, true, &[0x65, 0x88]);
        assert_eq!(opening(&cache)[0], newer);
    }

    #[test]
    fn a_stap_a_with_everything_is_a_key_frame_of_its_own() {
        let mut cache = KeyFrames::default();
        let mut stap = vec![0x78];
        for unit in [SPS_0, PPS_0, &[0x65, 0x88]] {
            stap.extend((unit.len() as u16).to_be_bytes());
            stap.extend(unit);
        }
        assert_eq!(give(&mut cache, 1, 0, true, &stap), Took::KeyFrame);
        assert_eq!(opening(&cache), [stap]);
    }

    #[test]
    fn the_way_to_the_live_picture_is_thirty_packets_long_at_most() {
        let mut cache = KeyFrames::default();
        give(&mut cache, 0, 0, true, &[0x65, 0x88]);
        for n in 1..=30 {
            give(&mut cache, n, u32::from(n) * 3000, true, &[0x41, 0x9a]);
        }
        assert_eq!(cache.followers().unwrap().count(), 30);
        give(&mut cache, 31, 93_000, true, &[0x41, 0x9a]);
        assert!(cache.followers().is_none());
    }

    #[test]
    fn a_key_frame_beyond_the_limit_is_said_so_once() {
        let mut cache = KeyFrames::default();
        let mut slice = vec![0x7c, 0x85, 0x88];
        slice.resize(1200, 1);
        let mut said = Vec::new();
        for n in 0..200u16 {
            if n > 0 {
                slice[1] = 0x05;
            }
            said.push(give(&mut cache, n, 0, n == 199, &slice));
        }
        assert_eq!(said.iter().filter(|took| **took == Took::TooLarge).count(), 1);
        assert!(!said.contains(&Took::KeyFrame));
        assert_eq!(cache.kept_at(), None);
    }

    #[test]
    fn packets_without_content_fill_nothing() {
        let mut cache = KeyFrames::default();
        give(&mut cache, 0, 0, false, SPS_0);
        for n in 1..=3000 {
            assert_eq!(give(&mut cache, n, 0, false, &[]), Took::Nothing);
        }
        assert!(cache.arriving.group.entries.len() <= PACKETS + 1);
    }

    #[test]
    fn ids_of_parameter_sets() {
        for (bytes, id) in
            [(&[0x80u8][..], Some(0)), (&[0x40], Some(1)), (&[0x60], Some(2)), (&[0x01, 0xff, 0xff], None), (&[], None)]
        {
            let read = exp_golomb(bytes);
            if id.is_some() {
                assert_eq!(read, id, "{bytes:x?}");
            }
        }
    }
}
