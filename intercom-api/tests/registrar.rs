//! The registrar as phones see it, in simulated time: the pure Switchboard, and messages written by hand.

use bytes::Bytes;
use intercom_api::control::Order;
use intercom_api::directory::Directory;
use intercom_api::live::{Kept, Registration, Restorable};
use intercom_api::model::{Account, AccountType, DirectoryChange, Group, Number, Secret};
use intercom_api::switchboard::{Parts, Switchboard};
use intercom_api::turn::{Effect, Publication, Settings};
use media::command::{PairId, WorkerId};
use media::ports::PortStock;
use sip_core::digest::Challenge;
use sip_core::flow::{Flow, Transport};
use sip_core::location::{Binding, Unbound};
use sip_core::message::{Message, Method, Name};
use sip_core::transaction::Transmit;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const EPOCH_MS: i64 = 1_790_000_000_000;

fn account(number: &str, password: &str, kind: AccountType) -> DirectoryChange {
    let (number, password) = (Number::new(number), Secret::new(password));
    DirectoryChange::PutAccount(Account { number, password, kind, name: None, created_ms: 0, app: Default::default() })
}

/// A server with the phones 101 and 102 (and as many more as a test wants), whose password is `pw`, and the door d1.
struct Server {
    board: Switchboard,
    now: Instant,
    cseq: u32,
    /// What was sent, until somebody looks.
    sent: Vec<Transmit>,
    registered: BTreeMap<String, Registration>,
    gone: Vec<(String, Unbound)>,
    kept: BTreeMap<String, Option<Kept>>,
}

