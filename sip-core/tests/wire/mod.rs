//! Two endpoints on a wire that loses what the test says. Time is virtual.

#![allow(clippy::disallowed_methods, dead_code)] // a test needs some instant to begin at; each test binary uses its part

use bytes::Bytes;
use sip_core::endpoint::{Endpoint, Event, Headers, Identity, Invite, LegId, Out};
use sip_core::flow::{Flow, Transport};
use sip_core::token::Tokens;
use std::time::{Duration, Instant};

pub const SDP: (&str, &[u8]) = ("application/sdp", b"v=0\r\n");

/// `a` calls, `b` is called. `log` has every datagram's first line with its direction; `lose` says which to lose.
pub struct Wire {
    pub transport: Transport,
    pub now: Instant,
    pub a: Endpoint,
    pub b: Endpoint,
    pub a_events: Vec<Event>,
    pub b_events: Vec<Event>,
    pub log: Vec<String>,
    pub lose: Box<dyn FnMut(&str) -> bool>,
}

pub fn endpoint(seed: u8) -> Endpoint {
    endpoint_that(seed, "", None)
}

pub fn endpoint_that(seed: u8, supported: &'static str, session_expires: Option<u32>) -> Endpoint {
    endpoint_with(seed, "INVITE, UPDATE", supported, session_expires)
}

pub fn endpoint_with(seed: u8, allow: &'static str, supported: &'static str, session_expires: Option<u32>) -> Endpoint {
    let identity = Identity { product: "test".into(), public_host: None, allow, supported, session_expires };
    Endpoint::new(identity, Tokens::new(0, [seed; 32]))
}

pub fn flow(local: u16, remote: u16) -> Flow {
    Flow { transport: Transport::Udp, local: ([127, 0, 0, 1], local).into(), remote: ([127, 0, 0, 1], remote).into() }
}

impl Wire {
    pub fn new(lose: impl FnMut(&str) -> bool + 'static) -> Wire {
        let now = Instant::now();
        let (a, b) = (endpoint(1), endpoint(2));
        let transport = Transport::Udp;
        Wire { transport, now, a, b, a_events: vec![], b_events: vec![], log: vec![], lose: Box::new(lose) }
    }

    /// The same over one TCP connection.
    pub fn connected(lose: impl FnMut(&str) -> bool + 'static) -> Wire {
        Wire { transport: Transport::Tcp, ..Wire::new(lose) }
    }

    pub fn flow(&self, local: u16, remote: u16) -> Flow {
        Flow { transport: self.transport, ..flow(local, remote) }
    }

    /// The connection breaks and both sides are told.
    pub fn reset(&mut self) {
        let (at_a, at_b) = (self.flow(1, 2), self.flow(2, 1));
        self.a(|a, now, out| a.flow_closed(now, &at_a, out));
        self.b(|b, now, out| b.flow_closed(now, &at_b, out));
    }

    pub fn deliver(&mut self, from_a: bool, mut out: Out) {
        let events = if from_a { &mut self.a_events } else { &mut self.b_events };
        events.append(&mut out.events);
        for transmit in out.transmits {
            let text = String::from_utf8_lossy(&transmit.bytes).into_owned();
            let line = format!("{} {}", if from_a { "a" } else { "b" }, text.lines().next().unwrap_or_default());
            let line = line.split(" sip:").next().unwrap_or_default().to_owned();
            let lost = (self.lose)(&line);
            self.log.push(if lost { format!("{line} lost") } else { line });
            if lost {
                continue;
            }
            let mut next = Out::default();
            if from_a {
                self.b.receive(self.now, self.flow(2, 1), transmit.bytes, &mut next);
            } else {
                self.a.receive(self.now, self.flow(1, 2), transmit.bytes, &mut next);
            }
            self.deliver(!from_a, next);
        }
    }

    pub fn a<T>(&mut self, act: impl FnOnce(&mut Endpoint, Instant, &mut Out) -> T) -> T {
        let mut out = Out::default();
        let result = act(&mut self.a, self.now, &mut out);
        self.deliver(true, out);
        result
    }

    pub fn b<T>(&mut self, act: impl FnOnce(&mut Endpoint, Instant, &mut Out) -> T) -> T {
        let mut out = Out::default();
        let result = act(&mut self.b, self.now, &mut out);
        self.deliver(false, out);
        result
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = [self.a.next_deadline(), self.b.next_deadline()].into_iter().flatten().min().filter(|at| *at <= end)
        {
            self.now = self.now.max(at);
            self.a(|a, now, out| a.timeout(now, out));
            self.b(|b, now, out| b.timeout(now, out));
        }
        self.now = end;
    }

    pub fn call(&mut self) -> LegId {
        self.call_with(SDP.1)
    }

    pub fn call_with(&mut self, body: &'static [u8]) -> LegId {
        let invite = Invite {
            flow: self.flow(1, 2),
            target: "sip:b@127.0.0.1:2".into(),
            from: "<sip:a@x>".into(),
            to: "<sip:b@x>".into(),
            routes: Vec::new(),
            headers: Headers::new(),
            content_type: "application/sdp",
            body: Bytes::from_static(body),
        };
        self.a(|a, now, out| a.invite(now, invite, out))
    }

    pub fn take(&mut self) -> LegId {
        let Some(Event::Request { tx, .. }) = self.b_events.pop() else { panic!("no INVITE") };
        self.b.take(tx).unwrap()
    }

    pub fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with(what)).count()
    }

    pub fn assert_nothing_left(&mut self) {
        self.run(Duration::from_secs(100));
        assert_eq!((self.a.sizes(), self.b.sizes()), ((0, 0, 0), (0, 0, 0)), "{:#?}", self.log);
        assert!(self.a.next_deadline().is_none() && self.b.next_deadline().is_none());
    }
}

pub fn answer(wire: &mut Wire, leg: LegId, code: u16) {
    wire.b(|b, now, out| b.answer(now, leg, code, &Headers::new(), Some(SDP).filter(|_| code < 300), out));
}
