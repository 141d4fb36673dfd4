//! One connection: handshakes, then messages both ways until somebody ends it. It is announced to the SIP thread when it can
//! carry messages, and its end is told exactly once.

#![allow(clippy::disallowed_methods)] // a shell: owns a socket and reads the clock

use super::{Counter, Counts, Incoming, Opened, ws};
use bytes::Bytes;
use rustls::ServerConfig;
use sip_core::flow::{Flow, Transport};
use sip_core::framing::{Broken, Fault, Frame, Framer};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

/// Read at once: most messages are no longer, and every idle connection holds so much.
const CHUNK: usize = 2048;
/// How long a peer that was sent an answer and our end of the stream may take to read it. Closing at once with bytes unread
/// would reset the connection and take the answer back.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection knows of itself and the world.
pub(super) struct Connection {
    pub flow: Flow,
    pub id: u64,
    pub limits: super::listener::Limits,
    pub counts: Arc<Counts>,
    pub queue: mpsc::Sender<Incoming>,
}

/// Why it ended.
pub(super) type End = Counter;

/// Carries one accepted connection from its first byte to its last.
pub(super) async fn run(connection: Connection, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
    let end = match tls {
        None => carry(&connection, stream).await,
        Some(config) => match timeout(connection.limits.half_open, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => carry(&connection, stream).await,
            Ok(Err(_)) => Counter::HandshakeFailed,
            Err(_) => Counter::HalfOpen,
        },
    };
    connection.counts.add(end);
    tracing::debug!(flow = %connection.flow, why = end.name(), "connection closed");
}

async fn carry(connection: &Connection, stream: impl AsyncRead + AsyncWrite + Unpin) -> End {
    match connection.flow.transport {
        Transport::Ws | Transport::Wss => ws::carry(connection, stream).await,
        Transport::Tcp | Transport::Tls | Transport::Udp => {
            let Some(outbox) = connection.open().await else { return Counter::ClosedByUs };
            let end = talk(connection, stream, outbox).await;
            connection.close().await;
            end
        }
    }
}

impl Connection {
    /// Announces it; messages for the peer come out of the queue. `None`: the SIP thread is gone.
    pub async fn open(&self) -> Option<mpsc::Receiver<Bytes>> {
        let (messages, outbox) = mpsc::channel(self.limits.write_queue);
        self.queue.send(Incoming::Opened(Opened { flow: self.flow, id: self.id, messages })).await.ok()?;
        self.counts.add(Counter::Opened);
        Some(outbox)
    }

    pub async fn close(&self) {
        // Nobody to tell when the SIP thread is gone.
        let _ = self.queue.send(Incoming::Closed { flow: self.flow, id: self.id }).await;
    }

    /// Hands a message over; a busy SIP thread makes the peer wait. `false`: it is gone.
    pub async fn deliver(&self, message: Bytes) -> bool {
        self.queue.send(Incoming::Message(self.flow, message)).await.is_ok()
    }
}

/// Messages both ways on a stream of bytes.
async fn talk(
    connection: &Connection,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut outbox: mpsc::Receiver<Bytes>,
) -> End {
    let limits = connection.limits;
    let mut framer = Framer::new(connection.flow.remote);
    let mut chunk = vec![0; CHUNK];
    let mut deadline = Instant::now() + limits.half_open;
    let (mut half_open, mut spoken) = (true, false);
    loop {
        tokio::select! {
            read = stream.read(&mut chunk) => {
                let Ok(count @ 1..) = read else { return Counter::ClosedByPeer };
                framer.push(&chunk[..count]);
                let mut heard = false;
                loop {
                    match framer.pop() {
                        Ok(Some(Frame::Message(message))) => {
                            heard = true;
                            if !connection.deliver(message).await {
                                return Counter::ClosedByUs;
                            }
                        }
                        Ok(Some(Frame::Ping)) => {
                            if let Err(end) = write(&mut stream, b"\r\n", limits.write).await {
                                return end;
                            }
                        }
                        Ok(Some(Frame::Pong)) => {}
                        Ok(None) => break,
                        Err(broken) => return refuse(stream, broken).await,
                    }
                }
                // A message that trickles in byte by byte gets no more time with each of them.
                spoken |= heard;
                let was_half_open = std::mem::replace(&mut half_open, !spoken || framer.is_amid_message());
                if !half_open {
                    deadline = Instant::now() + limits.idle;
                } else if heard || !was_half_open {
                    deadline = Instant::now() + limits.half_open;
                }
            }
            message = outbox.recv() => {
                let Some(message) = message else { return Counter::ClosedByUs };
                if let Err(end) = write(&mut stream, &message, limits.write).await {
                    return end;
                }
            }
            () = sleep_until(deadline) => return if half_open { Counter::HalfOpen } else { Counter::Idle },
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], patience: Duration) -> Result<(), End> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    match timeout(patience, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Counter::ClosedByPeer),
        Err(_) => Err(Counter::WriteStuck),
    }
}

/// Tells the peer what is wrong where that is possible, and lets it read that.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, broken: Broken) -> End {
    if let Some(answer) = broken.answer {
        let told = async {
            stream.write_all(&answer).await?;
            stream.flush().await?;
            stream.shutdown().await?;
            let mut rest = vec![0; CHUNK];
            while stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = timeout(LINGER, told).await;
    }
    match broken.fault {
        Fault::Garbage => Counter::Garbage,
        Fault::HeadTooLong => Counter::HeadTooLong,
        Fault::BodyTooLong => Counter::BodyTooLong,
        Fault::Length => Counter::WithoutLength,
    }
}