impl Server {
    fn new(settings: Settings, phones: u32) -> Server {
        let now = epoch();
        let mut directory = Directory::default();
        let members: Vec<Number> = (101..101 + phones).map(|n| Number::new(&n.to_string())).collect();
        directory.apply(members.iter().map(|number| account(number.as_str(), "pw", AccountType::App)).collect());
        let group = Group {
            id: Number::new("room"),
            members: members.into_iter().take(2).collect(),
            name: None,
            created_ms: 0,
            app: Default::default(),
        };
        directory.apply(vec![account("d1", "pw", AccountType::Door), DirectoryChange::PutGroup(group)]);
        let board = Switchboard::new(Parts {
            settings,
            realm: "doorline".into(),
            public_host: None,
            directory,
            ports: PortStock::new((0..20).map(|n| (PairId(n), 10_000 + 2 * n as u16, WorkerId(0)))),
            seed: [7; 32],
            nonce_key: [9; 32],
            epoch: (now, EPOCH_MS),
        });
        let (registered, kept) = (BTreeMap::new(), BTreeMap::new());
        Server { board, now, cseq: 0, sent: Vec::new(), registered, gone: Vec::new(), kept }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(transmit) => self.sent.push(transmit),
                Effect::Publish(Publication::Registered { registration, .. }) => {
                    self.registered.insert(registration.binding.account.to_string(), registration);
                }
                Effect::Publish(Publication::Unregistered { account, why }) => {
                    self.registered.remove(&*account);
                    self.gone.push((account.to_string(), why));
                }
                Effect::Publish(Publication::Keep { account, kept }) => {
                    self.kept.insert(account.to_string(), kept);
                }
                Effect::Publish(_) | Effect::Media { .. } => {}
            }
        }
    }

    fn receive(&mut self, flow: Flow, text: String) {
        let mut effects = Vec::new();
        self.board.receive(self.now, flow, Bytes::from(text), &mut effects);
        self.perform(effects);
    }

    /// The one answer to a request.
    fn ask(&mut self, flow: Flow, text: String) -> Message {
        self.sent.clear();
        self.receive(flow, text);
        assert_eq!(self.sent.first().map(|sent| sent.flow), Some(flow), "an answer, the way the question came");
        Message::parse(self.sent.remove(0).bytes).unwrap()
    }

    /// A request signed after its challenge, whose last one is taken, as old phones do.
    fn signed(&mut self, flow: Flow, method: &str, user: &str, password: &str, lines: &str) -> Message {
        self.cseq += 1;
        let (uri, code) = if method == "REGISTER" { ("sip:10.0.0.1", 401) } else { ("sip:room@10.0.0.1", 407) };
        let head = |cseq: u32| {
            format!(
                "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK{cseq};rport\r\nMax-Forwards: 70\r\n\
                 From: <sip:{user}@10.0.0.1>;tag=f\r\nTo: <sip:{user}@10.0.0.1>\r\nCSeq: {cseq} {method}\r\n{lines}",
                flow.remote
            )
        };
        let first = self.ask(flow, head(self.cseq) + "\r\n");
        assert_eq!(first.code(), Some(code));
        let (ask, answer) = match code {
            401 => (Name::WwwAuthenticate, "Authorization"),
            _ => (Name::ProxyAuthenticate, "Proxy-Authorization"),
        };
        let challenge = Challenge::parse(first.headers(ask).last().unwrap()).unwrap();
        self.cseq += 1;
        let credentials = challenge.answer(method, uri, user, password, "c", 1);
        self.ask(flow, format!("{}{answer}: {credentials}\r\n\r\n", head(self.cseq)))
    }

    fn register_with(&mut self, flow: Flow, user: &str, password: &str, call: &str, lines: &str) -> Message {
        self.signed(flow, "REGISTER", user, password, &format!("Call-ID: {call}\r\n{lines}"))
    }

    /// A plain REGISTER from a port of 10.0.0.2; gives the seconds granted.
    fn register(&mut self, user: &str, port: u16, seconds: u32) -> Option<u32> {
        let lines = format!("Contact: <sip:{user}@10.0.0.2:{port}>\r\nExpires: {seconds}\r\n");
        let answer = self.register_with(flow(port), user, "pw", &format!("{user}-{port}"), &lines);
        assert_eq!(answer.code(), Some(200));
        answer.header(Name::Expires).and_then(|seconds| seconds.parse().ok())
    }

    /// Time goes by; what is due happens in its time.
    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.board.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut effects = Vec::new();
            self.board.timeout(self.now, &mut effects);
            self.perform(effects);
        }
        self.now = end;
    }

    fn count(&self, name: &str) -> u64 {
        self.board.counters().get(name).copied().unwrap_or(0)
    }

    /// Requests that were sent since somebody looked, without their repeats.
    fn requests(&mut self, method: &Method) -> Vec<Message> {
        let sent = std::mem::take(&mut self.sent);
        let sent = sent.into_iter().filter_map(|sent| Message::parse(sent.bytes).ok());
        let mut requests: Vec<Message> = sent.filter(|message| message.method() == Some(method)).collect();
        requests.dedup_by(|a, b| a.bytes() == b.bytes());
        requests
    }

    /// The door rings the room.
    fn ring(&mut self) {
        let offer = "v=0\r\no=- 1 1 IN IP4 10.0.0.9\r\ns=-\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let lines = "Call-ID: ring\r\nContact: <sip:d1@10.0.0.9>\r\nContent-Type: application/sdp\r\n";
        self.cseq += 1;
        let door = flow(9);
        let request = |cseq: u32, more: &str| {
            format!(
                "INVITE sip:room@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:9;branch=z9hG4bK{cseq};rport\r\nMax-Forwards: 70\r\n\
                 From: <sip:d1@10.0.0.1>;tag=f\r\nTo: <sip:room@10.0.0.1>\r\nCSeq: {cseq} INVITE\r\n{lines}{more}\
                 Content-Length: {}\r\n\r\n{offer}",
                offer.len()
            )
        };
        let first = self.ask(door, request(self.cseq, ""));
        let challenge = Challenge::parse(first.header(Name::ProxyAuthenticate).unwrap()).unwrap();
        let credentials = challenge.answer("INVITE", "sip:room@10.0.0.1", "d1", "pw", "c", 1);
        self.cseq += 1;
        self.sent.clear();
        self.receive(door, request(self.cseq, &format!("Proxy-Authorization: {credentials}\r\n")));
    }
}

/// A phone's answer to a request of the server.
fn answer(request: &Message, status: &str) -> String {
    let line = |name, title: &str| format!("{title}: {}", request.header(name).unwrap_or_default());
    let (via, from, call_id) = (line(Name::Via, "Via"), line(Name::From, "From"), line(Name::CallId, "Call-ID"));
    let (to, cseq) = (line(Name::To, "To"), line(Name::CSeq, "CSeq"));
    format!("SIP/2.0 {status}\r\n{via}\r\n{from}\r\n{to};tag=phone\r\n{call_id}\r\n{cseq}\r\n\r\n")
}

fn flow(port: u16) -> Flow {
    Flow { transport: Transport::Udp, local: ([10, 0, 0, 1], 6050).into(), remote: SocketAddr::from(([10, 0, 0, 2], port)) }
}

