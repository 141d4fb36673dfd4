//! SIP as pure functions of (state, now, bytes).

pub mod digest;
pub mod flow;
pub mod location;
pub mod sdp;
