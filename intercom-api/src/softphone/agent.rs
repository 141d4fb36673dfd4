//! [`Agent`]: one user agent as a pure machine on [`Endpoint`]: registers, calls, is called, with digest. A door and a
//! phone differ only in who calls and in what media they send.

use bytes::Bytes;
use sip_core::digest::Challenge;
use sip_core::endpoint::{Endpoint, Event, Headers, Identity, Invite, LegId, Lone, Out, TxId};
use sip_core::flow::Flow;
use sip_core::message::{Message, Method, Name, Uri};
use sip_core::token::Tokens;
use sip_core::transaction::Transmit;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Seconds a registration is asked for (spec sip.md §12).
const EXPIRES_S: u32 = 600;

/// Who the agent is and where its server is.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub number: String,
    pub password: String,
    /// Host of all URIs.
    pub domain: String,
    /// From our socket to the server.
    pub flow: Flow,
    pub seed: [u8; 32],
    /// Extensions it knows: `100rel`, `timer`, both (`100rel, timer`) or none.
    pub supported: &'static str,
    /// Seconds of the session timer it asks for.
    pub session_expires: Option<u32>,
}

/// What the agent tells its user.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    Registered,
    RegisterFailed {
        /// 408 when the server did not answer.
        code: u16,
    },
    /// A call for us; the body is the offer. Answer with [`Agent::answer`].
    Incoming {
        offer: Bytes,
    },
    /// 101–199 for our call, with its description if it has one. If our call had none, this one is an offer, to be answered
    /// with [`Agent::accept_offer`]; the same for [`AgentEvent::Answered`].
    Progress {
        code: u16,
        to_tag: String,
        body: Bytes,
    },
    /// Our call was answered.
    Answered {
        body: Bytes,
    },
    /// Our call was refused.
    Refused {
        code: u16,
    },
    /// The caller cancelled.
    Cancelled,
    /// The other side hung up.
    Ended,
    /// An INFO in the call, answered 200 already.
    Info {
        body: Bytes,
    },
    /// The answer to our [`Agent::reoffer`]; 408 when none came.
    Reoffered {
        code: u16,
        body: Bytes,
    },
    /// A MESSAGE for us, answered 200 already.
    Message {
        from: String,
        body: Bytes,
    },
    /// What became of our [`Agent::message`].
    Delivered {
        code: u16,
    },
}

/// What leaves in one turn.
#[derive(Debug, Default)]
pub struct AgentOut {
    pub transmits: Vec<Transmit>,
    pub events: Vec<AgentEvent>,
}

/// See the module text.
pub struct Agent {
    config: AgentConfig,
    endpoint: Endpoint,
    sip: Out,
    register_call_id: String,
    register_cseq: u32,
    /// The challenge in force, and how often it was used (nc).
    challenge: Option<(String, u32)>,
    /// When to register again; none before the first success.
    refresh: Option<Instant>,
    /// Seconds of the REGISTER under way; 0 takes the binding away.
    asked: u32,
    leg: Option<LegId>,
    /// What is called, to try again with credentials.
    dialled: Option<(String, Bytes)>,
    tried: bool,
    /// The description of our re-INVITE, and whether it has been sent with credentials.
    reoffer: Option<(Bytes, bool)>,
    /// The MESSAGE under way: to whom, what, its CSeq.
    message: Option<Letter>,
    message_tried: bool,
    message_call_id: String,
    /// INFOs under way, to be sent again with credentials: after a new connection the server asks who we are (D-13).
    infos: Vec<(TxId, String, Bytes)>,
    /// How requests in the call are answered: 200, or what a device that does not know them says.
    pub info_code: u16,
}

/// The last MESSAGE: it goes once more with credentials.
#[derive(Debug)]
struct Letter {
    method: Method,
    to: String,
    content_type: &'static str,
    text: String,
    cseq: u32,
}

