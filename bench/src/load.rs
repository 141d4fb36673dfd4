//! Many phones that register: one thread, plain sockets, nothing allocated per message, so that the load is light beside
//! the server it loads. Each phone is a SIP client as RFC 3261 has it: REGISTER, the challenge, REGISTER with the answer
//! (MD5, `qop=auth`), and what is not answered is repeated (timers E and F, §17.1.2.2).

use fixtures::server::password;
use md5::{Digest, Md5};
use rustix::event::{Timespec, epoll};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// Timer F.
const PATIENCE: Duration = Duration::from_secs(32);
/// Phones started before answers are looked at again.
const BURST: u64 = 64;

/// Phones of another load are other clients: Call-IDs of their own, so that their CSeq may begin anew.
static RUNS: AtomicU32 = AtomicU32::new(1);

/// The number of a phone.
pub fn number(phone: usize) -> String {
    format!("p{phone:06}")
}

/// How hard, and how long.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Registrations altogether; the phones take turns.
    pub count: u64,
    /// Begun per second, whether or not the server keeps up.
    pub rate: f64,
    /// After the last one was begun, answers are awaited so long.
    pub grace: Duration,
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    /// Registrations that ended with 200.
    pub registered: u64,
    /// Ended with another answer.
    pub refused: u64,
    /// Could not even begin: the phone still waited for its last one.
    pub still_busy: u64,
    /// Never answered.
    pub unanswered: u64,
    /// Repeats of requests that were not answered in time.
    pub repeats: u64,
    /// Milliseconds from the moment each should have begun to its 200.
    pub latencies: Vec<f64>,
    /// From the first beginning to the last 200.
    pub took: Duration,
}

impl Outcome {
    pub fn share(&self) -> f64 {
        let all = self.registered + self.refused + self.still_busy + self.unanswered;
        self.registered as f64 / (all.max(1)) as f64
    }
}

enum State {
    Idle,
    Asked,
    Signed,
}

struct Phone {
    number: String,
    ha1: [u8; 32],
    socket: usize,
    cseq: u32,
    state: State,
    nonce: Vec<u8>,
    begun: Instant,
    sent: Instant,
    repeat: Duration,
}

/// The phones and their sockets.
pub struct Load {
    server: SocketAddr,
    realm: &'static str,
    run: u32,
    sockets: Vec<(UdpSocket, SocketAddr)>,
    epoll: OwnedFd,
    phones: Vec<Phone>,
    repeats: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    waiting: u64,
    message: Vec<u8>,
    outcome: Outcome,
}

