//! The generator: one thread that sends RTP at a fixed rate from a few sockets and takes what comes back.
//!
//! Each packet carries the window of time it belongs to and when it was sent, so loss is known per window and the delay per
//! packet. The time of arrival is when this thread has read it: its own slowness counts against the server, the same for
//! every server. A few sockets stand for all devices, so that a core can feed and watch a server on another core.

use crate::house::IP;
use anyhow::Context;
use media::rtp::HEADER;
use media::sys::{Inbox, MESSAGES, Outbox, enable_gro};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Sockets on each side.
pub const SOCKETS: usize = 8;
/// Their receive buffers: what a stalled generator may find later.
const RECEIVE_BUFFER: usize = 16 << 20;
/// One window of time.
pub const WINDOW: Duration = Duration::from_millis(100);
/// Where in a payload the window and the time stand.
const STAMP: usize = 4;
/// Delays are counted in steps of 10 µs, up to 4 s.
const STEP_NS: u64 = 10_000;
const STEPS: usize = 400_000;
/// The generator looks around so often when there is nothing to do.
const PAUSE: Duration = Duration::from_micros(100);
/// Frames, or packets of audio, sent before what came back is read.
const BURST: u64 = 64;

/// What a stream consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// 160 bytes of PCMA.
    Audio,
    /// H264 of 1.2 Mbit/s at 30 frames/s: [`P_PACKETS`] packets a frame of at most 1,200 bytes, [`KEY_PACKETS`] and the
    /// parameter sets each 60 frames.
    Video,
}

/// Packets of an ordinary frame, and of a key frame without its parameter sets.
pub const P_PACKETS: usize = 4;
pub const KEY_PACKETS: usize = 24;
const GROUP: u32 = 60;
/// Packets of a group of pictures.
pub const GROUP_PACKETS: usize = (GROUP as usize - 1) * P_PACKETS + KEY_PACKETS + 2;

/// Packets to one address.
pub struct Stream {
    /// Which of the sockets of which side.
    pub side: usize,
    pub socket: usize,
    pub to: SocketAddr,
    ssrc: u32,
    seq: u16,
    timestamp: u32,
    frame: u32,
}

/// What one run was.
pub struct Outcome {
    pub sent: u64,
    pub received: u64,
    /// Sent and received per window.
    pub windows: Vec<(u64, u64)>,
    pub took: Duration,
    delays: Vec<u32>,
}

impl Outcome {
    /// Milliseconds that so many of a hundred took at most; the step's end.
    pub fn delay(&self, percent: f64) -> f64 {
        let all: u64 = self.delays.iter().map(|count| u64::from(*count)).sum();
        let mut left = (all as f64 * percent / 100.0).ceil() as u64;
        for (step, count) in self.delays.iter().enumerate() {
            left = left.saturating_sub(u64::from(*count));
            if left == 0 {
                return (step + 1) as f64 * STEP_NS as f64 / 1e6;
            }
        }
        f64::INFINITY
    }
}

/// See the module text.
pub struct Wire {
    /// Doors, then phones.
    sockets: [Vec<UdpSocket>; 2],
    pub streams: Vec<Stream>,
    content: Content,
    payloads: Vec<Vec<u8>>,
    inbox: Inbox,
    outbox: Outbox,
    /// Heads, whole packets and addresses of one burst.
    heads: Vec<[u8; HEADER]>,
    burst: Vec<(usize, usize, SocketAddr, usize)>,
    epoch: Instant,
    window: u32,
}

/// Payload templates.
const SOUND: usize = 0;
const SETS: usize = 1;
const KEY: usize = 3;
const DELTA: usize = 6;