impl Agent {
    pub fn new(config: AgentConfig) -> Agent {
        let identity = Identity {
            product: "Doorline-softphone".into(),
            public_host: None,
            // Without UPDATE, as many phones are.
            allow: "INVITE, ACK, CANCEL, BYE, INFO, PRACK, MESSAGE",
            supported: config.supported,
            session_expires: config.session_expires,
        };
        let mut tokens = Tokens::new(0, config.seed);
        let (register_call_id, message_call_id) = (tokens.token(), tokens.token());
        Agent {
            endpoint: Endpoint::new(identity, tokens),
            config,
            sip: Out::default(),
            register_call_id,
            register_cseq: 0,
            challenge: None,
            refresh: None,
            asked: 0,
            leg: None,
            dialled: None,
            tried: false,
            reoffer: None,
            message: None,
            message_tried: false,
            message_call_id,
            infos: Vec::new(),
            info_code: 200,
        }
    }

    /// The generator of this agent's ids, for its media identities.
    pub fn tokens(&mut self) -> &mut Tokens {
        self.endpoint.tokens()
    }

    pub fn register(&mut self, now: Instant, out: &mut AgentOut) {
        self.tried = false;
        self.asked = EXPIRES_S;
        self.send_register(now, Headers::new());
        self.pump(now, out);
    }

    pub fn unregister(&mut self, now: Instant, out: &mut AgentOut) {
        self.tried = false;
        self.asked = 0;
        self.refresh = None;
        self.send_register(now, Headers::new());
        self.pump(now, out);
    }

    /// Lets the registration run out.
    pub fn stop_refreshing(&mut self) {
        self.refresh = None;
    }

    fn send_register(&mut self, now: Instant, mut headers: Headers) {
        self.register_cseq += 1;
        let transport = self.config.flow.transport.uri_parameter();
        let contact = format!("<sip:{}@{}{transport}>", self.config.number, self.config.flow.local);
        headers.push(("Contact", contact));
        headers.push(("Expires", self.asked.to_string()));
        let aor = format!("<sip:{}@{}>", self.config.number, self.config.domain);
        let lone = Lone {
            flow: self.config.flow,
            method: Method::Register,
            uri: &format!("sip:{}", self.config.domain),
            routes: &[],
            from: &aor,
            to: &aor,
            call_id: &self.register_call_id,
            cseq: self.register_cseq,
            headers,
            body: None,
        };
        self.endpoint.send(now, lone, &mut self.sip);
    }

    /// Calls a number with an offer, or with an empty body for none.
    pub fn call(&mut self, now: Instant, dialled: &str, offer: Bytes, out: &mut AgentOut) {
        self.tried = false;
        self.dialled = Some((dialled.to_owned(), offer));
        self.send_invite(now, Headers::new());
        self.pump(now, out);
    }

    fn send_invite(&mut self, now: Instant, headers: Headers) {
        let Some((dialled, offer)) = self.dialled.clone() else { return };
        let target = format!("sip:{dialled}@{}", self.config.domain);
        let invite = Invite {
            flow: self.config.flow,
            from: format!("<sip:{}@{}>", self.config.number, self.config.domain),
            to: format!("<{target}>"),
            target,
            routes: Vec::new(),
            headers,
            content_type: "application/sdp",
            body: offer,
        };
        self.leg = Some(self.endpoint.invite(now, invite, &mut self.sip));
    }

    /// Answers the call for us: 180, 183 or 200 with a description, or a refusal.
    pub fn answer(&mut self, now: Instant, code: u16, body: Option<&[u8]>, out: &mut AgentOut) {
        let Some(leg) = self.leg else { return };
        let body = body.map(|body| ("application/sdp", body));
        self.endpoint.answer(now, leg, code, &Headers::new(), body, &mut self.sip);
        if code >= 300 {
            self.leg = None;
        }
        self.pump(now, out);
    }

    /// Ends the call, in whatever state it is.
    pub fn hang_up(&mut self, now: Instant, out: &mut AgentOut) {
        if let Some(leg) = self.leg.take() {
            self.endpoint.end(now, leg, Headers::new(), &mut self.sip);
        }
        self.dialled = None;
        self.pump(now, out);
    }

    /// Sends an INFO in the call.
    pub fn info(&mut self, now: Instant, content_type: &str, body: &[u8], out: &mut AgentOut) {
        self.send_info(now, content_type, Bytes::copy_from_slice(body), Headers::new());
        self.pump(now, out);
    }