impl Load {
    /// `sockets` are on loopback addresses of their own, as phones are on addresses of theirs.
    pub fn new(server: SocketAddr, realm: &'static str, phones: usize, sockets: usize) -> io::Result<Load> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut open = Vec::new();
        for index in 0..sockets {
            let [.., high, low] = u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes();
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 77, high, low.max(1)), 0))?;
            socket.set_nonblocking(true)?;
            socket.connect(server)?;
            epoll::add(&epoll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            let local = socket.local_addr()?;
            open.push((socket, local));
        }
        let now = Instant::now();
        let phone = |index: usize| {
            let number = number(index);
            let ha1 = hash(&[number.as_bytes(), b":", realm.as_bytes(), b":", password(&number).as_bytes()]);
            let (socket, nonce) = (index % sockets, Vec::new());
            Phone { number, ha1, socket, cseq: 0, state: State::Idle, nonce, begun: now, sent: now, repeat: T1 }
        };
        Ok(Load {
            server,
            realm,
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            sockets: open,
            epoll,
            phones: (0..phones).map(phone).collect(),
            repeats: BinaryHeap::new(),
            waiting: 0,
            message: Vec::with_capacity(2048),
            outcome: Outcome::default(),
        })
    }

    /// Registers as planned.
    pub fn run(&mut self, plan: Plan) -> io::Result<Outcome> {
        let start = Instant::now();
        let mut begun = 0;
        let mut last = start;
        let mut events = Vec::with_capacity(256);
        let mut buffer = vec![0; 4096];
        loop {
            let now = Instant::now();
            let due = ((now - start).as_secs_f64() * plan.rate) as u64;
            for _ in 0..BURST {
                if begun == plan.count || begun > due {
                    break;
                }
                let at = start + Duration::from_secs_f64(begun as f64 / plan.rate);
                self.begin((begun % self.phones.len() as u64) as usize, at);
                begun += 1;
            }
            if begun == plan.count {
                let over = now > start + Duration::from_secs_f64(plan.count as f64 / plan.rate) + plan.grace;
                if self.waiting == 0 || over {
                    break;
                }
            }
            let wait = if begun > due || begun == plan.count { 1_000_000 } else { 0 };
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: wait }))?;
            for event in &events {
                // Level-triggered: what is left comes up again.
                let socket = event.data.u64() as usize;
                if let Ok(length) = self.sockets[socket].0.recv(&mut buffer)
                    && self.answer(&buffer[..length])
                {
                    last = Instant::now();
                }
            }
            self.repeat(Instant::now());
        }
        for phone in &mut self.phones {
            phone.state = State::Idle;
        }
        self.repeats.clear();
        self.outcome.unanswered += std::mem::take(&mut self.waiting);
        self.outcome.took = last - start;
        Ok(std::mem::take(&mut self.outcome))
    }

    fn begin(&mut self, index: usize, at: Instant) {
        let phone = &mut self.phones[index];
        if !matches!(phone.state, State::Idle) {
            self.outcome.still_busy += 1;
            return;
        }
        self.waiting += 1;
        phone.begun = at;
        phone.cseq += 1;
        phone.state = State::Asked;
        self.send_new(index);
    }

    /// The first copy of a request.
    fn send_new(&mut self, index: usize) {
        let now = Instant::now();
        let phone = &mut self.phones[index];
        (phone.sent, phone.repeat) = (now, T1);
        self.repeats.push(Reverse((now + T1, index, phone.cseq)));
        self.send(index);
    }

    fn send(&mut self, index: usize) {
        let phone = &self.phones[index];
        let (socket, local) = &self.sockets[phone.socket];
        self.message.clear();
        write_register(&mut self.message, phone, index, *local, self.server, self.realm, self.run);
        // A full socket loses it; it is repeated.
        let _ = socket.send(&self.message);
    }

    /// Repeats what is due (timer E), gives up what is too old (timer F).
    fn repeat(&mut self, now: Instant) {
        while let Some(&Reverse((at, index, cseq))) = self.repeats.peek() {
            if at > now {
                return;
            }
            self.repeats.pop();
            let phone = &mut self.phones[index];
            if phone.cseq != cseq || matches!(phone.state, State::Idle) {
                continue;
            }
            if now > phone.sent + PATIENCE {
                phone.state = State::Idle;
                self.waiting -= 1;
                self.outcome.unanswered += 1;
                continue;
            }
            phone.repeat = (phone.repeat * 2).min(T2);
            self.repeats.push(Reverse((now + phone.repeat, index, cseq)));
            self.outcome.repeats += 1;
            self.send(index);
        }
    }

    /// One response. Says whether a phone is registered by it.
    fn answer(&mut self, message: &[u8]) -> bool {
        let Some((index, cseq)) = find(message, b"z9hG4bK").and_then(|at| {
            let hex = |range: std::ops::Range<usize>| {
                let text = std::str::from_utf8(message.get(at + range.start..at + range.end)?).ok()?;
                u32::from_str_radix(text, 16).ok()
            };
            Some((hex(0..8)? as usize, hex(8..16)?))
        }) else {
            return false;
        };
        let Some(phone) = self.phones.get_mut(index).filter(|phone| phone.cseq == cseq) else { return false };
        match (&phone.state, message.get(8..11)) {
            (State::Idle, _) | (_, None) => return false,
            (State::Asked, Some(b"401")) => {
                let Some(begin) = find(message, b"nonce=\"") else { return false };
                let nonce = &message[begin..];
                phone.nonce.clear();
                phone.nonce.extend(nonce.iter().take_while(|byte| **byte != b'"'));
                phone.cseq += 1;
                phone.state = State::Signed;
                self.send_new(index);
                return false;
            }
            (State::Signed, Some(b"200")) => {
                self.outcome.registered += 1;
                self.outcome.latencies.push(phone.begun.elapsed().as_secs_f64() * 1000.0);
            }
            _ => self.outcome.refused += 1,
        }
        phone.state = State::Idle;
        self.waiting -= 1;
        true
    }
}

fn write_register(out: &mut Vec<u8>, phone: &Phone, index: usize, local: SocketAddr, server: SocketAddr, realm: &str, run: u32) {
    let (number, cseq, host) = (&phone.number, phone.cseq, server.ip());
    let _ = write!(
        out,
        "REGISTER sip:{host} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {local};branch=z9hG4bK{index:08x}{cseq:08x}{run:x};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:{number}@{host}>;tag=f{index:x}-{run:x}\r\n\
         To: <sip:{number}@{host}>\r\n\
         Call-ID: {run:x}-{index:08x}@{}\r\n\
         CSeq: {cseq} REGISTER\r\n\
         Contact: <sip:{number}@{local}>\r\n\
         Expires: 3600\r\n\
         User-Agent: Doorline bench\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO\r\n",
        local.ip()
    );
    if matches!(phone.state, State::Signed) {
        let uri = format!("sip:{host}");
        let nonce = &phone.nonce;
        let cnonce = format!("{cseq:08x}");
        let ha2 = hash(&[b"REGISTER:", uri.as_bytes()]);
        let response = hash(&[&phone.ha1, b":", nonce, b":00000001:", cnonce.as_bytes(), b":auth:", &ha2]);
        let _ = write!(out, "Authorization: Digest username=\"{number}\", realm=\"{realm}\", nonce=\"");
        out.extend_from_slice(nonce);
        let _ = write!(out, "\", uri=\"{uri}\", response=\"");
        out.extend_from_slice(&response);
        let _ = write!(out, "\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"{cnonce}\"\r\n");
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Where the text after `what` begins.
fn find(message: &[u8], what: &[u8]) -> Option<usize> {
    message.windows(what.len()).position(|window| window == what).map(|at| at + what.len())
}

/// MD5 in hexadecimal.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    let mut hex = [0; 32];
    for (byte, pair) in md5.finalize().iter().zip(hex.chunks_exact_mut(2)) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    hex
}
