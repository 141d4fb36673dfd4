//! What is thrown at the pure parts, one function `run` per target: no bytes may panic, and each states what must hold besides.

pub mod audio;
pub mod digest;
pub mod engine;
pub mod framing;
pub mod key_frame;
pub mod message;
pub mod sdp;
pub mod switchboard;
pub mod uri;
pub mod websocket;