impl Wire {
    /// `bursts`: packets of a frame leave in one piece (UDP_SEGMENT); else every packet is a call's own message.
    pub fn new(content: Content, bursts: bool) -> anyhow::Result<Wire> {
        let open = || -> anyhow::Result<UdpSocket> {
            let socket = UdpSocket::bind((IP, 0))?;
            socket.set_nonblocking(true)?;
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
                .or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))
                .context("receive buffer")?;
            enable_gro(socket.as_fd());
            Ok(socket)
        };
        let side = || (0..SOCKETS).map(|_| open()).collect::<anyhow::Result<Vec<_>>>();
        let fragments =
            |kind: u8| [(0x80, 1188), (0, 1188), (0x40, 700)].map(|(bits, length)| payload(&[0x7c, bits | kind, 0x9a], length));
        let mut payloads =
            vec![payload(&[0xd5], 160), payload(&[0x67, 0x42, 0xe0, 0x1f], 32), payload(&[0x68, 0xce, 0x3c, 0x80], 32)];
        payloads.extend(fragments(5));
        payloads.extend(fragments(1));
        Ok(Wire {
            sockets: [side()?, side()?],
            streams: Vec::new(),
            content,
            payloads,
            inbox: Inbox::new(),
            outbox: if bursts { Outbox::new() } else { Outbox::without_gso() },
            heads: Vec::with_capacity(1 << 14),
            burst: Vec::with_capacity(1 << 14),
            epoch: Instant::now(),
            window: 0,
        })
    }

    pub fn port(&self, side: usize, socket: usize) -> u16 {
        self.sockets[side][socket % SOCKETS].local_addr().map_or(0, |address| address.port())
    }

    /// Adds a stream. Neighbours share a socket, so what is due together leaves in one call.
    pub fn add(&mut self, side: usize, socket: usize, to: SocketAddr) {
        let ssrc = 0x1000_0000 + self.streams.len() as u32;
        self.streams.push(Stream { side, socket, to, ssrc, seq: 1, timestamp: 0, frame: 0 });
    }

    /// Sends `rate` packets a second for a time, and waits for the last ones. Each packet comes back `fan` times.
    pub fn run(&mut self, rate: f64, time: Duration, fan: u64) -> Outcome {
        let per_unit = match self.content {
            Content::Audio => 1.0,
            Content::Video => GROUP_PACKETS as f64 / f64::from(GROUP),
        };
        let (units, first) = (rate / per_unit, self.window + 1);
        let windows = time.as_nanos().div_ceil(WINDOW.as_nanos()) as usize;
        let mut outcome = Outcome { sent: 0, received: 0, windows: vec![(0, 0); windows], took: time, delays: vec![0; STEPS] };
        let (start, mut done) = (Instant::now(), 0u64);
        loop {
            let passed = start.elapsed();
            if passed >= time {
                break;
            }
            // Late ones are sent as soon as it can.
            let due = ((passed.as_secs_f64() * units) as u64).min(done + BURST);
            let window = (passed.as_nanos() / WINDOW.as_nanos()) as u32;
            if due > done {
                let sent = self.send(done, due, first + window);
                outcome.sent += sent * fan;
                outcome.windows[window as usize].0 += sent * fan;
                done = due;
            }
            if self.receive(first, &mut outcome) == 0 && due - done < BURST {
                std::thread::sleep(PAUSE);
            }
        }
        outcome.took = start.elapsed();
        let mut quiet = Instant::now();
        let end = quiet + Duration::from_secs(3);
        while outcome.received < outcome.sent && quiet.elapsed() < Duration::from_millis(300) && Instant::now() < end {
            if self.receive(first, &mut outcome) > 0 {
                quiet = Instant::now();
            }
            std::thread::sleep(PAUSE);
        }
        self.window += windows as u32;
        outcome
    }

    /// The units from..to of the round over all streams.
    fn send(&mut self, from: u64, to: u64, window: u32) -> u64 {
        self.heads.clear();
        self.burst.clear();
        for unit in from..to {
            let at = (unit % self.streams.len() as u64) as usize;
            let (pt, ticks) = if self.content == Content::Audio { (8, 160) } else { (96, 3000) };
            let stream = &mut self.streams[at];
            let key = stream.frame.is_multiple_of(GROUP);
            let (parts, base) = match (self.content, key) {
                (Content::Audio, _) => (1, SOUND),
                (Content::Video, true) => (KEY_PACKETS + 2, KEY),
                (Content::Video, false) => (P_PACKETS, DELTA),
            };
            for part in 0..parts {
                let template = match self.content {
                    Content::Audio => SOUND,
                    Content::Video if key && part < 2 => SETS + part,
                    Content::Video if part + 1 == parts => base + 2,
                    Content::Video => base + usize::from(part != if key { 2 } else { 0 }),
                };
                let marker = self.content == Content::Video && part + 1 == parts;
                let mut head = [0x80, pt | u8::from(marker) << 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                head[2..4].copy_from_slice(&stream.seq.to_be_bytes());
                head[4..8].copy_from_slice(&stream.timestamp.to_be_bytes());
                head[8..12].copy_from_slice(&stream.ssrc.to_be_bytes());
                self.heads.push(head);
                self.burst.push((stream.side, stream.socket, stream.to, template));
                stream.seq = stream.seq.wrapping_add(1);
            }
            stream.timestamp = stream.timestamp.wrapping_add(ticks);
            stream.frame += 1;
        }
        let now = self.epoch.elapsed().as_nanos() as u64;
        for payload in &mut self.payloads {
            payload[STAMP..STAMP + 4].copy_from_slice(&window.to_le_bytes());
            payload[STAMP + 4..STAMP + 12].copy_from_slice(&now.to_le_bytes());
        }
        let (heads, payloads, mut begin, mut lost) = (&self.heads, &self.payloads, 0, 0);
        for run in self.burst.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let socket = self.sockets[run[0].0][run[0].1 % SOCKETS].as_fd();
            let packets = run.iter().zip(&heads[begin..]).map(|((.., to, template), head)| (*to, head, &payloads[*template][..]));
            lost += self.outbox.send(socket, packets);
            begin += run.len();
        }
        self.burst.len() as u64 - lost
    }

    /// Reads all sockets; counts what belongs to this run.
    fn receive(&mut self, first: u32, outcome: &mut Outcome) -> u64 {
        let mut read = 0;
        for socket in self.sockets.iter().flatten() {
            while let Ok(messages) = self.inbox.receive(socket.as_fd()) {
                let now = self.epoch.elapsed().as_nanos() as u64;
                for (_, bytes, each) in (0..messages).filter_map(|at| self.inbox.message(at)) {
                    for packet in bytes.chunks(each) {
                        let Some([w0, w1, w2, w3, time @ ..]) = packet.get(HEADER + STAMP..HEADER + STAMP + 12) else { continue };
                        let window = u32::from_le_bytes([*w0, *w1, *w2, *w3]).wrapping_sub(first);
                        let Some(counts) = outcome.windows.get_mut(window as usize) else { continue };
                        let sent = u64::from_le_bytes(time.try_into().unwrap_or_default());
                        counts.1 += 1;
                        outcome.received += 1;
                        outcome.delays[((now.saturating_sub(sent) / STEP_NS) as usize).min(STEPS - 1)] += 1;
                        read += 1;
                    }
                }
                if messages < MESSAGES {
                    break;
                }
            }
        }
        read
    }
}

/// A payload without zero bytes that begins so.
fn payload(begin: &[u8], length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|n| (n % 251 + 1) as u8).collect();
    bytes[..begin.len()].copy_from_slice(begin);
    bytes
}
