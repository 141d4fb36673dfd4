//! What an RTP payload says about the picture (RFC 6184 §5): does a key frame begin here, is part of one in here?
//!
//! Nothing is reassembled; the last key frame is not kept yet (D-19 comes with the packet-plane work).

/// NAL unit types we look at (H.264 table 7-1; RFC 6184 table 1).
const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// What is in a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A sequence parameter set: where a decoder begins.
    pub sps: bool,
    /// The first slice of an IDR picture (`first_mb_in_slice` is 0, one bit of Exp-Golomb): where it begins when the
    /// parameter sets are only in the SDP.
    pub idr_begins: bool,
    /// Any piece of an IDR slice.
    pub idr: bool,
}

/// Looks into a payload; an unreadable one says nothing.
pub fn look(payload: &[u8]) -> Seen {
    let mut seen = Seen::default();
    match payload {
        [header, rest @ ..] if header & 0x1f == STAP_A => {
            let mut rest = rest;
            while let [high, low, units @ ..] = rest {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                let Some((nal, next)) = units.split_at_checked(length) else { break };
                if let [header, slice @ ..] = nal {
                    seen.unit(header & 0x1f, true, slice);
                }
                rest = next;
            }
        }
        [header, fu, slice @ ..] if header & 0x1f == FU_A => seen.unit(fu & 0x1f, fu & 0x80 != 0, slice),
        [header, slice @ ..] => seen.unit(header & 0x1f, true, slice),
        [] => {}
    }
    seen
}

impl Seen {
    fn unit(&mut self, kind: u8, first: bool, slice: &[u8]) {
        self.sps |= kind == SPS && first;
        self.idr |= kind == IDR;
        self.idr_begins |= kind == IDR && first && slice.first().is_some_and(|byte| byte & 0x80 != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_a_key_frame_begins() {
        let cases: &[(&[u8], bool, bool, bool)] = &[
            (&[0x67, 1], true, false, false),
            (&[0x68, 1], false, false, false),
            (&[0x65, 0x88], false, true, true),
            (&[0x65, 0x08], false, false, true),
            (&[0x61, 0x88], false, false, false),
            (&[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1], true, false, false),
            (&[0x78, 0, 2, 0x61, 1, 0, 2, 0x65, 0x88], false, true, true),
            (&[0x78, 0, 9, 0x67], false, false, false),
            (&[0x7c, 0x85, 0x88], false, true, true),
            (&[0x7c, 0x05, 0x88], false, false, true),
            (&[0x7c, 0x81, 0x88], false, false, false),
            (&[], false, false, false),
        ];
        for (payload, sps, idr_begins, idr) in cases {
            assert_eq!(look(payload), Seen { sps: *sps, idr_begins: *idr_begins, idr: *idr }, "{payload:x?}");
        }
    }
}
