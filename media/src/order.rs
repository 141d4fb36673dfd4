//! Is this the next packet of its source (RFC 3550 §A.1)? Loss and disorder pass, doubles and old recordings do not.

use crate::drop::Drop;

/// Furthest step ahead that loss explains.
const MAX_DROPOUT: u16 = 3000;
/// Furthest step back that disorder explains; within it every number is remembered.
const MAX_MISORDER: u16 = 100;

/// The sequence numbers of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// The highest one, and the bits of those before it, itself first.
    last: Option<(u16, u128)>,
    /// What would follow a jump: a source that was started again counts on from there.
    after_jump: Option<u16>,
}

impl Order {
    /// `true`: numbers begin anew with it.
    pub fn admit(&mut self, seq: u16) -> Result<bool, Drop> {
        let Some((last, seen)) = &mut self.last else {
            self.last = Some((seq, 1));
            return Ok(true);
        };
        let (ahead, behind) = (seq.wrapping_sub(*last), last.wrapping_sub(seq));
        if (1..MAX_DROPOUT).contains(&ahead) {
            *seen = seen.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
            *last = seq;
        } else if behind <= MAX_MISORDER {
            let bit = 1 << behind;
            if *seen & bit != 0 {
                return Err(Drop::Duplicate);
            }
            *seen |= bit;
        } else if self.after_jump.take_if(|next| *next == seq).is_some() {
            self.last = Some((seq, 1));
            return Ok(true);
        } else {
            self.after_jump = Some(seq.wrapping_add(1));
            return Err(Drop::SequenceJump);
        }
        self.after_jump = None;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_sequence_numbers() {
        use crate::drop::Drop::{Duplicate, SequenceJump};
        let mut order = Order::default();
        for (seq, result) in [
            (65_000, Ok(true)),
            (65_000, Err(Duplicate)),
            (65_003, Ok(false)),
            (65_002, Ok(false)),
            (65_002, Err(Duplicate)),
            // The number space ends, and loss passes over its end.
            (400, Ok(false)),
            (65_535, Err(SequenceJump)),
            (301, Ok(false)),
            (301, Err(Duplicate)),
            (299, Err(SequenceJump)),
            // Two in a row after a jump are a restart; one alone, or two that do not follow each other, are not.
            (20_000, Err(SequenceJump)),
            (30_000, Err(SequenceJump)),
            (30_002, Err(SequenceJump)),
            (401, Ok(false)),
            (30_003, Err(SequenceJump)),
            (30_004, Ok(true)),
            (402, Err(SequenceJump)),
        ] {
            assert_eq!(order.admit(seq), result, "{seq}");
        }
    }
}