    fn send_info(&mut self, now: Instant, content_type: &str, body: Bytes, headers: Headers) {
        let Some(leg) = self.leg else { return };
        let asked = self.endpoint.request(now, leg, &Method::Info, &headers, Some((content_type, &body)), &mut self.sip);
        if let Some(tx) = asked.filter(|_| headers.is_empty()) {
            self.infos.push((tx, content_type.to_owned(), body));
        }
    }

    /// The connection to the server is gone: a call that is not answered is over, an answered one goes on.
    pub fn connection_lost(&mut self, now: Instant, out: &mut AgentOut) {
        self.endpoint.flow_closed(now, &self.config.flow, &mut self.sip);
        self.pump(now, out);
    }

    /// There is a new connection from this address of ours.
    pub fn connected(&mut self, local: SocketAddr) {
        self.move_to(Flow { local, ..self.config.flow });
    }

    /// Answers the offer in a response to our call.
    pub fn accept_offer(&mut self, now: Instant, answer: &[u8], out: &mut AgentOut) {
        if let Some(leg) = self.leg {
            self.endpoint.accept_offer(now, leg, answer, &mut self.sip);
        }
        self.pump(now, out);
    }

    /// Sends a re-INVITE with a new description.
    pub fn reoffer(&mut self, now: Instant, body: Bytes, out: &mut AgentOut) {
        self.reoffer = Some((body.clone(), false));
        if let Some(leg) = self.leg {
            self.endpoint.reinvite(now, leg, Headers::new(), &body, &mut self.sip);
        }
        self.pump(now, out);
    }

    /// Our address has changed: the call and everything else goes on from there.
    pub fn move_to(&mut self, flow: Flow) {
        self.config.flow = flow;
        if let Some(leg) = self.leg {
            self.endpoint.move_leg(leg, flow);
        }
    }

    /// Sends a text to another account.
    pub fn message(&mut self, now: Instant, to: &str, content_type: &'static str, text: &str, out: &mut AgentOut) {
        self.write(now, Method::Message, to, content_type, text, out);
    }

    /// The same as an INFO, which no dialog is meant by.
    pub fn lone_info(&mut self, now: Instant, to: &str, content_type: &'static str, text: &str, out: &mut AgentOut) {
        self.write(now, Method::Info, to, content_type, text, out);
    }

    fn write(&mut self, now: Instant, method: Method, to: &str, content_type: &'static str, text: &str, out: &mut AgentOut) {
        let cseq = self.message.as_ref().map_or(1, |message| message.cseq + 1);
        self.message = Some(Letter { method, to: to.to_owned(), content_type, text: text.to_owned(), cseq });
        self.message_tried = false;
        self.send_message(now, Headers::new());
        self.pump(now, out);
    }

    fn send_message(&mut self, now: Instant, headers: Headers) {
        let Some(Letter { method, to, content_type, text, cseq }) = &self.message else { return };
        let uri = format!("sip:{to}@{}", self.config.domain);
        let lone = Lone {
            flow: self.config.flow,
            method: method.clone(),
            uri: &uri,
            routes: &[],
            from: &format!("<sip:{}@{}>", self.config.number, self.config.domain),
            to: &format!("<{uri}>"),
            call_id: &self.message_call_id,
            cseq: *cseq,
            headers,
            body: Some((content_type, text.as_bytes())),
        };
        self.endpoint.send(now, lone, &mut self.sip);
    }

    pub fn receive(&mut self, now: Instant, datagram: Bytes, out: &mut AgentOut) {
        self.endpoint.receive(now, self.config.flow, datagram, &mut self.sip);
        self.pump(now, out);
    }

    pub fn timeout(&mut self, now: Instant, out: &mut AgentOut) {
        self.endpoint.timeout(now, &mut self.sip);
        if self.refresh.is_some_and(|at| at <= now) {
            self.refresh = None;
            self.tried = false;
            self.send_register(now, Headers::new());
        }
        self.pump(now, out);
    }

    /// Live transactions (in, out) and legs: what a test checks to be zero at the end.
    pub fn sizes(&self) -> (usize, usize, usize) {
        self.endpoint.sizes()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        [self.endpoint.next_deadline(), self.refresh].into_iter().flatten().min()
    }

