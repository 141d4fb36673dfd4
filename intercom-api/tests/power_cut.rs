//! `kill -9` while a building registers: after the restart everyone who was there a second before is there, with the way to
//! him, and nobody who had left (D-10).

#![allow(clippy::disallowed_methods)] // it drives a real program in real time

use bytes::Bytes;
use fixtures::process::Folder;
use fixtures::server::{Server, password};
use fixtures::sipp::Scenario;
use serde_json::{Value, json};
use sip_core::digest::Challenge;
use sip_core::message::{Message, Method, Name};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

const PHONES: usize = 2000;
/// Wishes begun in a second; each takes two REGISTERs.
const RATE: f64 = 500.0;
/// Requests that may be without an answer.
const WINDOW: usize = 100;
const SERVER: &str = "127.0.96.1:6050";

/// One wish of a phone, and how far it got.
struct Wish {
    /// 0: it leaves.
    seconds: u32,
    cseq: u32,
    sent: Instant,
    text: String,
}

/// All phones of the building behind one socket.
struct Building {
    socket: UdpSocket,
    server: SocketAddr,
    open: BTreeMap<String, Wish>,
    /// The last acknowledged wish of each number: registered or not, and when that was known.
    acknowledged: BTreeMap<String, (bool, Instant)>,
    asked: BTreeSet<String>,
}

impl Building {
    fn new(address: SocketAddr) -> Building {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let server = SERVER.parse().unwrap();
        Building { socket, server, open: BTreeMap::new(), acknowledged: BTreeMap::new(), asked: BTreeSet::new() }
    }

    fn send(&mut self, number: String, seconds: u32, cseq: u32, credentials: &str) {
        let local = self.socket.local_addr().unwrap();
        let text = format!(
            "REGISTER sip:{server} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{number}-{cseq};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{number}@{server}>;tag={number}\r\nTo: <sip:{number}@{server}>\r\nCall-ID: {number}\r\n\
             CSeq: {cseq} REGISTER\r\nContact: <sip:{number}@{local}>\r\nExpires: {seconds}\r\n{credentials}Content-Length: 0\r\n\r\n",
            server = self.server.ip()
        );
        self.asked.insert(number.clone());
        let wish = Wish { seconds, cseq, sent: Instant::now(), text };
        let _ = self.socket.send_to(wish.text.as_bytes(), self.server);
        self.open.insert(number, wish);
    }

    /// Takes one datagram, if there is one; the request if it is one.
    fn receive(&mut self) -> Option<Message> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        let message = Message::parse(Bytes::copy_from_slice(&buffer[..length])).unwrap();
        if message.method().is_some() {
            return Some(message);
        }
        let number = message.call_id().unwrap_or_default().to_owned();
        let cseq = message.cseq().map(|cseq| cseq.number);
        let wish = self.open.remove(&number).filter(|wish| Some(wish.cseq) == cseq)?;
        match message.code() {
            Some(401) => {
                let challenge = Challenge::parse(message.header(Name::WwwAuthenticate)?)?;
                let uri = format!("sip:{}", self.server.ip());
                let answer = challenge.answer("REGISTER", &uri, &number, &password(&number), "c", 1);
                self.send(number, wish.seconds, wish.cseq + 1, &format!("Authorization: {answer}\r\n"));
            }
            Some(200) => {
                self.acknowledged.insert(number, (wish.seconds > 0, Instant::now()));
            }
            code => panic!("{number}: {code:?}"),
        }
        None
    }

    /// What was lost on the way is sent again.
    fn repeat(&mut self) {
        for wish in self.open.values_mut().filter(|wish| wish.sent.elapsed() > Duration::from_millis(500)) {
            wish.sent = Instant::now();
            let _ = self.socket.send_to(wish.text.as_bytes(), self.server);
        }
    }

    /// Plays wishes until so many are acknowledged.
    fn play(&mut self, mut wishes: VecDeque<(String, u32, u32)>, enough: usize) {
        let begin = Instant::now();
        let (mut sent, mut repeated) = (0.0, begin);
        let mut done = 0;
        while done < enough {
            assert!(begin.elapsed() < Duration::from_secs(60), "only {done} after a minute");
            let due = begin.elapsed().as_secs_f64() * RATE > sent && self.open.len() < WINDOW;
            let ready = wishes.front().is_some_and(|(number, ..)| !self.open.contains_key(number));
            if due
                && ready
                && let Some((number, seconds, cseq)) = wishes.pop_front()
            {
                self.send(number, seconds, cseq, "");
                sent += 1.0;
            }
            let before = self.open.len();
            self.receive();
            done += usize::from(self.open.len() < before);
            if repeated.elapsed() > Duration::from_millis(100) {
                self.repeat();
                repeated = Instant::now();
            }
        }
    }

    /// Answers the first INVITE with `status`, and gives whom it was for.
    fn refuse_a_call(&mut self, status: &str) -> String {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < Duration::from_secs(20), "nobody is called");
            let Some(invite) = self.receive().filter(|request| request.method() == Some(&Method::Invite)) else { continue };
            let line = |name, title: &str| format!("{title}: {}", invite.header(name).unwrap_or_default());
            let (via, from, to) = (line(Name::Via, "Via"), line(Name::From, "From"), line(Name::To, "To"));
            let (call_id, cseq) = (line(Name::CallId, "Call-ID"), line(Name::CSeq, "CSeq"));
            let answer = format!("SIP/2.0 {status}\r\n{via}\r\n{from}\r\n{to};tag=phone\r\n{call_id}\r\n{cseq}\r\n\r\n");
            let _ = self.socket.send_to(answer.as_bytes(), self.server);
            return invite.request_uri().unwrap_or_default().to_owned();
        }
    }
}