/// Some instant to begin at; only differences matter.
#[allow(clippy::disallowed_methods)]
fn epoch() -> Instant {
    Instant::now() + Duration::from_secs(100_000)
}

#[test]
fn the_path_is_kept_told_and_taken() {
    let mut server = Server::new(Settings::default(), 2);
    let contact = "Contact: <sip:101@192.168.1.7>\r\nPath: <sip:near@10.0.0.3;lr>\r\nPath: <sip:far@10.0.0.4;lr>\r\n";
    let quiet = server.register_with(flow(5060), "101", "pw", "a", contact);
    assert_eq!((quiet.code(), quiet.headers(Name::Path).count()), (Some(200), 0), "it did not say that it wants to know");
    let told = server.register_with(flow(5060), "101", "pw", "a", &format!("{contact}Supported: path\r\n"));
    assert_eq!(told.headers(Name::Path).collect::<Vec<_>>(), ["<sip:near@10.0.0.3;lr>", "<sip:far@10.0.0.4;lr>"]);

    server.ring();
    let invites = server.requests(&Method::Invite);
    assert_eq!(invites.len(), 1);
    assert_eq!(invites[0].request_uri(), Some("sip:101@192.168.1.7"));
    assert_eq!(invites[0].headers(Name::Route).collect::<Vec<_>>(), ["<sip:near@10.0.0.3;lr>", "<sip:far@10.0.0.4;lr>"]);

    let nonsense = server.register_with(flow(5060), "101", "pw", "a", "Contact: <sip:101@x>\r\nPath: nowhere\r\n");
    assert_eq!(nonsense.code(), Some(400));
}

#[test]
fn outbound_is_agreed_with_who_can_keep_the_flow() {
    let mut server = Server::new(Settings::default(), 2);
    let contact = "Contact: <sip:101@10.0.0.2>;+sip.instance=\"<urn:uuid:1>\";reg-id=1\r\n";
    let supported = "Supported: path, outbound\r\n";
    let direct = server.register_with(flow(5060), "101", "pw", "a", &format!("{contact}{supported}"));
    assert!(direct.has_option(Name::Require, "outbound"));
    assert_eq!(direct.other_header("Flow-Timer"), Some("30"));
    let echoed = "<sip:101@10.0.0.2>;expires=600;+sip.instance=\"<urn:uuid:1>\";reg-id=1";
    assert_eq!(direct.header(Name::Contact), Some(echoed));

    let behind = |path: &str| format!("Via: SIP/2.0/UDP 192.168.1.7;branch=z9hG4bKx\r\nPath: {path}\r\n{contact}{supported}");
    let edge = server.register_with(flow(5060), "101", "pw", "b", &behind("<sip:p1@10.0.0.3;lr;ob>"));
    assert!(edge.has_option(Name::Require, "outbound"));
    assert_eq!(edge.other_header("Flow-Timer"), None, "the edge proxy's to say");
    let plain = server.register_with(flow(5060), "101", "pw", "c", &behind("<sip:p1@10.0.0.3;lr>"));
    assert_eq!(plain.code(), Some(200), "registered, but not by outbound");
    assert!(!plain.has_option(Name::Require, "outbound"));
    let silent = server.register_with(flow(5060), "101", "pw", "d", contact);
    assert!(!silent.has_option(Name::Require, "outbound"));
}

#[test]
fn what_a_register_requires_and_we_do_not_know_is_named() {
    let mut server = Server::new(Settings::default(), 2);
    let lines = "Contact: <sip:101@10.0.0.2>\r\nRequire: path, gruu\r\n";
    let refused = server.register_with(flow(5060), "101", "pw", "a", lines);
    assert_eq!((refused.code(), refused.other_header("Unsupported")), (Some(420), Some("gruu")));
    assert!(server.registered.is_empty());
    let long = format!("Contact: <sip:{}@10.0.0.2>\r\n", "1".repeat(600));
    assert_eq!(server.register_with(flow(5060), "101", "pw", "a", &long).code(), Some(400));
}

