//! The RTP header (RFC 3550 §5.1): a checked view, and the twelve bytes a sink gets instead.

use crate::drop::Drop;

/// Length of the fixed header.
pub const HEADER: usize = 12;
/// Longest datagram that is taken. Whoever reads the sockets has a longer buffer, so that what the kernel cut is seen.
pub const LARGEST: usize = 2047;

/// A view of a valid packet.
#[derive(Clone, Copy, Debug)]
pub struct Rtp<'a> {
    bytes: &'a [u8],
    payload: (usize, usize),
}

impl<'a> Rtp<'a> {
    /// `None` if it is too long, and unless version, CSRC list, extension and padding fit into the bytes.
    pub fn parse(bytes: &'a [u8]) -> Option<Rtp<'a>> {
        let first = *bytes.first()?;
        if !(HEADER..=LARGEST).contains(&bytes.len()) || first >> 6 != 2 {
            return None;
        }
        let mut begin = HEADER + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let length = bytes.get(begin + 2..begin + 4)?;
            begin += 4 + 4 * usize::from(u16::from_be_bytes([length[0], length[1]]));
        }
        let mut end = bytes.len();
        if first & 0x20 != 0 {
            let padding = usize::from(*bytes.last()?);
            end = end.checked_sub(padding).filter(|_| padding > 0)?;
        }
        (begin <= end).then_some(Rtp { bytes, payload: (begin, end) })
    }

    pub fn payload_type(&self) -> u8 {
        self.bytes[1] & 0x7f
    }

    pub fn marker(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    pub fn timestamp(&self) -> u32 {
        u32::from_be_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]])
    }

    pub fn ssrc(&self) -> u32 {
        u32::from_be_bytes([self.bytes[8], self.bytes[9], self.bytes[10], self.bytes[11]])
    }

    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload.0..self.payload.1]
    }

    /// The same header with another payload type, sequence number, timestamp and source.
    pub fn rewritten(&self, pt: u8, sequence: u16, timestamp: u32, ssrc: u32) -> [u8; HEADER] {
        let mut head = [0; HEADER];
        head[0] = self.bytes[0];
        head[1] = self.bytes[1] & 0x80 | pt & 0x7f;
        head[2..4].copy_from_slice(&sequence.to_be_bytes());
        head[4..8].copy_from_slice(&timestamp.to_be_bytes());
        head[8..12].copy_from_slice(&ssrc.to_be_bytes());
        head
    }
}

/// What may arrive at a media port (RFC 7983 §7, RFC 5761 §4).
#[derive(Clone, Copy, Debug)]
pub enum Arrived<'a> {
    Rtp(Rtp<'a>),
    Rtcp,
    Stun,
}

/// Tells a datagram's protocol by its first bytes.
pub fn sort(bytes: &[u8]) -> Result<Arrived<'_>, Drop> {
    if bytes.len() > LARGEST {
        return Err(Drop::Oversized);
    }
    if is_rtcp(bytes) {
        return Ok(Arrived::Rtcp);
    }
    match Rtp::parse(bytes) {
        Some(packet) => Ok(Arrived::Rtp(packet)),
        None if is_stun(bytes) => Ok(Arrived::Stun),
        None if bytes.first().is_some_and(|first| first >> 6 == 2) => Err(Drop::Truncated),
        None => Err(Drop::NotRtp),
    }
}

/// Is this an RTCP packet (RFC 5761 §4: types 192–223)?
pub fn is_rtcp(bytes: &[u8]) -> bool {
    bytes.len() >= 8 && bytes[0] >> 6 == 2 && (192..=223).contains(&bytes[1])
}

/// Is this a STUN message (RFC 8489 §5: two zero bits and the magic cookie)?
pub fn is_stun(bytes: &[u8]) -> bool {
    bytes.len() >= 20 && bytes[0] >> 6 == 0 && bytes[4..8] == [0x21, 0x12, 0xa4, 0x42]
}

/// Is `a` later than `b` (RFC 3550 §A.1: half of the number space ahead)?
pub fn later(a: u16, b: u16) -> bool {
    a != b && a.wrapping_sub(b) < 0x8000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_packets_are_refused_and_good_ones_read() {
        let mut packet = vec![0x90, 0xe0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 7, 0xbe, 0xde, 0, 1, 1, 2, 3, 4, 0xaa];
        let rtp = Rtp::parse(&packet).unwrap();
        assert_eq!((rtp.payload_type(), rtp.marker(), rtp.sequence(), rtp.timestamp(), rtp.ssrc()), (0x60, true, 5, 9, 7));
        assert_eq!(rtp.payload(), [0xaa]);
        assert_eq!(rtp.rewritten(3, 1, 2, 4), [0x90, 0x83, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4]);
        packet[0] |= 0x20;
        assert!(Rtp::parse(&packet).is_none(), "more padding than packet");
        for bytes in [&packet[..11], &packet[..15], &[0x40; 20][..], &[], &[0x80; 2049]] {
            assert!(Rtp::parse(bytes).is_none());
        }
        assert!(later(0, 0xffff) && !later(0xffff, 0) && !later(4, 4));
    }
}