fn start(data: &Path) -> Server {
    let settings = [("SIP__UDP", SERVER)];
    Server::start_in(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.96.1", "10000-10099", &settings, Some(data))
}

/// The accounts that are reachable, page by page.
fn registered(server: &Server) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    loop {
        let after = all.last().cloned().unwrap_or_default();
        let page = server.api("GET", &format!("/v1/registrations?after={after}&limit=700"), None);
        let page: Vec<String> = page.as_array().unwrap().iter().filter_map(|r| Some(r["account"].as_str()?.to_owned())).collect();
        assert!(page.is_sorted() && page.len() <= 700 && page.first().is_none_or(|first| *first > after));
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

#[test]
fn every_registration_older_than_a_second_outlives_kill_9_and_a_call_reaches_it() {
    let folder = Folder::new("power-cut");
    let data = folder.path().join("data");
    let server = start(&data);
    let number = |index: usize| format!("p{index:04}");
    for first in (0..PHONES).step_by(100) {
        let account = |index: usize| json!({"number": number(index), "password": password(&number(index)), "type": 0});
        server.api("POST", "/v1/accounts", Some(&(first..first + 100).map(account).collect::<Value>()));
    }
    server.provision(&[("door", 1)], "room", &["p0001"]);

    // Every fourth phone leaves again; the power goes in the middle of it all.
    let mut wishes = VecDeque::new();
    for index in 0..PHONES {
        wishes.push_back((number(index), 300, 1));
        if index % 4 == 3 {
            wishes.push_back((number(index - 3), 0, 10));
        }
    }
    let mut building = Building::new(([127, 0, 96, 11], 5070).into());
    building.play(wishes, PHONES);
    let cut = Instant::now();
    server.kill();

    let old = |at: Instant| cut.saturating_duration_since(at) > Duration::from_secs(1);
    let undecided: BTreeSet<String> = std::mem::take(&mut building.open).into_keys().collect();
    let server = start(&data);
    let there = registered(&server);
    let mut sure = (0, 0);
    for (number, (wanted, at)) in
        building.acknowledged.iter().filter(|(number, (_, at))| old(*at) && !undecided.contains(*number))
    {
        assert_eq!(there.contains(number), *wanted, "{number} was told so {:?} before the power went", cut - *at);
        if *wanted { sure.0 += 1 } else { sure.1 += 1 }
    }
    assert!(sure.0 > 400 && sure.1 > 100, "{sure:?} phones older than a second: the test shows too little");
    assert!(there.iter().all(|number| building.asked.contains(number)));
    println!("{sure:?} (there, gone) older than a second; {} restored of {} asked", there.len(), building.asked.len());

    let auth = format!("[authentication username=door password={}]", password("door"));
    let door = Scenario::start("door_is_told_once", server.sip, ([127, 0, 96, 9], 5070).into(), &["door", &auth, "room", "603"]);
    assert_eq!(building.refuse_a_call("603 Decline"), "sip:p0001@127.0.96.11:5070");
    door.succeed();

    // Who registers on with the CSeqs of before is heard, and an orderly stop forgets nothing either.
    building.play(VecDeque::from([("p0001".to_owned(), 0, 20), ("p0002".to_owned(), 300, 20)]), 2);
    assert!(server.stop());
    let server = start(&data);
    let there = registered(&server);
    assert!(!there.contains("p0001") && there.contains("p0002"));
}
