//! The ids we mint: branch, tag, Call-ID, contact user, media identities (RFC 3261 §8.1.1, §19.3).
//!
//! Owner bits + 80 unpredictable bits in each (D-13): the owner names the node that holds the state, the rest keeps a
//! stranger from guessing a dialog. The generator is a CSPRNG whose seed is handed in, so a test replays bit by bit.

use hmac::{Hmac, KeyInit, Mac};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use sha2::Sha256;

/// Letters of a token: lower case without look-alikes, all of them RFC 3261 `token` characters; 32, so five bits each.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// RFC 3261 §8.1.1.7: what makes a branch unique by itself.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// Mints ids for one owner.
pub struct Tokens {
    owner: u16,
    rng: ChaCha12Rng,
    /// For [`Tokens::derived`].
    keyed: Hmac<Sha256>,
}

impl Tokens {
    /// `owner` names the node; `seed` comes from the operating system, in tests from the test.
    pub fn new(owner: u16, seed: [u8; 32]) -> Tokens {
        // HMAC pads short keys with zeros itself (RFC 2104 §2); padded here, the length is right by type.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&seed);
        Tokens { owner, rng: ChaCha12Rng::from_seed(seed), keyed: Hmac::new(&block.into()) }
    }

    /// A fresh token of 20 letters: 16 owner bits, 80 random bits, and four bits that are zero.
    pub fn token(&mut self) -> String {
        let mut random = [0; 10];
        self.rng.fill_bytes(&mut random);
        self.spell(random)
    }

    /// A token that is the same whenever the parts are: what a stateless answer is tagged with (RFC 3261 §8.2.7). Without
    /// the seed it is as unpredictable as any other.
    pub fn derived(&self, parts: &[&str]) -> String {
        let mut keyed = self.keyed.clone();
        for part in parts {
            // The length in front keeps ("ab", "c") and ("a", "bc") apart.
            keyed.update(&part.len().to_be_bytes());
            keyed.update(part.as_bytes());
        }
        let hash = keyed.finalize().into_bytes();
        let mut bits = [0; 10];
        bits.copy_from_slice(&hash[..10]);
        self.spell(bits)
    }

    fn spell(&self, random: [u8; 10]) -> String {
        let mut text = String::with_capacity(20);
        let (mut bits, mut count) = (0u32, 0u32);
        for byte in self.owner.to_be_bytes().into_iter().chain(random) {
            bits = bits << 8 | u32::from(byte);
            count += 8;
            while count >= 5 {
                count -= 5;
                text.push(char::from(LETTERS[(bits >> count & 31) as usize]));
            }
        }
        text.push(char::from(LETTERS[(bits << (5 - count) & 31) as usize]));
        text
    }

    /// A Via branch.
    pub fn branch(&mut self) -> String {
        format!("{MAGIC_COOKIE}{}", self.token())
    }

    /// 32 random bits: SSRC, first sequence number, first timestamp, SDP session id (RFC 3550 §5.1, RFC 8866 §5.2).
    pub fn random_u32(&mut self) -> u32 {
        self.rng.next_u32()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_distinct_name_their_owner_and_replay_from_the_seed() {
        let mut a = Tokens::new(7, [1; 32]);
        let mut b = Tokens::new(7, [1; 32]);
        let mut other = Tokens::new(8, [1; 32]);
        let (x, y) = (a.token(), a.token());
        assert_ne!(x, y);
        assert_eq!(x, b.token());
        assert_eq!(x.len(), 20);
        assert_eq!(x[..3], y[..3], "the first 15 bits are the owner's");
        assert_ne!(x, other.token());
        assert!(x.bytes().all(|c| LETTERS.contains(&c)));
    }

    #[test]
    fn a_derived_token_is_the_same_for_the_same_parts_and_seed_only() {
        let tokens = Tokens::new(7, [1; 32]);
        let token = tokens.derived(&["ab", "c"]);
        assert_eq!(token, tokens.derived(&["ab", "c"]));
        assert_eq!(token.len(), 20);
        assert_ne!(token, tokens.derived(&["a", "bc"]));
        assert_ne!(token, Tokens::new(7, [2; 32]).derived(&["ab", "c"]));
    }
}
