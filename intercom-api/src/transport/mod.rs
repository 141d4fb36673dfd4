//! Sockets under the SIP thread. UDP here; streams (TCP, TLS, WebSocket) arrive beside it.

pub mod strangers;
pub mod udp;
