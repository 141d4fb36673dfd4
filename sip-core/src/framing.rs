//! Bytes of a stream → messages (RFC 3261 §18.3) and CRLF keep-alives (RFC 5626 §3.5.1, §4.4.1).
//!
//! On a stream nothing but Content-Length says where a message ends, so it is mandatory (§20.14), and it is read by the same
//! parser that reads the message afterwards: there is no second opinion to smuggle a request past. A stream on which the
//! next message cannot be found is broken for good: the fault is named, a request that can be answered is answered, and the
//! connection ends.
//!
//! Invariant: after [`Framer::pop`] has said `Ok(None)`, at most [`MAX_MESSAGE`] bytes are held.

use crate::message::{Message, Method, respond};
use bytes::{Buf, Bytes, BytesMut};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

/// Longest message, head and body: what one UDP datagram may be, so that no transport takes more than another.
pub const MAX_MESSAGE: usize = 65_535;

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message.
    Message(Bytes),
    /// Double CRLF: the peer asks whether we live. A single one is the answer.
    Ping,
    /// A single CRLF.
    Pong,
}

/// Why no further message can be found. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    #[error("no SIP message begins here")]
    Garbage,
    #[error("the head is longer than a message may be")]
    HeadTooLong,
    #[error("the body is longer than a message may be")]
    BodyTooLong,
    #[error("Content-Length missing, doubled or not a number")]
    Length,
}

impl Fault {
    /// Every fault, for tables.
    pub const ALL: [Fault; 4] = [Fault::Garbage, Fault::HeadTooLong, Fault::BodyTooLong, Fault::Length];

    /// The counter's name.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Garbage => "stream_garbage",
            Fault::HeadTooLong => "stream_head_too_long",
            Fault::BodyTooLong => "stream_body_too_long",
            Fault::Length => "stream_without_length",
        }
    }

    /// What a request with this fault is told (§18.3, §21.4.11, §21.5.7).
    fn code(self) -> u16 {
        match self {
            Fault::Garbage | Fault::Length => 400,
            Fault::HeadTooLong => 513,
            Fault::BodyTooLong => 413,
        }
    }
}

/// The end of a stream, with the answer to send before it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub fault: Fault,
    pub answer: Option<Bytes>,
}

/// Cuts one stream. Push what was read, then pop frames until there are none.
#[derive(Debug)]
pub struct Framer {
    /// The peer, for `received` and `rport` of an answer.
    source: SocketAddr,
    buffer: BytesMut,
    /// Bytes of the buffer in which no end of the head begins.
    searched: usize,
    /// Length of the whole message, once its head is known.
    length: Option<usize>,
}

impl Framer {
    pub fn new(source: SocketAddr) -> Framer {
        Framer { source, buffer: BytesMut::new(), searched: 0, length: None }
    }

    /// Bytes of the stream, in order. The caller chooses how much it reads at once.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Has a message begun that is not complete? A lone CRLF is none.
    pub fn is_amid_message(&self) -> bool {
        self.buffer.first().is_some_and(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The next frame; `Ok(None)`: more bytes are needed. After an error the stream is at its end.
    pub fn pop(&mut self) -> Result<Option<Frame>, Broken> {
        if let Some(found) = self.keep_alive() {
            return found;
        }
        if self.length.is_none() && !self.find_length()? {
            return Ok(None);
        }
        let Some(length) = self.length.filter(|length| *length <= self.buffer.len()) else { return Ok(None) };
        (self.length, self.searched) = (None, 0);
        Ok(Some(Frame::Message(self.buffer.split_to(length).freeze())))
    }

    /// What stands before a message: CRLFs (§7.5, RFC 5626 §4.4.1) and nothing else. `None`: a message begins.
    fn keep_alive(&mut self) -> Option<Result<Option<Frame>, Broken>> {
        let (frame, bytes) = match *self.buffer.as_ref() {
            [] | [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return Some(Ok(None)),
            [b'\r', b'\n', b'\r', b'\n', ..] => (Frame::Ping, 4),
            [b'\r', b'\n', ..] => (Frame::Pong, 2),
            // The first letter of a method or of SIP/2.0.
            [first, ..] if first.is_ascii_graphic() => return None,
            _ => return Some(Err(Broken { fault: Fault::Garbage, answer: None })),
        };
        self.buffer.advance(bytes);
        Some(Ok(Some(frame)))
    }

    /// Reads the head if it is complete. `false`: it is not.
    fn find_length(&mut self) -> Result<bool, Broken> {
        let found = self.buffer[self.searched..].windows(4).position(|w| w == b"\r\n\r\n");
        let Some(head) = found.map(|at| self.searched + at + 4).filter(|head| *head <= MAX_MESSAGE) else {
            self.searched = self.buffer.len().saturating_sub(3);
            return if self.buffer.len() < MAX_MESSAGE { Ok(false) } else { Err(self.head_too_long()) };
        };
        let bytes = Bytes::copy_from_slice(&self.buffer[..head]);
        let message = Message::parse(bytes).map_err(|_| Broken { fault: Fault::Garbage, answer: None })?;
        let broken = |fault: Fault| Broken { fault, answer: self.answer(&message, fault) };
        let body = message.content_length().ok_or_else(|| broken(Fault::Length))?;
        let length = head.checked_add(body).filter(|length| *length <= MAX_MESSAGE);
        self.length = Some(length.ok_or_else(|| broken(Fault::BodyTooLong))?);
        Ok(true)
    }

    /// The lines that are there may say whom to answer.
    fn head_too_long(&self) -> Broken {
        let whole = self.buffer[..MAX_MESSAGE.min(self.buffer.len())].windows(2).rposition(|w| w == b"\r\n").unwrap_or(0);
        let mut head = self.buffer[..whole].to_vec();
        head.extend_from_slice(b"\r\n\r\n");
        let message = Message::parse(Bytes::from(head)).ok();
        let answer = message.and_then(|message| self.answer(&message, Fault::HeadTooLong));
        Broken { fault: Fault::HeadTooLong, answer }
    }

    /// An answer is made from the mandatory headers; ACK and responses get none.
    fn answer(&self, message: &Message, fault: Fault) -> Option<Bytes> {
        let readable = message.via().is_some() && message.from().is_some() && message.to().is_some();
        let known = readable && message.call_id().is_some() && message.cseq().is_some();
        let asks = message.method().is_some_and(|method| *method != Method::Ack);
        // No dialog and no transaction hangs on this tag, so it need not be a secret: a stateless server makes it from the
        // request (§8.2.7).
        let mut hasher = DefaultHasher::new();
        message.bytes().hash(&mut hasher);
        let tag = format!("{:016x}", hasher.finish());
        (known && asks).then(|| respond(message, self.source, fault.code(), Some(&tag)).finish())
    }
}