    fn pump(&mut self, now: Instant, out: &mut AgentOut) {
        while !self.sip.events.is_empty() {
            for event in std::mem::take(&mut self.sip.events) {
                self.event(now, event, out);
            }
        }
        out.transmits.append(&mut self.sip.transmits);
    }

    fn event(&mut self, now: Instant, event: Event, out: &mut AgentOut) {
        match event {
            Event::Request { tx, request, .. } => match request.method() {
                Some(Method::Invite) if self.leg.is_none() => {
                    self.leg = self.endpoint.take(tx);
                    out.events.push(AgentEvent::Incoming { offer: Bytes::copy_from_slice(request.body()) });
                }
                Some(Method::Invite) => self.endpoint.respond(now, tx, 486, &Headers::new(), None, &mut self.sip),
                Some(Method::Options) => self.endpoint.respond(now, tx, 200, &Headers::new(), None, &mut self.sip),
                Some(Method::Message | Method::Info) => {
                    self.endpoint.respond(now, tx, 200, &Headers::new(), None, &mut self.sip);
                    let from = request.from().and_then(|from| Uri::parse(from.uri)?.user_decoded().map(|user| user.into_owned()));
                    let body = Bytes::copy_from_slice(request.body());
                    out.events.push(AgentEvent::Message { from: from.unwrap_or_default(), body });
                }
                _ => self.endpoint.respond(now, tx, 405, &Headers::new(), None, &mut self.sip),
            },
            Event::LegRequest { leg, tx, request, .. } => match request.method() {
                Some(Method::Bye) => {
                    self.endpoint.accept_bye(now, leg, tx, &mut self.sip);
                    self.leg = None;
                    out.events.push(AgentEvent::Ended);
                }
                Some(Method::Info) => {
                    self.endpoint.respond(now, tx, self.info_code, &Headers::new(), None, &mut self.sip);
                    if self.info_code == 200 {
                        out.events.push(AgentEvent::Info { body: Bytes::copy_from_slice(request.body()) });
                    }
                }
                // A refresh: what stands, stands.
                Some(Method::Invite) => {
                    let body = self.endpoint.leg_description(leg);
                    let body = body.as_deref().map(|body| ("application/sdp", body));
                    self.endpoint.respond(now, tx, 200, &Headers::new(), body, &mut self.sip);
                }
                Some(Method::Prack) => self.endpoint.respond(now, tx, 200, &Headers::new(), None, &mut self.sip),
                _ => self.endpoint.respond(now, tx, 488, &Headers::new(), None, &mut self.sip),
            },
            Event::Progress { response, .. } => {
                let to_tag = response.to().and_then(|to| to.tag()).unwrap_or_default().to_owned();
                let code = response.code().unwrap_or_default();
                out.events.push(AgentEvent::Progress { code, to_tag, body: Bytes::copy_from_slice(response.body()) });
            }
            Event::Answered { response, .. } => {
                out.events.push(AgentEvent::Answered { body: Bytes::copy_from_slice(response.body()) });
            }
            Event::Refused { code, response, .. } => self.refused(now, code, response.as_ref(), out),
            Event::Cancelled { .. } | Event::Lost { .. } => {
                self.leg = None;
                out.events.push(AgentEvent::Cancelled);
            }
            Event::NotAcknowledged { .. } | Event::Expired { .. } => {
                self.leg = None;
                out.events.push(AgentEvent::Ended);
            }
            Event::Confirmed { .. } => {}
            Event::Response { leg: None, method: Method::Message | Method::Info, response, .. } => {
                self.delivered(now, response.as_ref(), out)
            }
            Event::Response { leg: None, response, .. } => self.registered(now, response.as_ref(), out),
            Event::Response { leg: Some(leg), method: Method::Invite, response, .. } => {
                self.reoffered(now, leg, response.as_ref(), out);
            }
            Event::Response { leg: Some(_), tx, response, .. } => {
                let Some(at) = self.infos.iter().position(|(info, ..)| *info == tx) else { return };
                let (_, content_type, body) = self.infos.swap_remove(at);
                let challenge = response.as_ref().and_then(|r| r.header(Name::ProxyAuthenticate));
                if let Some(challenge) = challenge.filter(|_| response.as_ref().and_then(Message::code) == Some(407)) {
                    let uri = format!("sip:{}", self.config.domain);
                    let answer = self.credentials(challenge, "INFO", &uri);
                    self.send_info(now, &content_type, body, vec![("Proxy-Authorization", answer)]);
                }
            }
        }
    }

