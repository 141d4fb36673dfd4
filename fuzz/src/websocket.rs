//! Bytes of a WebSocket after its handshake, with the limits we set: no bytes may panic, nothing longer than a message comes out.

use sip_core::framing::MAX_MESSAGE;
use std::io::{self, Read, Write};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

/// The peer's bytes; what we answer goes nowhere.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn run(bytes: &[u8]) {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    let mut socket = WebSocket::from_raw_socket(Wire(bytes), Role::Server, Some(config));
    while let Ok(message) = socket.read() {
        assert!(message.len() <= MAX_MESSAGE);
    }
}
