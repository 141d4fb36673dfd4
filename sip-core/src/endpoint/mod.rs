//! [`Endpoint`]: transactions + INVITE dialogs as one pure machine, the one type a user of this crate touches.
//!
//! Bytes and time go in; datagrams and [`Event`]s come out in an [`Out`] that the caller owns. It keeps what RFC 3261 asks
//! of every user agent so that nobody above has to: repeats, the 2xx until its ACK (§13.3.1.4), the ACK of a 2xx, a CANCEL
//! that waits for the first provisional response (§9.1), a 2xx that crosses a CANCEL (ACK + BYE), a second 2xx of a fork
//! (ACK + BYE), a BYE that waits for the ACK (§15).
//!
//! A **leg** is one INVITE and the dialog it makes. After [`Endpoint::end`] the user has forgotten the
//! leg: no event of it follows, the endpoint ends it properly.

mod legs;
mod receive;
mod send;

use crate::dialog::Dialog;
use crate::flow::Flow;
use crate::message::{Fault, Message, Method, Name, respond};
use crate::timers::Timers;
use crate::token::Tokens;
use crate::transaction::{Answered, ClientTransaction, Fate, ServerKey, ServerTransaction, Transmit};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

pub use legs::Invite;
use legs::Leg;
pub use send::Lone;

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

/// What the user of an endpoint hears.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request outside any dialog. Answer it with [`Endpoint::respond`], or make an INVITE a leg with
    /// [`Endpoint::take`], in the same turn.
    Request { tx: TxId, request: Message, flow: Flow },
    /// A request inside a leg's dialog (BYE, INFO, re-INVITE, UPDATE, …), to be answered with [`Endpoint::respond`], a BYE
    /// with [`Endpoint::accept_bye`]. `same_flow` says whether it came the leg's own way (D-13).
    LegRequest { leg: LegId, tx: TxId, request: Message, flow: Flow, same_flow: bool },
    /// 101–199 for our INVITE.
    Progress { leg: LegId, response: Message },
    /// 2xx for our INVITE; the ACK is sent.
    Answered { leg: LegId, response: Message },
    /// Our INVITE ended without a 2xx; 408 without a response when nobody answered. The leg is gone.
    Refused { leg: LegId, code: u16, response: Option<Message> },
    /// Their INVITE was cancelled; 487 is sent. The leg is gone.
    Cancelled { leg: LegId },
    /// The ACK of our 2xx.
    Confirmed { leg: LegId, ack: Message },
    /// Our 2xx was never acknowledged; BYE is sent. The leg is gone.
    NotAcknowledged { leg: LegId },
    /// The final answer to a request sent with [`Endpoint::request`] or, without a leg, [`Endpoint::send`]; `None`: none
    /// came (timer F).
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
    /// CANCEL and BYE: nobody waits for the answer.
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
}

/// See the module text.
pub struct Endpoint {
    identity: Identity,
    tokens: Tokens,
    next_id: u64,
    server_ids: HashMap<ServerKey, TxId>,
    servers: HashMap<TxId, (ServerKey, ServerTransaction, Option<LegId>)>,
    answered: Answered,
    client_ids: HashMap<ClientKey, TxId>,
    clients: HashMap<TxId, Client>,
    legs: HashMap<LegId, Leg>,
    /// By our tag, which is unpredictable and unique.
    leg_ids: HashMap<String, LegId>,
    timers: Timers<Timer>,
    counters: BTreeMap<&'static str, u64>,
}

impl Endpoint {
    pub fn new(identity: Identity, tokens: Tokens) -> Endpoint {
        Endpoint {
            identity,
            tokens,
            next_id: 1,
            server_ids: HashMap::new(),
            servers: HashMap::new(),
            answered: Answered::default(),
            client_ids: HashMap::new(),
            clients: HashMap::new(),
            legs: HashMap::new(),
            leg_ids: HashMap::new(),
            timers: Timers::default(),
            counters: BTreeMap::new(),
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
            }
        }
    }

    /// Answers a request. A 2xx to a (re-)INVITE of a leg is repeated until its ACK. An answered or unknown transaction is
    /// left alone.
    pub fn respond(&mut self, now: Instant, tx: TxId, code: u16, headers: &Headers, body: Body<'_>, out: &mut Out) {
        let Some((_, server, leg)) = self.servers.get(&tx) else { return };
        if !server.is_open() {
            return;
        }
        let leg = *leg;
        let dialog = leg.and_then(|leg| self.legs.get(&leg)).map(|leg| &leg.dialog);
        // To requests that name a dialog `respond` adds no tag; a lone request gets a fresh one.
        let tag = match dialog {
            Some(dialog) => dialog.local.tag.clone(),
            None => self.tokens.token(),
        };
        let Some((_, server, _)) = self.servers.get(&tx) else { return };
        let tag = (code > 100).then_some(tag.as_str());
        let mut writer = respond(&server.request, server.flow.remote, code, tag);
        if let Some(dialog) = dialog.filter(|_| (101..300).contains(&code) && server.refreshes_target()) {
            writer = writer.header("Contact", dialog.contact()).header("Allow", self.identity.allow);
            writer = writer.header("Server", &self.identity.product);
        }
        let bytes = writer.headers(headers).maybe_body(body);
        if server.is_invite()
            && (200..300).contains(&code)
            && let Some(leg) = leg.and_then(|leg| self.legs.get_mut(&leg))
        {
            leg.repeat_2xx(now, tx, bytes.clone());
        }
        self.send_response(now, tx, code, bytes, out);
        if let Some(leg) = leg {
            self.arm_leg(leg);
        }
    }

    /// Answers once and forgets the transaction: a challenge or another answer to a stranger costs no memory and is never
    /// repeated (D-15). A repeat of the request is a new request that gets the same To-tag (§8.2.7).
    pub fn respond_stateless(&mut self, tx: TxId, code: u16, headers: &Headers, out: &mut Out) {
        let Some((_, ServerTransaction { request, flow, .. }, _)) = self.drop_server(tx) else { return };
        let bytes = respond(&request, flow.remote, code, Some(&self.stateless_tag(&request))).headers(headers).finish();
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
            self.answered.keep(now, server.flow, &key, &bytes);
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
                let Some(client) = self.clients.get(&tx) else { return };
                match &client.purpose {
                    Purpose::Invite { leg, .. } => {
                        let leg = *leg;
                        self.invite_ended(leg, 408, None, out);
                    }
                    Purpose::Asked { leg, method } => {
                        out.events.push(Event::Response { leg: *leg, tx, method: method.clone(), response: None });
                    }
                    Purpose::Farewell => {}
                }
                self.drop_client(tx);
            }
        }
    }

    fn drop_server(&mut self, tx: TxId) -> Option<(ServerKey, ServerTransaction, Option<LegId>)> {
        let server = self.servers.remove(&tx)?;
        self.server_ids.remove(&server.0);
        self.timers.set(Timer::Server(tx), None);
        Some(server)
    }

    fn drop_client(&mut self, tx: TxId) {
        if let Some(client) = self.clients.remove(&tx) {
            self.client_ids.remove(&client.key);
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
