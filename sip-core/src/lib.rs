//! SIP as pure functions of (state, now, bytes).

pub mod sdp;
