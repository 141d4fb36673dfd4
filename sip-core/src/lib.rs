//! SIP as pure functions of (state, now, bytes).