#[test]
fn sha256_is_offered_first_when_switched_on_and_either_answer_is_good() {
    let mut server = Server::new(Settings { sha256: true, ..Settings::default() }, 2);
    assert_eq!(server.register("101", 5060, 600), Some(600), "MD5, the last one");
    let request = "REGISTER sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bKs\r\nFrom: <sip:102@10.0.0.1>;tag=f\r\n\
                   To: <sip:102@10.0.0.1>\r\nCall-ID: s\r\nContact: <sip:102@10.0.0.2>\r\nMax-Forwards: 70\r\n";
    let challenged = server.ask(flow(5062), format!("{request}CSeq: 1 REGISTER\r\n\r\n"));
    let algorithms: Vec<&str> = challenged
        .headers(Name::WwwAuthenticate)
        .filter_map(|value| value.split(", ").find_map(|param| param.strip_prefix("algorithm=")))
        .collect();
    assert_eq!(algorithms, ["SHA-256", "MD5"]);
    let challenge = Challenge::parse(challenged.header(Name::WwwAuthenticate).unwrap()).unwrap();
    let credentials = challenge.answer("REGISTER", "sip:10.0.0.1", "102", "pw", "c", 1);
    let request = request.replace("z9hG4bKs", "z9hG4bKt");
    let answer = server.ask(flow(5062), format!("{request}CSeq: 2 REGISTER\r\nAuthorization: {credentials}\r\n\r\n"));
    assert_eq!(answer.code(), Some(200));
}

