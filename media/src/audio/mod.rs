//! Audio across codecs: what a leg sends, for a leg that shares no codec with it (D-04).
//!
//! Everybody else is forwarded and comes nowhere near this. A `Converter` belongs to the stream that is converted, not to
//! those that hear it: one decode per packet, and one encode per codec that is wanted, however many phones ring with it. What
//! it makes is an RTP stream of its own in the clock of the other codec, which a sink numbers like any other feed.
//!
//! - Frames out are 20 ms whatever came in (RFC 3551 §4.2; every codec here has that length): 10 ms packets are put together,
//!   30, 40 and 60 ms ones are cut.
//! - Time is the sender's: a lost packet is concealed at its length (Opus from the next packet's copy, RFC 6716 §2.1.7), a pause
//!   is a step of the timestamp. Neither moves what comes after it.
//! - Work per packet is bounded: at most 200 ms of sound in one, at most 120 ms before it.
//!
//! Measured on one core of two, the machine busy with other things, per packet of 20 ms, decode and encode: G.711 ↔ G.711 1–3 µs,
//! G.722 to G.711 17 µs, G.711 to G.722 25–38 µs, from Opus 19–43 µs, to Opus 100–230 µs; a forwarded packet 0.2–0.3 µs
//! (`./dev bench convert`).

mod codec;
mod convert;
pub mod g711;
mod resample;

pub use codec::{Decoder, Encoder, Undecodable};
pub(crate) use convert::{Converter, Frame};

use crate::command::Codec;
use std::time::Duration;

/// What can be converted from and to, cheapest first: the order in which it is offered behind the anchor's own codec.
pub const CONVERTED: &[Codec] = &[Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];

/// Length of a frame out.
pub(crate) const FRAME: Duration = Duration::from_millis(20);
/// Longest packet that is taken (RFC 3551 §4.2: a receiver should accept 0 to 200 ms).
const LONGEST: Duration = Duration::from_millis(200);
/// Longest loss that is concealed; a longer one is a pause.
const CONCEALED: Duration = Duration::from_millis(120);

/// Samples in this time at this rate.
fn samples(time: Duration, rate: u32) -> usize {
    (time.as_millis() as usize) * rate as usize / 1000
}
