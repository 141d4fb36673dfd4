//! Server transactions (RFC 3261 §17.2, Accepted state of RFC 6026). Over a reliable transport no response is repeated (no
//! timer G), and no repeat of a request is waited for (timers I and J are zero).

use super::{Fate, T1, T2, T4, T64, Transmit};
use crate::flow::Flow;
use crate::message::{Message, Method};
use crate::token::MAGIC_COOKIE;
use bytes::Bytes;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What makes two requests the same transaction (§17.2.3). ACK belongs to its INVITE; CANCEL is one of its own.
///
/// Sent-by, method and branch in one text, with blanks between, which neither of the first two holds; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey(Arc<str>);

impl ServerKey {
    /// `None` when the message has no usable Via, CSeq or method.
    pub fn of(request: &Message) -> Option<ServerKey> {
        Self::of_method(request, request.method()?)
    }

    /// The key of the INVITE a CANCEL is about (§9.2).
    pub fn of_cancelled(cancel: &Message) -> Option<ServerKey> {
        Self::of_method(cancel, &Method::Invite)
    }

    fn of_method(request: &Message, method: &Method) -> Option<ServerKey> {
        let via = request.via()?;
        let method = if *method == Method::Ack { &Method::Invite } else { method };
        let mut key = String::with_capacity(128);
        key.extend([via.sent_by, " "]);
        key.make_ascii_lowercase();
        key.extend([method.as_str(), " "]);
        match via.branch() {
            // The cookie alone names nothing (RFC 4475 §3.2.1).
            Some(branch) if branch.strip_prefix(MAGIC_COOKIE).is_some_and(|id| !id.is_empty()) => key.push_str(branch),
            // RFC 2543 peers: the tuple of §17.2.3; the To-tag is left out so that an ACK finds its INVITE.
            old => {
                let (old, call_id, cseq) = (old.unwrap_or_default(), request.call_id()?, request.cseq()?.number);
                let _ = write!(key, "{old}|{call_id}|{cseq}|{}", request.from()?.tag().unwrap_or_default());
            }
        }
        Some(ServerKey(key.into()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Trying and Proceeding: no final response yet.
    Proceeding,
    /// Final response sent (INVITE: non-2xx, repeated until the ACK).
    Completed,
    /// INVITE: ACK seen, repeats absorbed (timer I).
    Confirmed,
    /// INVITE: 2xx sent; its repeats are the dialog's business (RFC 6026 §7.1).
    Accepted,
}

/// One request that came in.
#[derive(Debug)]
pub struct ServerTransaction {
    pub flow: Flow,
    pub request: Message,
    invite: bool,
    state: State,
    last: Option<Bytes>,
    /// Timer G and its next interval.
    repeat: Option<(Instant, Duration)>,
    /// Timers H, I, J, L.
    end: Option<Instant>,
}

impl ServerTransaction {
    pub fn new(request: Message, flow: Flow) -> ServerTransaction {
        let invite = request.method() == Some(&Method::Invite);
        ServerTransaction { flow, request, invite, state: State::Proceeding, last: None, repeat: None, end: None }
    }

    pub fn is_invite(&self) -> bool {
        self.invite
    }

    /// INVITE and UPDATE carry the Contact that becomes the remote target (RFC 3261 §12.2, RFC 3311 §5.1).
    pub fn refreshes_target(&self) -> bool {
        self.invite || self.request.method() == Some(&Method::Update)
    }

    /// No final response has been sent.
    pub fn is_open(&self) -> bool {
        self.state == State::Proceeding
    }

    /// The same request again: the last response goes out again, except after a 2xx to INVITE.
    pub fn repeat(&mut self, out: &mut Vec<Transmit>) {
        match self.state {
            State::Proceeding | State::Completed => self.send_last(out),
            State::Confirmed | State::Accepted => {}
        }
    }

    /// The ACK for a non-2xx final response. The ACK of a 2xx is the dialog's.
    pub fn acknowledge(&mut self, now: Instant) {
        if self.state == State::Completed && self.invite {
            self.state = State::Confirmed;
            self.repeat = None;
            self.end = Some(if self.flow.transport.is_reliable() { now } else { now + T4 });
        }
    }

    /// Sends a response; a second final one is ignored.
    pub fn respond(&mut self, now: Instant, code: u16, bytes: Bytes, out: &mut Vec<Transmit>) {
        if self.state != State::Proceeding {
            return;
        }
        self.last = Some(bytes);
        self.send_last(out);
        match code {
            ..200 => {}
            200..300 if self.invite => {
                self.state = State::Accepted;
                self.end = Some(now + T64);
                self.last = None;
            }
            _ => {
                self.state = State::Completed;
                let reliable = self.flow.transport.is_reliable();
                self.end = Some(if reliable && !self.invite { now } else { now + T64 });
                self.repeat = (self.invite && !reliable).then_some((now + T1, T1 * 2));
            }
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match (self.repeat, self.end) {
            (Some((at, _)), Some(end)) => Some(at.min(end)),
            (Some((at, _)), None) => Some(at),
            (None, end) => end,
        }
    }

    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Transmit>) -> Fate {
        if self.end.is_some_and(|end| end <= now) {
            return match self.state {
                State::Completed if self.invite => Fate::TimedOut,
                _ => Fate::Done,
            };
        }
        if let Some((_, interval)) = self.repeat.filter(|(at, _)| *at <= now) {
            self.send_last(out);
            self.repeat = Some((now + interval, (interval * 2).min(T2)));
        }
        Fate::Live
    }

    fn send_last(&self, out: &mut Vec<Transmit>) {
        if let Some(bytes) = &self.last {
            out.push(Transmit { flow: self.flow, bytes: bytes.clone() });
        }
    }
}
