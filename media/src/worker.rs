//! One media thread: wait, read, [`Engine`], write. It owns its sockets and its engine; commands come through a queue,
//! events leave through a function.
//!
//! A socket that is ready is read in one call, its datagrams go through the engine one after the other, and what comes out
//! leaves in one call per socket. The rest of a socket that had more waits until all others had their turn.
//!
//! Measured with `./dev bench relay` (packets per CPU second, in relation): audio, one packet a socket, 1; a door's video in
//! single packets, a frame in one reading and one sending (GSO), 2.0; the same when the frame also arrives in one piece (GRO)
//! 2.5; to five phones, which share the reading, 4.0. Asking epoll edge-triggered gained nothing against level-triggered,
//! which needs no memory of who has something left.

#![allow(clippy::disallowed_methods)] // a shell: owns the clock and sockets

use crate::command::{Command, Event, PairId};
use crate::engine::{Channel, Engine, Out, Tail};
use crate::rtp::HEADER;
use crate::sys::{Inbox, Outbox};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::fs::File;
use std::io::{self, Read};
use std::net::UdpSocket;
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

/// Sockets served in one round: commands and deadlines wait some 20 ms at most, however much comes.
const READY: usize = 256;
/// Packets that may wait to be sent while a socket's datagrams are looked at.
const SENDS: usize = 1024;
/// Under load a round begins so long after the last one, see [`Worker::run`].
const TICK: Duration = Duration::from_micros(1000);
/// The token of the wake-up descriptor.
const WAKE: u64 = u64::MAX;

/// One bound pair.
pub(crate) struct Pair {
    pub id: PairId,
    pub rtp: UdpSocket,
    pub rtcp: UdpSocket,
}

impl Pair {
    fn socket(&self, channel: Channel) -> BorrowedFd<'_> {
        match channel {
            Channel::Rtp => self.rtp.as_fd(),
            Channel::Rtcp => self.rtcp.as_fd(),
        }
    }
}

pub(crate) struct Worker {
    epoll: OwnedFd,
    wake: File,
    pairs: Vec<Pair>,
    /// Pair id → index in `pairs`.
    index: Vec<u32>,
    commands: Receiver<Command>,
    engine: Engine,
    out: Out,
    /// Where in the inbox each datagram of this batch is: its message, its bytes.
    datagrams: Vec<(usize, Range<usize>)>,
    /// Per send in `out`, the datagram it came from.
    from: Vec<u32>,
    /// The sends, those of one socket together.
    order: Vec<u32>,
}

impl Worker {
    /// The worker and the descriptor that wakes it.
    pub fn new(pairs: Vec<Pair>, commands: Receiver<Command>) -> io::Result<(Worker, File)> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let mut index = Vec::new();
        for (at, pair) in pairs.iter().enumerate() {
            let token = (at as u64) << 1;
            epoll::add(&epoll, &pair.rtp, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
            epoll::add(&epoll, &pair.rtcp, epoll::EventData::new_u64(token | 1), epoll::EventFlags::IN)?;
            let id = pair.id.0 as usize;
            if index.len() <= id {
                index.resize(id + 1, u32::MAX);
            }
            index[id] = at as u32;
        }
        let waker = wake.try_clone()?;
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let engine = Engine::new(Instant::now(), unix);
        let out = Out { sends: Vec::with_capacity(2 * SENDS), ..Out::default() };
        let (from, order) = (Vec::with_capacity(2 * SENDS), Vec::with_capacity(2 * SENDS));
        let datagrams = Vec::with_capacity(SENDS);
        let worker = Worker { epoll, wake, pairs, index, commands, engine, out, datagrams, from, order };
        Ok((worker, waker))
    }

    /// Runs until the queue's sender is gone.
    ///
    /// Idle, it sleeps in epoll and forwards a packet at once. When packets come closer together than [`TICK`], it lets
    /// them gather until the next tick: nobody has to wake it for each, and a round's cost is shared.
    pub fn run(mut self, core: Option<usize>, on_event: impl Fn(Event)) {
        if let Some(core) = core {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            // Not being pinned costs a little speed, nothing else.
            let _ = rustix::thread::sched_setaffinity(None, &set);
        }
        let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(READY);
        let mut asleep = Instant::now();
        loop {
            let wait = self.engine.next_deadline().map(|at| {
                let left = at.saturating_duration_since(asleep);
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
            });
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let now = Instant::now();
            let mut read = 0;
            for event in &ready {
                match event.data.u64() {
                    WAKE => {
                        if !self.commands(now, &inbox, &mut outbox) {
                            return;
                        }
                    }
                    token => read += self.drain(now, token, &mut inbox, &mut outbox),
                }
            }
            self.engine.timeout(now, &mut self.out);
            self.flush(&inbox, &mut outbox);
            for event in self.out.events.drain(..) {
                on_event(event);
            }
            let dense = read > 0 && now < asleep + TICK;
            asleep = Instant::now();
            if dense && let Some(rest) = (now + TICK).checked_duration_since(asleep) {
                std::thread::sleep(rest);
                asleep = now + TICK;
            }
        }
    }

