//! The RTCP we need: asking for a key frame, and noticing that somebody asks (RFC 3550 §6, RFC 4585 §6.3.1, RFC 5104 §4.3.1).

/// Does a compound packet hold a PLI or FIR? Stops at the first part that does not fit.
pub fn asks_for_key_frame(packet: &[u8]) -> bool {
    let mut rest = packet;
    while let [head, kind, high, low, ..] = rest {
        let length = 4 * usize::from(u16::from_be_bytes([*high, *low])) + 4;
        let Some((part, next)) = rest.split_at_checked(length) else { return false };
        if head >> 6 != 2 {
            return false;
        }
        if *kind == 206 && part.len() >= 12 && matches!(head & 0x1f, 1 | 4) {
            return true;
        }
        rest = next;
    }
    false
}

/// A PLI in a compound packet as RFC 3550 §6.1 wants it: an empty receiver report, a CNAME, then the request.
pub fn pli(ours: u32, theirs: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40);
    packet.extend_from_slice(&[0x80, 201, 0, 1]);
    packet.extend_from_slice(&ours.to_be_bytes());
    // One SDES chunk: SSRC, CNAME "doorline", end, padded to 32 bits.
    packet.extend_from_slice(&[0x81, 202, 0, 4]);
    packet.extend_from_slice(&ours.to_be_bytes());
    packet.extend_from_slice(&[1, 8]);
    packet.extend_from_slice(b"doorline");
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&[0x81, 206, 0, 2]);
    packet.extend_from_slice(&ours.to_be_bytes());
    packet.extend_from_slice(&theirs.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_pli_is_one_and_its_parts_fit() {
        let packet = pli(1, 2);
        assert!(asks_for_key_frame(&packet));
        assert!(packet.len().is_multiple_of(4));
        assert!(!asks_for_key_frame(&packet[..packet.len() - 1]), "cut");
        let mut fir = packet.clone();
        let at = packet.len() - 12;
        fir[at] = 0x84;
        assert!(asks_for_key_frame(&fir));
        fir[at] = 0x8f;
        assert!(!asks_for_key_frame(&fir));
        assert!(!asks_for_key_frame(&[]) && !asks_for_key_frame(&[0x80; 3]));
    }
}
