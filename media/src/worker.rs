//! One media thread: wait, read, [`Engine`], write. It owns its sockets and its engine; commands come through a queue,
//! events leave through a function.

#![allow(clippy::disallowed_methods)] // a shell: owns the clock and sockets

use crate::command::{Command, Event, PairId};
use crate::engine::{Channel, Engine, Out, Tail};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg_addr};
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Instant, SystemTime};

/// Largest media datagram; longer ones are cut, and then they are no RTP any more.
const DATAGRAM: usize = 2048;
/// Datagrams taken from one socket before the others get their turn.
const BURST: usize = 64;
/// The token of the wake-up descriptor.
const WAKE: u64 = u64::MAX;

/// One bound pair.
pub(crate) struct Pair {
    pub id: PairId,
    pub rtp: UdpSocket,
    pub rtcp: UdpSocket,
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
        let worker = Worker { epoll, wake, pairs, index, commands, engine, out: Out::default() };
        Ok((worker, waker))
    }

    /// Runs until the queue's sender is gone.
    pub fn run(mut self, core: Option<usize>, on_event: impl Fn(Event)) {
        if let Some(core) = core {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            // Not being pinned costs a little speed, nothing else.
            let _ = rustix::thread::sched_setaffinity(None, &set);
        }
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(256);
        let mut buffer = [0u8; DATAGRAM];
        loop {
            let wait = self.engine.next_deadline().map(|at| {
                let left = at.saturating_duration_since(Instant::now());
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
            });
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let now = Instant::now();
            for event in &ready {
                match event.data.u64() {
                    WAKE => {
                        if !self.commands(now) {
                            return;
                        }
                    }
                    token => self.drain(now, token, &mut buffer),
                }
            }
            self.engine.timeout(now, &mut self.out);
            self.flush(&[]);
            for event in self.out.events.drain(..) {
                on_event(event);
            }
        }
    }

    /// `false`: nobody commands any more.
    fn commands(&mut self, now: Instant) -> bool {
        let mut count = [0u8; 8];
        let _ = (&self.wake).read(&mut count);
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    self.engine.command(now, command, &mut self.out);
                    self.flush(&[]);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn drain(&mut self, now: Instant, token: u64, buffer: &mut [u8; DATAGRAM]) {
        let channel = if token & 1 == 0 { Channel::Rtp } else { Channel::Rtcp };
        for _ in 0..BURST {
            let Some(pair) = self.pairs.get((token >> 1) as usize) else { return };
            let socket = if token & 1 == 0 { &pair.rtp } else { &pair.rtcp };
            let (length, from) = match socket.recv_from(buffer) {
                Ok(received) => received,
                // An ICMP error of an earlier send comes up here once; then the socket reads on.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            self.engine.receive(now, pair.id, channel, from, &buffer[..length], &mut self.out);
            self.flush(&buffer[..length]);
        }
    }

    /// Sends what the engine wants sent; `input` is the datagram it was given last. A full socket loses a packet.
    fn flush(&mut self, input: &[u8]) {
        for send in self.out.sends.drain(..) {
            let pair = self.index.get(send.pair.0 as usize).and_then(|at| self.pairs.get(*at as usize));
            let Some(pair) = pair else { continue };
            let socket = match send.channel {
                Channel::Rtp => pair.rtp.as_fd(),
                Channel::Rtcp => pair.rtcp.as_fd(),
            };
            let tail = match &send.tail {
                Tail::Input => input.get(send.head.len()..).unwrap_or_default(),
                Tail::Owned(bytes) => bytes,
            };
            let slices = [IoSlice::new(&send.head), IoSlice::new(tail)];
            let _ = sendmsg_addr(socket, &send.to, &slices, &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT);
        }
    }
}
