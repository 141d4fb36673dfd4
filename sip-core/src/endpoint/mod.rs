//! [`Endpoint`]: transactions + INVITE dialogs as one pure machine, the one type a user of this crate touches.
//!
//! Bytes and time go in; datagrams and [`Event`]s come out in an [`Out`] that the caller owns. It keeps what RFC 3261 asks
//! of every user agent so that nobody above has to: repeats, the 2xx until its ACK (§13.3.1.4), the ACK of a 2xx, a CANCEL
//! that waits for the first provisional response (§9.1), a 2xx that crosses a CANCEL (ACK + BYE), a second 2xx of a fork
//! (ACK + BYE), a BYE that waits for the ACK (§15), reliable provisional responses and their PRACK (RFC 3262), session
//! timers (RFC 4028).
//!
//! A **leg** is one INVITE and the dialog it makes. After [`Endpoint::end`] the user has forgotten the
//! leg: no event of it follows, the endpoint ends it properly.

mod capacity;
mod flows;
mod legs;
mod receive;
mod reliable;
mod send;
mod session_timer;

use crate::dialog::Dialog;
use crate::flow::Flow;
use crate::message::{Fault, Message, Method, Name, respond};
use crate::timers::Timers;
use crate::token::Tokens;
use crate::transaction::{Answered, ClientTransaction, Fate, ServerKey, ServerTransaction, Transmit};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

pub use capacity::Capacity;
use flows::OnFlows;
pub use legs::Invite;
use legs::Leg;
use reliable::Reliability;
pub use send::Lone;
pub use session_timer::{MIN_SE, is_too_brief};

/// One INVITE and its dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId(pub u64);

/// One transaction, ours or theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxId(pub u64);

/// Header lines to add to a message.
pub type Headers = Vec<(&'static str, String)>;

/// A body and its content type.
pub type Body<'a> = Option<(&'a str, &'a [u8])>;

/// Bytes by which an answer to a stranger may be longer than his request (D-15).
const MAX_GROWTH: usize = 300;

/// What the user of an endpoint hears.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request outside any dialog. Answer it with [`Endpoint::respond`], or make an INVITE a leg with
    /// [`Endpoint::take`], in the same turn.
    Request { tx: TxId, request: Message, flow: Flow },
    /// A request inside a leg's dialog (BYE, INFO, re-INVITE, UPDATE, the PRACK of a response of ours, …), to be answered with
    /// [`Endpoint::respond`], a BYE with [`Endpoint::accept_bye`]. Unless `same_flow` it did not come the leg's own way: it is
    /// to be challenged, and if it is the peer's, [`Endpoint::adopt`] has it come again (D-13).
    LegRequest { leg: LegId, tx: TxId, request: Message, flow: Flow, same_flow: bool },
    /// 101–199 for our INVITE.
    Progress { leg: LegId, response: Message },
    /// 2xx for our INVITE; the ACK is sent.
    Answered { leg: LegId, response: Message },
    /// Our INVITE ended without a 2xx; without a response it is 408 when nobody answered, 503 when the connection was lost.
    /// The leg is gone.
    Refused { leg: LegId, code: u16, response: Option<Message> },
    /// Their INVITE was cancelled; 487 is sent. The leg is gone.
    Cancelled { leg: LegId },
    /// The connection of their open INVITE is gone, and the leg with it.
    Lost { leg: LegId },
    /// The ACK of our 2xx.
    Confirmed { leg: LegId, ack: Message },
    /// Our 2xx was never acknowledged (BYE is sent), or our reliable provisional response (504 is). The leg is gone.
    NotAcknowledged { leg: LegId },
    /// The session timer ran out; BYE is sent. The leg is gone (RFC 4028 §10).
    Expired { leg: LegId },
    /// The final answer to a request sent with [`Endpoint::request`], to a re-INVITE (also one that the session timer sent)
    /// or, without a leg, to [`Endpoint::send`]; `None`: none came (timer F,
    /// or the connection was lost).
    Response { leg: Option<LegId>, tx: TxId, method: Method, response: Option<Message> },
}

/// Consequences of one call, in order. The caller drains it.
#[derive(Debug, Default)]
pub struct Out {
    pub transmits: Vec<Transmit>,
    pub events: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    Server(TxId),
    Client(TxId),
    Leg(LegId),
    Reliable(LegId),
    Session(LegId),
}

/// What our request was for.
#[derive(Debug)]
enum Purpose {
    Invite {
        leg: LegId,
        /// What the INVITE was sent with, to ACK (and BYE) whatever 2xx comes, also after the leg is gone.
        dialog: Box<Dialog>,
        cseq: u32,
        branch: String,
        /// The ACK sent per To-tag.
        acks: Vec<(String, Bytes)>,
    },
    /// INFO, REGISTER and the like: the answer goes to the user.
    Asked { leg: Option<LegId>, method: Method },
    /// An UPDATE of the session timer.
    Refresh { leg: LegId },
    /// CANCEL, BYE and PRACK: nobody waits for the answer.
    Farewell,
}

