//! What an RTP payload carries of a picture (RFC 6184 §5): single NAL units, STAP-A and FU-A, which is all that packetization
//! modes 0 and 1 know. Nothing is reassembled here.

/// NAL unit types we look at (H.264 table 7-1; RFC 6184 table 1).
pub const SLICE: u8 = 1;
pub const IDR: u8 = 5;
pub const SPS: u8 = 7;
pub const PPS: u8 = 8;
const SEI: u8 = 6;
const DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// A NAL unit, or the part of one that a payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The header byte of the NAL unit.
    pub header: u8,
    /// What follows the header byte.
    pub body: &'a [u8],
    /// The unit begins here.
    pub first: bool,
    /// The unit ends here.
    pub last: bool,
}

impl Piece<'_> {
    /// NAL unit type.
    pub fn kind(&self) -> u8 {
        self.header & 0x1f
    }
}

/// The pieces of a payload, in order; an unreadable rest says nothing.
pub fn pieces(payload: &[u8]) -> Pieces<'_> {
    match payload {
        [header, rest @ ..] if header & 0x1f == STAP_A => Pieces::Aggregate(rest),
        [header, fu, body @ ..] if header & 0x1f == FU_A => {
            Pieces::One(Some(Piece { header: header & 0xe0 | fu & 0x1f, body, first: fu & 0x80 != 0, last: fu & 0x40 != 0 }))
        }
        [header, body @ ..] => Pieces::One(Some(Piece { header: *header, body, first: true, last: true })),
        [] => Pieces::One(None),
    }
}

/// See [`pieces`].
#[derive(Clone, Debug)]
pub enum Pieces<'a> {
    One(Option<Piece<'a>>),
    /// What is left of a STAP-A.
    Aggregate(&'a [u8]),
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        match self {
            Pieces::One(piece) => piece.take(),
            Pieces::Aggregate(rest) => {
                let [high, low, units @ ..] = *rest else { return None };
                let (unit, next) = units.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
                *rest = next;
                let [header, body @ ..] = unit else { return None };
                Some(Piece { header: *header, body, first: true, last: true })
            }
        }
    }
}

/// What is in a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A sequence parameter set.
    pub sps: bool,
    /// The first slice of an IDR picture (`first_mb_in_slice` is 0, one bit of Exp-Golomb).
    pub idr_begins: bool,
    /// Any piece of an IDR slice.
    pub idr: bool,
    /// Any piece of a slice that needs earlier pictures.
    pub slice: bool,
    /// What may come before the first slice of a picture: SEI, parameter sets, delimiter (H.264 §7.4.1.2.3).
    pub prefix: bool,
}

/// Looks into a payload.
pub fn look(payload: &[u8]) -> Seen {
    let mut seen = Seen::default();
    for piece in pieces(payload) {
        let kind = piece.kind();
        seen.sps |= kind == SPS && piece.first;
        seen.idr |= kind == IDR;
        seen.idr_begins |= kind == IDR && piece.first && piece.body.first().is_some_and(|byte| byte & 0x80 != 0);
        seen.slice |= (SLICE..IDR).contains(&kind);
        seen.prefix |= (SEI..=DELIMITER).contains(&kind);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_a_key_frame_begins() {
        // Payload; SPS, IDR begins, IDR, slice.
        let cases: &[(&[u8], [bool; 4])] = &[
            (&[0x67, 1], [true, false, false, false]),
            (&[0x68, 1], [false, false, false, false]),
            (&[0x65, 0x88], [false, true, true, false]),
            (&[0x65, 0x08], [false, false, true, false]),
            (&[0x61, 0x88], [false, false, false, true]),
            (&[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1], [true, false, false, false]),
            (&[0x78, 0, 2, 0x61, 1, 0, 2, 0x65, 0x88], [false, true, true, true]),
            (&[0x78, 0, 9, 0x67], [false; 4]),
            (&[0x78, 0, 0, 0, 2, 0x67, 1], [false; 4]),
            (&[0x7c, 0x85, 0x88], [false, true, true, false]),
            (&[0x7c, 0x05, 0x88], [false, false, true, false]),
            (&[0x7c, 0x81, 0x88], [false, false, false, true]),
            (&[0x7c], [false; 4]),
            (&[], [false; 4]),
        ];
        for (payload, [sps, idr_begins, idr, slice]) in cases {
            let seen = look(payload);
            assert_eq!([seen.sps, seen.idr_begins, seen.idr, seen.slice], [*sps, *idr_begins, *idr, *slice], "{payload:x?}");
            assert_eq!(seen.prefix, payload.contains(&0x67) && seen.sps || payload.first() == Some(&0x68), "{payload:x?}");
        }
    }

    #[test]
    fn a_fragment_tells_the_unit_it_is_of() {
        let piece = pieces(&[0x7c, 0x45, 9, 8]).next().unwrap();
        assert_eq!(piece, Piece { header: 0x65, body: &[9, 8], first: false, last: true });
    }
}