/// D-12: nobody learns from an answer which accounts exist.
#[test]
fn an_unknown_account_gets_the_same_bytes_as_a_wrong_password() {
    let mut server = Server::new(Settings::default(), 2);
    let mut texts = Vec::new();
    for user in ["102", "999"] {
        let lines = format!("Contact: <sip:{user}@10.0.0.2>\r\n");
        let answer = server.register_with(flow(5060), user, "wrong", "same", &lines);
        assert_eq!(answer.code(), Some(403));
        let text = String::from_utf8(answer.bytes().to_vec()).unwrap();
        let minted = answer.to().and_then(|to| to.tag()).unwrap_or_default().to_owned();
        let (branch, cseq) = (format!("z9hG4bK{}", server.cseq), format!("CSeq: {}", server.cseq));
        texts.push(text.replace(&minted, "TAG").replace(user, "USER").replace(&branch, "BRANCH").replace(&cseq, "CSEQ"));
    }
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn a_crowd_is_spread_and_never_granted_more_than_it_asked() {
    let mut server = Server::new(Settings::default(), 1200);
    let mut granted = Vec::new();
    for number in 101..1301_u16 {
        granted.push(server.register(&number.to_string(), number, 600).unwrap());
    }
    assert!(granted[..500].iter().all(|seconds| *seconds == 600), "no crowd yet");
    let crowd = &granted[510..];
    assert!(crowd.iter().all(|seconds| (540..=600).contains(seconds)), "{crowd:?}");
    // Evenly: every sixth of the range gets its share.
    for sixth in 0..6 {
        let share = crowd.iter().filter(|seconds| (540 + sixth * 10..550 + sixth * 10).contains(*seconds)).count();
        assert!(share > crowd.len() / 10, "{sixth}: {share}");
    }
    server.wait(1);
    assert_eq!(server.register("101", 101, 30), Some(30), "not below the minimum: it would ask for that again");
    server.wait(2);
    assert_eq!(server.register("1300", 1300, 600), Some(600), "it is over");
}

#[test]
fn bindings_are_kept_when_they_change_and_refreshes_now_and_then() {
    let mut server = Server::new(Settings::default(), 2);
    server.register("101", 5060, 600);
    let first = server.kept.remove("101").flatten().expect("a new binding is kept");
    assert_eq!(first.registration.expires_ms, EPOCH_MS + 600_000);
    server.wait(100);
    server.register("101", 5060, 600);
    assert!(server.kept.is_empty(), "a mere refresh");
    server.wait(100);
    server.register("101", 5060, 600);
    assert!(server.kept.remove("101").flatten().is_some(), "a quarter of the interval has gone by");

    // It moves to a transport whose flow does not outlive us.
    let tcp = Flow { transport: Transport::Tcp, ..flow(5080) };
    server.register_with(tcp, "101", "pw", "t", "Contact: <sip:101@10.0.0.2;transport=tcp>\r\n");
    assert!(matches!(server.kept.remove("101"), Some(None)));
    server.register("102", 5062, 600);
    server.register("102", 5062, 0);
    assert!(matches!(server.kept.remove("102"), Some(None)));
}

#[test]
fn a_restored_phone_rings_and_an_old_register_does_not_undo_it() {
    let mut before = Server::new(Settings::default(), 2);
    before.register("101", 5060, 600);
    before.register("102", 5062, 600);
    let kept = before.kept.into_values().flatten();
    let stored = kept.map(|Kept { registration, made_with }| Restorable { binding: (*registration.binding).clone(), made_with });
    let mut stored: Vec<Restorable> = stored.collect();
    let mut server = Server::new(Settings::default(), 1);
    server.now = before.now;
    stored.push(Restorable { binding: Binding { account: "d1".into(), ..stored[0].binding.clone() }, ..stored[0] });
    let restored = server.board.restore(server.now, stored);
    assert_eq!(restored.len(), 1, "102 has no account any more, and the password of d1 is another");
    server.ring();
    assert_eq!(server.requests(&Method::Invite).len(), 1);
    // The server counts CSeqs anew, so this one is lower than what was restored.
    server.cseq = 0;
    let late = server.register_with(flow(5060), "101", "pw", "101-5060", "Contact: *\r\nExpires: 0\r\n");
    assert_eq!(late.code(), Some(500));
    server.wait(601);
    assert_eq!(server.gone, [("101".to_owned(), Unbound::Expired)]);
}

#[test]
fn a_new_password_voids_the_old_phone_while_it_rings() {
    let mut server = Server::new(Settings::default(), 2);
    server.register("101", 5060, 600);
    server.register("102", 5062, 600);
    server.ring();
    let invites = server.requests(&Method::Invite);
    assert_eq!(invites.len(), 2);
    server.receive(flow(5060), answer(&invites[0], "180 Ringing"));
    let changes = vec![account("101", "new", AccountType::App)];
    let mut effects = Vec::new();
    server.board.command(server.now, Order::Apply(changes), &mut effects);
    server.perform(effects);
    assert_eq!(server.gone, [("101".to_owned(), Unbound::PasswordChanged)]);
    assert!(matches!(server.kept.get("101"), Some(None)), "nor is it there after a restart");
    let cancels = server.requests(&Method::Cancel);
    assert_eq!(cancels.iter().filter_map(Message::request_uri).collect::<Vec<_>>(), ["sip:101@10.0.0.2:5060"], "it falls silent");
    let old = server.register_with(flow(5060), "101", "pw", "x", "Contact: <sip:101@10.0.0.2:5060>\r\n");
    assert_eq!(old.code(), Some(403));
    server.sent.clear();
    let new = server.register_with(flow(5070), "101", "new", "y", "Contact: <sip:101@10.0.0.2:5070>\r\n");
    assert_eq!(new.code(), Some(200));
    let invites = server.requests(&Method::Invite);
    assert_eq!(invites.iter().map(|i| i.request_uri().unwrap_or_default()).collect::<Vec<_>>(), ["sip:101@10.0.0.2:5070"]);
}

#[test]
fn two_phones_with_one_account_are_shown() {
    let mut server = Server::new(Settings::default(), 2);
    for port in [5060, 5070, 5060, 5070] {
        server.register("101", port, 600);
        server.wait(30);
    }
    assert_eq!(server.registered["101"].binding.contested, 2);
    assert_eq!(server.count("registration_contested"), 2);
}

#[test]
fn a_silent_phone_is_asked_twice_and_then_gone() {
    let ping = Some(Duration::from_secs(60));
    let mut server = Server::new(Settings { ping, ..Settings::default() }, 2);
    server.register("101", 5060, 600);
    server.register("102", 5062, 600);
    server.sent.clear();
    server.wait(59);
    assert!(server.requests(&Method::Options).is_empty());
    // One shows life, one does not.
    server.receive(flow(5062), "\r\n\r\n".into());
    server.wait(2);
    let asked = server.requests(&Method::Options);
    assert_eq!(asked.iter().filter_map(Message::request_uri).collect::<Vec<_>>(), ["sip:101@10.0.0.2:5060"]);
    server.wait(40);
    assert!(server.gone.is_empty(), "the first unanswered question may be the router's fault");
    server.wait(30);
    assert_eq!(server.gone, [("101".to_owned(), Unbound::FlowDead)]);
    assert_eq!(server.count("binding_silent"), 1);

    // The other one was asked meanwhile, and answers something.
    let asked =
        server.requests(&Method::Options).into_iter().rfind(|o| o.request_uri() == Some("sip:102@10.0.0.2:5062")).unwrap();
    server.receive(flow(5062), answer(&asked, "486 Busy Here"));
    server.wait(59);
    assert!(server.requests(&Method::Options).is_empty());
    server.wait(2);
    assert_eq!(server.requests(&Method::Options).len(), 1, "and so on");
    assert_eq!(server.board.sizes().1, 1);
}