#[derive(Debug)]
struct Client {
    transaction: ClientTransaction,
    purpose: Purpose,
    key: ClientKey,
}

/// Branch and whether it is the CANCEL of that branch (§17.1.3).
type ClientKey = (String, bool);

/// How the server names itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `Server`/`User-Agent` text.
    pub product: String,
    /// Host for Via and Contact; `None`: the local address of the flow.
    pub public_host: Option<String>,
    /// Methods we serve.
    pub allow: &'static str,
    /// Extensions we know, as `Supported` says them: of `100rel` and `timer`, those that are to be used.
    pub supported: &'static str,
    /// Seconds of the session timer we ask for; `None`: only what the peer asks for.
    pub session_expires: Option<u32>,
}

/// See the module text.
pub struct Endpoint {
    identity: Identity,
    tokens: Tokens,
    next_id: u64,
    server_ids: HashMap<ServerKey, TxId>,
    /// Requests outside dialogs by what a merged copy shares with them (§8.2.2.2).
    merge_ids: HashMap<String, TxId>,
    servers: HashMap<TxId, (ServerKey, ServerTransaction, Option<LegId>)>,
    answered: Answered,
    client_ids: HashMap<ClientKey, TxId>,
    clients: HashMap<TxId, Client>,
    /// In boxes: a table is half empty after it has grown.
    legs: HashMap<LegId, Box<Leg>>,
    /// By our tag, which is unpredictable and unique.
    leg_ids: HashMap<String, LegId>,
    on_flows: OnFlows,
    timers: Timers<Timer>,
    counters: BTreeMap<&'static str, u64>,
    /// How much it may hold.
    pub capacity: Capacity,
}

impl Endpoint {
    pub fn new(identity: Identity, tokens: Tokens) -> Endpoint {
        Endpoint {
            identity,
            tokens,
            next_id: 1,
            server_ids: HashMap::new(),
            merge_ids: HashMap::new(),
            servers: HashMap::new(),
            answered: Answered::default(),
            client_ids: HashMap::new(),
            clients: HashMap::new(),
            legs: HashMap::new(),
            leg_ids: HashMap::new(),
            on_flows: OnFlows::default(),
            timers: Timers::default(),
            counters: BTreeMap::new(),
            capacity: Capacity::default(),
        }
    }

    /// Ids and media identities of the user's own are minted by the same generator.
    pub fn tokens(&mut self) -> &mut Tokens {
        &mut self.tokens
    }

