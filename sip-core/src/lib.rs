//! SIP as pure functions of (state, now, bytes). No sockets, clock, threads, async or randomness inside.
//!
//! [`endpoint::Endpoint`] is the one type a user touches; the other modules are its parts, each named by the RFC idea it
//! holds.

mod dialog;
pub mod digest;
pub mod endpoint;
pub mod flow;
pub mod framing;
pub mod location;
pub mod message;
pub mod registrar;
pub mod sdp;
pub mod stun;
pub mod target;
pub mod timers;
pub mod token;
pub mod transaction;
