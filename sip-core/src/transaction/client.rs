//! Client transactions (RFC 3261 §17.1, Accepted state of RFC 6026). Over a reliable transport nothing is repeated (no timers
//! A and E), and no repeat of an answer is waited for (timers D and K are zero).

use super::{Fate, T1, T2, T4, T64, Transmit};
use crate::flow::Flow;
use bytes::Bytes;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calling (INVITE) or Trying: nothing heard.
    Calling,
    Proceeding,
    /// Final response heard; its repeats are absorbed (INVITE: and ACKed).
    Completed,
    /// INVITE: 2xx heard; further ones are passed up (RFC 6026 §7.2).
    Accepted,
}

/// What a response means to the user of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Pass it up.
    Deliver,
    /// A repeat.
    Absorb,
}

/// One request we sent.
#[derive(Debug)]
pub struct ClientTransaction {
    pub flow: Flow,
    invite: bool,
    state: State,
    request: Bytes,
    /// The ACK of a non-2xx final response, once made.
    ack: Option<Bytes>,
    /// Timers A, E and the next interval.
    repeat: Option<(Instant, Duration)>,
    /// Timers B, D, F, K, M.
    end: Option<Instant>,
}

impl ClientTransaction {
    /// Sends the request at once.
    pub fn new(now: Instant, flow: Flow, invite: bool, request: Bytes, out: &mut Vec<Transmit>) -> ClientTransaction {
        out.push(Transmit { flow, bytes: request.clone() });
        ClientTransaction {
            flow,
            invite,
            state: State::Calling,
            request,
            ack: None,
            repeat: (!flow.transport.is_reliable()).then_some((now + T1, T1 * 2)),
            end: Some(now + T64),
        }
    }

    /// A response arrived. `ack` makes the ACK of a non-2xx final response to INVITE (§17.1.1.3).
    pub fn receive(&mut self, now: Instant, code: u16, ack: impl FnOnce() -> Bytes, out: &mut Vec<Transmit>) -> Received {
        match (self.state, code) {
            (State::Calling | State::Proceeding, ..200) => {
                self.state = State::Proceeding;
                if self.invite {
                    self.repeat = None;
                    self.end = None;
                } else {
                    // Timer E goes on, at T2 (§17.1.2.2).
                    self.repeat = self.repeat.map(|_| (now + T2, T2));
                }
                Received::Deliver
            }
            (State::Calling | State::Proceeding, 200..300) if self.invite => {
                self.state = State::Accepted;
                self.repeat = None;
                self.end = Some(now + T64);
                Received::Deliver
            }
            (State::Calling | State::Proceeding, _) => {
                self.state = State::Completed;
                self.repeat = None;
                let wait = if self.invite { T64 } else { T4 };
                self.end = Some(if self.flow.transport.is_reliable() { now } else { now + wait });
                if self.invite {
                    let ack = ack();
                    out.push(Transmit { flow: self.flow, bytes: ack.clone() });
                    self.ack = Some(ack);
                }
                Received::Deliver
            }
            (State::Completed, 300..) => {
                if let Some(ack) = &self.ack {
                    out.push(Transmit { flow: self.flow, bytes: ack.clone() });
                }
                Received::Absorb
            }
            (State::Accepted, 200..300) => Received::Deliver,
            (State::Completed | State::Accepted, _) => Received::Absorb,
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
                State::Calling | State::Proceeding => Fate::TimedOut,
                State::Completed | State::Accepted => Fate::Done,
            };
        }
        if let Some((_, interval)) = self.repeat.filter(|(at, _)| *at <= now) {
            self.resend(out);
            // Timer A doubles without limit, timer E up to T2.
            let next = if self.invite { interval * 2 } else { (interval * 2).min(T2) };
            self.repeat = Some((now + interval, next));
        }
        Fate::Live
    }

    fn resend(&self, out: &mut Vec<Transmit>) {
        out.push(Transmit { flow: self.flow, bytes: self.request.clone() });
    }

    /// Begins anew while nothing was heard: sends the request now and backs off from there (D-06: a sleeping phone just
    /// woke up, and its INVITE may be in a pause of 16 s).
    pub fn restart(&mut self, now: Instant, out: &mut Vec<Transmit>) {
        if self.state == State::Calling {
            self.resend(out);
            self.repeat = Some((now + T1, T1 * 2));
            self.end = Some(now + T64);
        }
    }

    /// Would the peer profit from hearing the request again?
    pub fn may_repeat(&self) -> bool {
        self.nothing_heard() && !self.flow.transport.is_reliable()
    }

    /// No provisional response yet: a CANCEL must wait (§9.1).
    pub fn nothing_heard(&self) -> bool {
        self.state == State::Calling
    }

    /// No final response yet.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Calling | State::Proceeding)
    }

    /// Ends an INVITE that was cancelled but never got a final response, at the latest then (§9.1).
    pub fn give_up_at(&mut self, at: Instant) {
        if self.is_open() {
            self.end = Some(self.end.map_or(at, |end| end.min(at)));
        }
    }

    /// Stops repeating (D-24: nothing of an unlock leaves late).
    pub fn stop_repeating(&mut self) {
        self.repeat = None;
    }
}