    /// `false`: nobody commands any more.
    fn commands(&mut self, now: Instant, inbox: &Inbox, outbox: &mut Outbox) -> bool {
        let mut count = [0u8; 8];
        let _ = (&self.wake).read(&mut count);
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    self.engine.command(now, command, &mut self.out);
                    self.flush(inbox, outbox);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Reads a socket once; returns how many datagrams it had. What it has left makes it ready again.
    fn drain(&mut self, now: Instant, token: u64, inbox: &mut Inbox, outbox: &mut Outbox) -> usize {
        let channel = if token & 1 == 0 { Channel::Rtp } else { Channel::Rtcp };
        let Some(pair) = self.pairs.get((token >> 1) as usize) else { return 0 };
        let id = pair.id;
        // An ICMP error of an earlier send may come up here, once.
        let messages = inbox.receive(pair.socket(channel)).unwrap_or(0);
        let mut read = 0;
        for at in 0..messages {
            let Some((from, bytes, each)) = inbox.message(at) else { continue };
            // An empty datagram is one, too.
            for begin in (0..bytes.len().max(1)).step_by(each) {
                let range = begin..(begin + each).min(bytes.len());
                self.engine.receive(now, id, channel, from, &bytes[range.clone()], &mut self.out);
                self.from.resize(self.out.sends.len(), self.datagrams.len() as u32);
                self.datagrams.push((at, range));
                read += 1;
            }
            if self.out.sends.len() >= SENDS {
                self.flush(inbox, outbox);
            }
        }
        self.flush(inbox, outbox);
        read
    }

    /// Sends what the engine wants sent, socket by socket, in the order it wants for each.
    fn flush(&mut self, inbox: &Inbox, outbox: &mut Outbox) {
        let sends = &self.out.sends;
        self.order.clear();
        self.order.extend(0..sends.len() as u32);
        let socket = |at: &u32| (sends[*at as usize].pair, sends[*at as usize].channel);
        self.order.sort_unstable_by_key(|at| (socket(at), *at));
        for run in self.order.chunk_by(|a, b| socket(a) == socket(b)) {
            let (id, channel) = socket(&run[0]);
            let pair = self.index.get(id.0 as usize).and_then(|at| self.pairs.get(*at as usize));
            let Some(pair) = pair else { continue };
            let packets = run.iter().map(|at| {
                let send = &sends[*at as usize];
                let tail = match &send.tail {
                    Tail::Input => self.from.get(*at as usize).map_or(&[][..], |from| {
                        let (message, range) = &self.datagrams[*from as usize];
                        let bytes = inbox.message(*message).map_or(&[][..], |(_, bytes, _)| &bytes[range.clone()]);
                        bytes.get(HEADER..).unwrap_or_default()
                    }),
                    Tail::Owned(bytes) => bytes,
                };
                (send.to, &send.head, tail)
            });
            let lost = outbox.send(pair.socket(channel), packets);
            if lost > 0 {
                self.engine.not_sent(id, lost);
            }
        }
        self.out.sends.clear();
        self.from.clear();
        self.datagrams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Codec, LegId, LegPlan, Payload, SessionId, StreamPlan};
    use crate::rtp::Rtp;
    use crate::sys::counting::allocations;
    use crate::sys::enable_gro;
    use std::net::SocketAddr;

    const DOOR: u32 = 0;
    const PHONES: u32 = 5;
    /// A frame: equal pieces and a shorter one.
    const FRAME: [usize; 5] = [500, 500, 500, 500, 200];

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// A worker with a door's video for five phones, and the devices' sockets, the door's first.
    fn house() -> (Worker, Vec<UdpSocket>) {
        let devices: Vec<UdpSocket> = (0..=PHONES).map(|_| socket()).collect();
        let pair = |id: u32| {
            let rtp = socket();
            enable_gro(rtp.as_fd());
            Pair { id: PairId(id), rtp, rtcp: socket() }
        };
        let (_, commands) = std::sync::mpsc::sync_channel(1);
        let (mut worker, _) = Worker::new((0..=PHONES).map(pair).collect(), commands).unwrap();
        let leg = |id: u32| {
            let video = StreamPlan {
                pair: PairId(id),
                remote: devices[id as usize].local_addr().ok(),
                remote_rtcp: None,
                sip_source: [127, 0, 0, 1].into(),
                payloads: vec![Payload { pt: 96, codec: Codec::H264 }],
                ssrc: id,
                first_seq: 0,
                first_timestamp: 0,
                send: id != DOOR,
                receive: id == DOOR,
                parameter_sets: vec![],
                rtcp_mux: false,
                ice: None,
            };
            LegPlan { leg: LegId(u64::from(id)), audio: None, video: Some(video) }
        };
        let (now, session) = (Instant::now(), SessionId(1));
        worker.engine.command(now, Command::Open { session, anchor: leg(DOOR), key_frame_by: None }, &mut worker.out);
        for phone in 1..=PHONES {
            worker.engine.command(now, Command::Put { session, leg: leg(phone) }, &mut worker.out);
        }
        worker.out.events.clear();
        (worker, devices)
    }

    /// The door sends a frame, and the worker reads its socket until it is empty; returns how many datagrams those were.
    fn frame(worker: &mut Worker, door: &UdpSocket, seq: &mut u16, inbox: &mut Inbox, outbox: &mut Outbox) -> usize {
        let to: SocketAddr = worker.pairs[DOOR as usize].rtp.local_addr().unwrap();
        // The first is a key frame: parameter sets and slices; the others are slices that refer to it.
        let number = *seq / FRAME.len() as u16;
        let begins = if number == 0 { [0x67, 0x68, 0x65, 0x65, 0x65] } else { [0x41; FRAME.len()] };
        let mut payloads = [[1; 1200]; FRAME.len()];
        for (at, (payload, begin)) in payloads.iter_mut().zip(begins).enumerate() {
            payload[..2].copy_from_slice(&[begin, if at == 2 { 0x88 } else { 0x08 }]);
        }
        let mut heads = [[0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]; FRAME.len()];
        heads[FRAME.len() - 1][1] |= 0x80;
        for head in &mut heads {
            head[2..4].copy_from_slice(&seq.to_be_bytes());
            head[4..8].copy_from_slice(&(u32::from(number) * 3000).to_be_bytes());
            *seq = seq.wrapping_add(1);
        }
        let packets = heads.iter().zip(&payloads).zip(FRAME).map(|((head, payload), length)| (to, head, &payload[..length]));
        assert_eq!(Outbox::send(outbox, door.as_fd(), packets), 0);
        let mut read = 0;
        loop {
            match worker.drain(Instant::now(), u64::from(DOOR) << 1, inbox, outbox) {
                0 => return read,
                more => read += more,
            }
        }
    }

    #[test]
    fn a_burst_reaches_every_phone_in_order_and_forwarding_allocates_nothing() {
        // The door's packets come in one piece, then one by one.
        for mut outbox in [Outbox::new(), Outbox::without_gso()] {
            let (mut worker, devices) = house();
            let (mut inbox, mut seq) = (Inbox::new(), 0u16);
            // The key frame and what is kept behind it.
            for _ in 0..10 {
                assert_eq!(frame(&mut worker, &devices[0], &mut seq, &mut inbox, &mut outbox), FRAME.len());
            }
            let before = allocations();
            for _ in 0..10 {
                assert_eq!(frame(&mut worker, &devices[0], &mut seq, &mut inbox, &mut outbox), FRAME.len());
            }
            assert_eq!(allocations() - before, 0, "of 250 packets");
            for phone in &devices[1..] {
                let (mut bytes, mut got) = ([0; 2000], Vec::new());
                while let Ok(length) = phone.recv(&mut bytes) {
                    got.push((length, Rtp::parse(&bytes[..length]).unwrap().sequence()));
                }
                // What came before may have been a kept key frame.
                let got = &got[got.len() - 10 * FRAME.len()..];
                for (at, (length, seq)) in got.iter().enumerate() {
                    assert_eq!((*length, *seq), (HEADER + FRAME[at % FRAME.len()], got[0].1.wrapping_add(at as u16)));
                }
            }
        }
    }

    #[test]
    fn what_does_not_leave_is_counted_where_it_should_have_gone() {
        let (mut worker, devices) = house();
        // Nothing can be sent to a socket of another family.
        worker.pairs[1].rtp = UdpSocket::bind("[::1]:0").unwrap();
        let (mut inbox, mut outbox, mut seq) = (Inbox::new(), Outbox::new(), 0u16);
        frame(&mut worker, &devices[0], &mut seq, &mut inbox, &mut outbox);
        worker.engine.command(Instant::now(), Command::Close { session: SessionId(1) }, &mut worker.out);
        let Some(Event::Report { legs, .. }) = worker.out.events.last() else { panic!("a report") };
        let not_sent = |leg: usize| legs[leg].video.drops.iter().find(|(name, _)| *name == "not_sent").map_or(0, |(_, n)| *n);
        assert_eq!((not_sent(1), not_sent(2)), (legs[1].video.packets_out, 0), "none of its packets");
        assert!(devices[2].recv(&mut [0; 2000]).is_ok(), "the others' packets are not lost");
    }
}
