//! Starting and stopping the workers, and the stock of bound sockets they share out (D-18, D-22).

#![allow(clippy::disallowed_methods)] // a shell: owns threads

use crate::command::{Command, Event, PairId, WorkerId};
use crate::worker::{Pair, Worker};
use rustix::fd::AsFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Commands that may wait for a worker; more means it does not keep up.
const QUEUE: usize = 4096;
/// Receive buffer of a media socket: a key frame of 100 packets with the kernel's bookkeeping. Idle sockets are drained, so
/// this is not memory that sits there.
const RECEIVE_BUFFER: usize = 256 << 10;
/// Descriptors the rest of the server needs.
const SPARE_DESCRIPTORS: u64 = 512;

/// What to start.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    pub bind_ip: IpAddr,
    /// RTP ports are the even ones, RTCP the one above.
    pub ports: RangeInclusive<u16>,
    pub workers: u16,
}

/// Why the pool cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("media.ports {from}-{to}: no pair of ports could be bound on {ip}: {source}")]
    NoPairs { ip: IpAddr, from: u16, to: u16, source: io::Error },
    #[error("media worker: {0}")]
    Worker(#[from] io::Error),
}

/// What the pool came up with.
#[derive(Debug)]
pub struct Bound {
    /// For [`crate::ports::PortStock::new`].
    pub pairs: Vec<(PairId, u16, WorkerId)>,
    /// Pairs of the range that could not be had, and why the first of them.
    pub missing: usize,
    pub warning: Option<String>,
}

/// A worker's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("media worker does not keep up")]
pub struct Full;

struct Handle {
    commands: Option<SyncSender<Command>>,
    wake: File,
    thread: Option<JoinHandle<()>>,
}

/// The running workers; dropping it stops them.
pub struct Pool {
    workers: Vec<Handle>,
}

impl Pool {
    /// Binds the range, shares it out and starts the threads. `on_event` runs on a worker's thread and may wait a little.
    pub fn start(config: &PoolConfig, on_event: impl Fn(Event) + Send + Clone + 'static) -> Result<(Pool, Bound), PoolError> {
        let count = config.workers.max(1);
        let mut shares: Vec<Vec<Pair>> = (0..count).map(|_| Vec::new()).collect();
        let bound = bind(config, &mut shares)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut workers = Vec::new();
        for (index, share) in shares.into_iter().enumerate() {
            let (commands, receiver) = sync_channel(QUEUE);
            let (worker, wake) = Worker::new(share, receiver)?;
            let on_event = on_event.clone();
            // The last cores: the kernel likes to put everything else on the first.
            let core = (usize::from(count) < cores).then(|| cores - 1 - index);
            let thread = std::thread::Builder::new().name(format!("media-{index}")).spawn(move || worker.run(core, on_event))?;
            workers.push(Handle { commands: Some(commands), wake, thread: Some(thread) });
        }
        Ok((Pool { workers }, bound))
    }

    /// Hands a command to the worker that owns the session's pairs.
    pub fn send(&self, worker: WorkerId, command: Command) -> Result<(), Full> {
        let handle = self.workers.get(usize::from(worker.0)).ok_or(Full)?;
        handle.commands.as_ref().ok_or(Full)?.try_send(command).map_err(|_| Full)?;
        // A full eventfd is awake already.
        let _ = (&handle.wake).write_all(&1u64.to_ne_bytes());
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.commands = None;
            let _ = (&worker.wake).write_all(&1u64.to_ne_bytes());
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // A worker that panicked has nothing left to clean up.
                let _ = thread.join();
            }
        }
    }
}

/// Binds as many pairs as ports and descriptors allow, in turn for each worker.
fn bind(config: &PoolConfig, shares: &mut [Vec<Pair>]) -> Result<Bound, PoolError> {
    let (from, to) = (*config.ports.start(), *config.ports.end());
    let wanted: Vec<u16> = config.ports.clone().filter(|port| port % 2 == 0 && *port < to).collect();
    let room = raise_descriptor_limit().saturating_sub(SPARE_DESCRIPTORS) / 2;
    let mut bound = Bound { pairs: Vec::new(), missing: 0, warning: None };
    let mut first_error = None;
    for port in &wanted {
        if bound.pairs.len() as u64 >= room {
            first_error.get_or_insert_with(|| io::Error::other("the limit of open files (RLIMIT_NOFILE) is too low"));
            break;
        }
        let pair = socket(config.bind_ip, *port).and_then(|rtp| Ok((rtp, socket(config.bind_ip, port + 1)?)));
        match pair {
            Ok((rtp, rtcp)) => {
                let id = PairId(bound.pairs.len() as u32);
                let worker = bound.pairs.len() % shares.len();
                shares[worker].push(Pair { id, rtp, rtcp });
                bound.pairs.push((id, *port, WorkerId(worker as u16)));
            }
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    bound.missing = wanted.len() - bound.pairs.len();
    if bound.pairs.is_empty() {
        let source = first_error.unwrap_or_else(|| io::Error::other("the range holds no even port with its next one"));
        return Err(PoolError::NoPairs { ip: config.bind_ip, from, to, source });
    }
    bound.warning = first_error.map(|error| {
        format!("media.ports {from}-{to}: {} of {} port pairs are not available: {error}", bound.missing, wanted.len())
    });
    Ok(bound)
}

fn socket(ip: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(ip, port);
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    crate::sys::enable_gro(socket.as_fd());
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Raises the soft limit of open files to the hard one and says what it is then.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum;
    if setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).is_ok() {
        return hard.unwrap_or(u64::MAX);
    }
    limit.current.unwrap_or(u64::MAX)
}