    fn refused(&mut self, now: Instant, code: u16, response: Option<&Message>, out: &mut AgentOut) {
        self.leg = None;
        let uri = self.dialled.as_ref().map(|(dialled, _)| format!("sip:{dialled}@{}", self.config.domain));
        if code == 407
            && !self.tried
            && let (Some(challenge), Some(uri)) = (response.and_then(|r| r.header(Name::ProxyAuthenticate)), uri)
        {
            self.tried = true;
            let answer = self.credentials(challenge, "INVITE", &uri);
            return self.send_invite(now, vec![("Proxy-Authorization", answer)]);
        }
        out.events.push(AgentEvent::Refused { code });
    }

    fn reoffered(&mut self, now: Instant, leg: LegId, response: Option<&Message>, out: &mut AgentOut) {
        // Without one of ours it was the session timer's.
        let Some((body, tried)) = self.reoffer.take() else { return };
        let code = response.and_then(Message::code).unwrap_or(408);
        let challenge = response.and_then(|r| r.header(Name::ProxyAuthenticate)).filter(|_| code == 407 && !tried);
        if let Some(challenge) = challenge {
            let answer = self.credentials(challenge, "INVITE", &format!("sip:{}", self.config.domain));
            self.endpoint.reinvite(now, leg, vec![("Proxy-Authorization", answer)], &body, &mut self.sip);
            self.reoffer = Some((body, true));
            return;
        }
        out.events.push(AgentEvent::Reoffered { code, body: Bytes::copy_from_slice(response.map_or(&[], Message::body)) });
    }

    fn delivered(&mut self, now: Instant, response: Option<&Message>, out: &mut AgentOut) {
        let code = response.and_then(Message::code).unwrap_or(408);
        let challenge = response.and_then(|r| r.header(Name::ProxyAuthenticate)).filter(|_| code == 407 && !self.message_tried);
        let Some(challenge) = challenge else { return out.events.push(AgentEvent::Delivered { code }) };
        self.message_tried = true;
        let Some(letter) = &mut self.message else { return };
        letter.cseq += 1;
        let method = letter.method.clone();
        let answer = self.credentials(challenge, method.as_str(), &format!("sip:{}", self.config.domain));
        self.send_message(now, vec![("Proxy-Authorization", answer)]);
    }

    fn registered(&mut self, now: Instant, response: Option<&Message>, out: &mut AgentOut) {
        match response.and_then(Message::code) {
            Some(200) if self.asked == 0 => {}
            Some(200) => {
                self.refresh = Some(now + Duration::from_secs(u64::from(EXPIRES_S / 2)));
                out.events.push(AgentEvent::Registered);
            }
            Some(401) if !self.tried => {
                let Some(challenge) = response.and_then(|r| r.header(Name::WwwAuthenticate)) else { return };
                self.tried = true;
                let uri = format!("sip:{}", self.config.domain);
                let answer = self.credentials(challenge, "REGISTER", &uri);
                self.send_register(now, vec![("Authorization", answer)]);
            }
            code => out.events.push(AgentEvent::RegisterFailed { code: code.unwrap_or(408) }),
        }
    }

    fn credentials(&mut self, challenge: &str, method: &str, uri: &str) -> String {
        let count = match &mut self.challenge {
            Some((known, count)) if known == challenge => {
                *count += 1;
                *count
            }
            other => {
                *other = Some((challenge.to_owned(), 1));
                1
            }
        };
        let cnonce = self.endpoint.tokens().token();
        let (number, password) = (&self.config.number, &self.config.password);
        Challenge::parse(challenge).map_or_else(String::new, |c| c.answer(method, uri, number, password, &cnonce, count))
    }
}
