//! SIP over WebSocket (RFC 7118): the subprotocol `sip`, one message per WebSocket message, text or binary. The WebSocket
//! keeps the boundaries, so a message is read like a datagram.

#![allow(clippy::disallowed_methods)] // a shell: owns a socket and reads the clock

use super::Counter;
use super::connection::{Connection, End};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sip_core::framing::MAX_MESSAGE;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, error::CapacityError};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol";
/// Pings that may be on their way when the next is due.
const UNANSWERED: u32 = 2;

pub(super) async fn carry(connection: &Connection, stream: impl AsyncRead + AsyncWrite + Unpin) -> End {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    config.read_buffer_size = 8192;
    config.write_buffer_size = 0;
    config.max_write_buffer_size = 4 * MAX_MESSAGE;
    let mut speaks_sip = false;
    let handshake = accept_hdr_async_with_config(stream, Agree(&mut speaks_sip), Some(config));
    let handshake = timeout(connection.limits.half_open, handshake).await;
    let socket = match handshake {
        Ok(Ok(socket)) => socket,
        Ok(Err(Error::Http(_))) if !speaks_sip => return Counter::NoSubprotocol,
        Ok(Err(_)) => return Counter::HandshakeFailed,
        Err(_) => return Counter::HalfOpen,
    };
    let Some(outbox) = connection.open().await else { return Counter::ClosedByUs };
    let end = talk(connection, socket, outbox).await;
    connection.close().await;
    end
}

/// RFC 7118 §4.1: the client offers `sip`, and nothing else will do. Notes whether it did.
struct Agree<'a>(&'a mut bool);

impl Callback for Agree<'_> {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let offered = request.headers().get_all(SUBPROTOCOL).iter().filter_map(|value| value.to_str().ok());
        *self.0 = offered.flat_map(|list| list.split(',')).any(|name| name.trim().eq_ignore_ascii_case("sip"));
        if *self.0 {
            response.headers_mut().insert(SUBPROTOCOL, HeaderValue::from_static("sip"));
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(Some("the subprotocol is sip (RFC 7118)".to_owned()));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        Err(refusal)
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &Connection,
    mut socket: WebSocketStream<S>,
    mut outbox: mpsc::Receiver<Bytes>,
) -> End {
    let limits = connection.limits;
    let mut first = Some(Instant::now() + limits.half_open);
    let mut idle = Instant::now() + limits.idle;
    let (mut next_ping, mut unanswered) = (Instant::now() + limits.ping, 0);
    loop {
        let deadline = next_ping.min(first.unwrap_or(idle));
        let message = tokio::select! {
            heard = socket.next() => {
                let heard = match heard {
                    Some(Ok(heard)) => heard,
                    Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => return Counter::BodyTooLong,
                    Some(Err(Error::Protocol(_) | Error::Utf8(_))) => return Counter::Garbage,
                    Some(Err(_)) | None => return Counter::ClosedByPeer,
                };
                unanswered = 0;
                idle = Instant::now() + limits.idle;
                let bytes = match heard {
                    Message::Text(text) => Bytes::from(text),
                    Message::Binary(bytes) => bytes,
                    Message::Close(_) => return Counter::ClosedByPeer,
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
                };
                if bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                    first = None;
                    if !connection.deliver(bytes).await {
                        return Counter::ClosedByUs;
                    }
                    continue;
                }
                // The keep-alive of RFC 5626, as browser phones send it.
                if bytes.len() < 4 {
                    continue;
                }
                Message::text("\r\n")
            }
            message = outbox.recv() => match message {
                Some(bytes) => as_text(bytes),
                None => return Counter::ClosedByUs,
            },
            () = sleep_until(deadline) => {
                let now = Instant::now();
                match first {
                    Some(at) if at <= now => return Counter::HalfOpen,
                    None if idle <= now => return Counter::Idle,
                    _ if unanswered >= UNANSWERED => return Counter::PingUnanswered,
                    _ => {}
                }
                unanswered += 1;
                next_ping = now + limits.ping;
                Message::Ping(Bytes::new())
            }
        };
        match timeout(limits.write, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Counter::ClosedByPeer,
            Err(_) => return Counter::WriteStuck,
        }
    }
}

/// Text is what browser phones expect; a body that is none goes as binary (RFC 7118 §5.1).
fn as_text(bytes: Bytes) -> Message {
    match bytes.clone().try_into() {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(bytes),
    }
}