    /// Named counts of everything dropped, refused or given up.
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.counters
    }

    /// Live transactions (server, client) and legs: what a test checks to be zero at the end.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.servers.len() + self.answered.len(), self.clients.len(), self.legs.len())
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        [self.timers.next(), self.answered.next_deadline()].into_iter().flatten().min()
    }

    /// Runs every timer that is due.
    pub fn timeout(&mut self, now: Instant, out: &mut Out) {
        self.answered.timeout(now);
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Server(id) => self.server_timeout(now, id, out),
                Timer::Client(id) => self.client_timeout(now, id, out),
                Timer::Leg(id) => self.leg_timeout(now, id, out),
                Timer::Reliable(id) => self.reliable_timeout(now, id, out),
                Timer::Session(id) => self.session_timeout(now, id, out),
            }
        }
    }

    /// Where an open request came from.
    pub fn source(&self, tx: TxId) -> Option<Flow> {
        self.servers.get(&tx).map(|(_, server, _)| server.flow)
    }

    /// Answers a request. A 2xx to a (re-)INVITE of a leg is repeated until its ACK, a provisional one until its PRACK if the
    /// peer knows that; a 2xx may have to wait for the PRACK. An answered or unknown transaction is left alone.
    pub fn respond(&mut self, now: Instant, tx: TxId, code: u16, headers: &Headers, body: Body<'_>, out: &mut Out) {
        let Some((_, server, leg)) = self.servers.get(&tx) else { return };
        if !server.is_open() {
            return;
        }
        let (leg, invite, refreshes) = (*leg, server.is_invite(), server.refreshes_target());
        let prack = server.request.method() == Some(&Method::Prack);
        let rseq = match self.reliability(tx, code, headers, body) {
            Reliability::Plain => None,
            Reliability::Reliable(rseq) => Some(rseq),
            Reliability::Waits => return,
        };
        let mut extra = match (rseq, leg) {
            (Some(rseq), _) => vec![("Require", "100rel".to_owned()), ("RSeq", rseq.to_string())],
            // An UPDATE before the INVITE's answer settles nothing that lasts.
            (None, Some(leg)) if refreshes && (200..300).contains(&code) && (invite || self.is_established(leg)) => {
                self.agree_session(now, leg, tx)
            }
            _ => Headers::new(),
        };
        extra.extend(headers.iter().cloned());
        let bytes = self.response(tx, code, &extra, body);
        if let Some(leg) = leg {
            self.responded(now, leg, tx, (code, invite, rseq), &bytes, body);
        }
        self.send_response(now, tx, code, bytes, out);
        if let Some(leg) = leg {
            self.arm_leg(leg);
            if prack {
                self.release_2xx(now, leg, out);
            }
        }
    }

    /// The bytes of a response. To requests that name a dialog `respond` adds no tag; a lone request gets a fresh one.
    fn response(&mut self, tx: TxId, code: u16, headers: &Headers, body: Body<'_>) -> Bytes {
        let Some((_, server, leg)) = self.servers.get(&tx) else { return Bytes::new() };
        let dialog = leg.and_then(|leg| self.legs.get(&leg)).map(|leg| &leg.dialog);
        let tag = match dialog {
            Some(dialog) => dialog.local.tag.clone(),
            None => self.tokens.token(),
        };
        let tag = (code > 100).then_some(tag.as_str());
        let mut writer = respond(&server.request, server.flow.remote, code, tag);
        if let Some(dialog) = dialog.filter(|_| (101..300).contains(&code) && server.refreshes_target()) {
            writer = writer.header("Contact", dialog.contact()).header("Allow", self.identity.allow);
            writer = writer.headers(&self.supported()).header("Server", &self.identity.product);
        }
        writer.headers(headers).maybe_body(body)
    }

    /// What a leg remembers of a response: its repeats, its description.
    fn responded(&mut self, now: Instant, id: LegId, tx: TxId, sent: (u16, bool, Option<u32>), bytes: &Bytes, body: Body<'_>) {
        let (code, invite, rseq) = sent;
        if let (Some((_, body)), Some(leg)) = (body, self.legs.get_mut(&id))
            && code < 300
        {
            leg.description = Some(Bytes::copy_from_slice(body));
        }
        if !invite {
            return;
        }
        if let Some(rseq) = rseq {
            self.await_prack(now, id, rseq, bytes.clone(), body.is_some());
        }
        if code >= 200 {
            self.stop_provisional(id);
        }
        if let Some(leg) = self.legs.get_mut(&id).filter(|_| (200..300).contains(&code)) {
            leg.repeat_2xx(now, tx, bytes.clone());
        }
    }

    /// The `Supported` line, if there is anything to say.
    fn supported(&self) -> Headers {
        let supported = self.identity.supported;
        Some(supported).filter(|s| !s.is_empty()).map(|s| ("Supported", s.to_owned())).into_iter().collect()
    }

    /// Answers once and forgets the transaction: a challenge or another answer to a stranger costs no memory and is never
    /// repeated (D-15). A repeat of the request is a new request that gets the same To-tag (§8.2.7).
    pub fn respond_stateless(&mut self, tx: TxId, code: u16, headers: &Headers, out: &mut Out) {
        let Some((_, ServerTransaction { request, flow, .. }, _)) = self.drop_server(tx) else { return };
        self.answer_once(&request, flow, code, headers, out);
    }

    /// An answer without a transaction. One that would be much larger than its request is not given over UDP: the source may be
    /// forged, and an amplifier is worth more to whoever forges it than an answer to anybody else (D-15).
    fn answer_once(&mut self, request: &Message, flow: Flow, code: u16, headers: &Headers, out: &mut Out) {
        let bytes = respond(request, flow.remote, code, Some(&self.stateless_tag(request))).headers(headers).finish();
        if !flow.transport.is_reliable() && bytes.len() > request.bytes().len() + MAX_GROWTH {
            return self.count("answer_too_large");
        }
        out.transmits.push(Transmit { flow, bytes });
    }

    /// What makes a request itself: a repeat, on whatever flow, gets the same tag without anything being remembered.
    fn stateless_tag(&self, request: &Message) -> String {
        self.tokens.derived(&[
            request.via().and_then(|via| via.branch()).unwrap_or_default(),
            request.call_id().unwrap_or_default(),
            request.from().and_then(|from| from.tag()).unwrap_or_default(),
            request.header(Name::CSeq).unwrap_or_default(),
        ])
    }

    fn send_response(&mut self, now: Instant, tx: TxId, code: u16, bytes: Bytes, out: &mut Out) {
        let Some((_, server, _)) = self.servers.get_mut(&tx) else { return };
        if code < 200 || server.is_invite() {
            server.respond(now, code, bytes, &mut out.transmits);
            return self.timers.set(Timer::Server(tx), server.deadline());
        }
        if let Some((key, server, _)) = self.drop_server(tx) {
            // Timer J: over a connection nothing is repeated.
            if !server.flow.transport.is_reliable() {
                self.answered.keep(now, server.flow, &key, &bytes);
            }
            out.transmits.push(Transmit { flow: server.flow, bytes });
        }
    }

    fn server_timeout(&mut self, now: Instant, tx: TxId, out: &mut Out) {
        let Some((_, server, _)) = self.servers.get_mut(&tx) else { return };
        match server.timeout(now, &mut out.transmits) {
            Fate::Live => self.timers.set(Timer::Server(tx), server.deadline()),
            Fate::Done => drop(self.drop_server(tx)),
            Fate::TimedOut => {
                self.count("final_response_not_acknowledged");
                self.drop_server(tx);
            }
        }
    }

    fn client_timeout(&mut self, now: Instant, tx: TxId, out: &mut Out) {
        let Some(client) = self.clients.get_mut(&tx) else { return };
        match client.transaction.timeout(now, &mut out.transmits) {
            Fate::Live => self.timers.set(Timer::Client(tx), client.transaction.deadline()),
            Fate::Done => self.drop_client(tx),
            Fate::TimedOut => {
                self.count("request_timed_out");
                self.client_failed(now, tx, 408, out);
            }
        }
    }

    /// A request of ours has no answer and will have none.
    fn client_failed(&mut self, now: Instant, tx: TxId, code: u16, out: &mut Out) {
        let Some(client) = self.clients.get(&tx) else { return };
        match &client.purpose {
            Purpose::Invite { leg, .. } => {
                let leg = *leg;
                match self.is_reinvite(leg, tx) {
                    true => self.reinvite_ended(now, leg, tx, None, out),
                    false => self.invite_ended(leg, code, None, out),
                }
            }
            Purpose::Asked { leg, method } => {
                out.events.push(Event::Response { leg: *leg, tx, method: method.clone(), response: None });
            }
            Purpose::Refresh { leg } => {
                let leg = *leg;
                self.refreshed(now, leg, None, out);
            }
            Purpose::Farewell => {}
        }
        self.drop_client(tx);
    }

    fn drop_server(&mut self, tx: TxId) -> Option<(ServerKey, ServerTransaction, Option<LegId>)> {
        let server = self.servers.remove(&tx)?;
        self.server_ids.remove(&server.0);
        if let Some(key) = merge_key(&server.1.request).filter(|key| self.merge_ids.get(key) == Some(&tx)) {
            self.merge_ids.remove(&key);
        }
        self.timers.set(Timer::Server(tx), None);
        Some(server)
    }

    fn drop_client(&mut self, tx: TxId) {
        if let Some(client) = self.clients.remove(&tx) {
            self.client_ids.remove(&client.key);
            self.on_flows.remove_client(&client.transaction.flow, tx);
            self.timers.set(Timer::Client(tx), None);
        }
    }

    /// Sends a request and keeps its transaction.
    fn start_client(&mut self, now: Instant, flow: Flow, key: ClientKey, bytes: Bytes, purpose: Purpose, out: &mut Out) -> TxId {
        let tx = TxId(self.id());
        let invite = matches!(purpose, Purpose::Invite { .. });
        let transaction = ClientTransaction::new(now, flow, invite, bytes, &mut out.transmits);
        self.timers.set(Timer::Client(tx), transaction.deadline());
        self.client_ids.insert(key.clone(), tx);
        self.on_flows.add_client(flow, tx);
        self.clients.insert(tx, Client { transaction, purpose, key });
        tx
    }

    fn sent_by(&self, flow: &Flow) -> String {
        match &self.identity.public_host {
            Some(host) if host.contains(':') => format!("[{host}]:{}", flow.local.port()),
            Some(host) => format!("{host}:{}", flow.local.port()),
            None => flow.local.to_string(),
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }
}

/// What copies of one request share that came by different ways (§8.2.2.2); `None` inside a dialog, and for what may come twice
/// without harm: a REGISTER's copy is refused by its CSeq (§10.3). The URIs are in it because cheap devices of one make may draw
/// the same "random" ids after a power cut.
fn merge_key(request: &Message) -> Option<String> {
    if !matches!(request.method()?, Method::Invite | Method::Message) || request.to()?.tag().is_some() {
        return None;
    }
    let (from, cseq) = (request.from()?, request.cseq()?);
    let (id, to) = (request.call_id()?, request.to()?.uri);
    Some(format!("{id} {} {} {to} {} {}", from.tag()?, from.uri, cseq.number, cseq.method))
}
