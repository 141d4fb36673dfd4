//! Listening sockets of connections, and how many they let in. One task per listener, one per connection.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a shell: owns sockets and their tasks

use super::connection::{self, Connection};
use super::tls::Tls;
use super::{Counter, Counts, Incoming};
use sip_core::flow::{Flow, Transport};
use socket2::{SockRef, TcpKeepalive};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// How many connections, and how patient we are with each.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub total: usize,
    /// Per source address. A building behind one NAT is one source, so it is generous.
    pub per_source: usize,
    /// For the handshakes and the first whole message, and for the rest of a message that has begun.
    pub half_open: Duration,
    /// Without a byte from the peer: longer than the longest registration, so that a phone that sends no keep-alive has
    /// refreshed by then.
    pub idle: Duration,
    /// WebSocket pings; a connection with two unanswered ones is closed.
    pub ping: Duration,
    /// Messages waiting for a peer that does not read.
    pub write_queue: usize,
    /// How long one of them may take.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            total: 16_384,
            per_source: 1024,
            half_open: Duration::from_secs(10),
            idle: Duration::from_secs(7200 + 600),
            ping: Duration::from_secs(25),
            write_queue: 64,
            write: Duration::from_secs(10),
        }
    }
}

/// What all listeners share.
pub struct Gate {
    pub limits: Limits,
    pub counts: Arc<Counts>,
    inside: Mutex<Inside>,
    ids: AtomicU64,
}

#[derive(Default)]
struct Inside {
    total: usize,
    per_source: HashMap<IpAddr, usize>,
}

/// One connection that was let in; gives its place back.
pub(super) struct Pass {
    gate: Arc<Gate>,
    source: IpAddr,
}

impl Gate {
    pub fn new(limits: Limits, counts: Arc<Counts>) -> Arc<Gate> {
        Arc::new(Gate { limits, counts, inside: Mutex::default(), ids: AtomicU64::new(0) })
    }

    fn admit(self: &Arc<Gate>, source: IpAddr) -> Result<Pass, Counter> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.total >= self.limits.total {
            return Err(Counter::LimitTotal);
        }
        let Inside { total, per_source } = &mut *inside;
        let here = per_source.entry(source).or_default();
        if *here >= self.limits.per_source {
            return Err(Counter::LimitPerSource);
        }
        *here += 1;
        *total += 1;
        Ok(Pass { gate: self.clone(), source })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.gate.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.total -= 1;
        if let Some(here) = inside.per_source.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                inside.per_source.remove(&self.source);
            }
        }
    }
}

/// One listening socket.
pub struct Listener {
    socket: TcpListener,
    transport: Transport,
    local: SocketAddr,
    /// For TLS and WSS.
    tls: Option<Arc<Tls>>,
    gate: Arc<Gate>,
}

impl Listener {
    /// Binds; needs a tokio runtime. The error names setting and address.
    pub fn bind(transport: Transport, address: SocketAddr, tls: Option<Arc<Tls>>, gate: Arc<Gate>) -> io::Result<Listener> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("sip.{transport} {address}: {error}"));
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).map_err(named)?;
        socket.set_nonblocking(true).map_err(named)?;
        socket.set_reuse_address(true).map_err(named)?;
        socket.bind(&address.into()).map_err(named)?;
        // After a power cut everybody connects at once.
        socket.listen(4096).map_err(named)?;
        let socket = TcpListener::from_std(socket.into()).map_err(named)?;
        let local = socket.local_addr().map_err(named)?;
        Ok(Listener { socket, transport, local, tls, gate })
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// As bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Accepts until the receiver is gone.
    pub async fn run(self, queue: mpsc::Sender<Incoming>) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = queue.closed() => return,
            };
            match accepted {
                Ok((stream, remote)) => self.accepted(stream, remote, &queue),
                Err(_) => {
                    // Out of descriptors: closing connections is what helps, not asking again at once.
                    self.gate.counts.add(Counter::AcceptFailed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn accepted(&self, stream: TcpStream, remote: SocketAddr, queue: &mpsc::Sender<Incoming>) {
        let pass = match self.gate.admit(remote.ip()) {
            Ok(pass) => pass,
            Err(limit) => {
                tracing::debug!(%remote, limit = limit.name(), "connection refused");
                return self.gate.counts.add(limit);
            }
        };
        let Ok(local) = stream.local_addr() else { return };
        let _ = stream.set_nodelay(true);
        // A peer that vanished is found by the kernel within two minutes.
        let keepalive =
            TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let connection = Connection {
            flow: Flow { transport: self.transport, local, remote },
            id: self.gate.ids.fetch_add(1, Ordering::Relaxed),
            limits: self.gate.limits,
            counts: self.gate.counts.clone(),
            queue: queue.clone(),
        };
        let tls = self.tls.as_ref().map(|tls| tls.config());
        tokio::spawn(async move {
            connection::run(connection, stream, tls).await;
            drop(pass);
        });
    }
}
