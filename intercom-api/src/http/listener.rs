//! Where HTTP comes in, with TLS or without (`api.tls`). A handshake is a task of its own: a slow client holds up nobody.

#![allow(clippy::disallowed_methods)] // a shell: owns sockets and their tasks

use crate::transport::tls::Tls;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

/// For one handshake, and how many at the same time.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 256;

/// Bytes of a connection, however they come.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The far end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, Front>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Front>) -> Peer {
        Peer(*stream.remote_addr())
    }
}

/// The listening socket of the API.
pub enum Front {
    Plain(TcpListener),
    /// What has finished its handshake.
    Tls {
        open: mpsc::Receiver<(Box<dyn Io>, SocketAddr)>,
        local: SocketAddr,
    },
}

impl Front {
    /// Needs a tokio runtime.
    pub fn new(socket: TcpListener, tls: Option<Arc<Tls>>) -> io::Result<Front> {
        let Some(tls) = tls else { return Ok(Front::Plain(socket)) };
        let local = socket.local_addr()?;
        let (done, open) = mpsc::channel(64);
        tokio::spawn(shake_hands(socket, tls, done));
        Ok(Front::Tls { open, local })
    }
}

impl Listener for Front {
    type Io = Box<dyn Io>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Box<dyn Io>, SocketAddr) {
        match self {
            Front::Plain(socket) => {
                let (stream, peer) = Listener::accept(socket).await;
                (Box::new(stream), peer)
            }
            Front::Tls { open, .. } => match open.recv().await {
                Some(connection) => connection,
                // Its task is gone with the runtime.
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Front::Plain(socket) => socket.local_addr(),
            Front::Tls { local, .. } => Ok(*local),
        }
    }
}

async fn shake_hands(mut socket: TcpListener, tls: Arc<Tls>, done: mpsc::Sender<(Box<dyn Io>, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(place) = places.clone().acquire_owned().await {
        // Axum's own way to accept waits when there are no descriptors left.
        let (stream, peer): (TcpStream, SocketAddr) = tokio::select! {
            accepted = Listener::accept(&mut socket) => accepted,
            () = done.closed() => return,
        };
        let (acceptor, done) = (TlsAcceptor::from(tls.config()), done.clone());
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // Nobody listens any more.
                let _ = done.send((Box::new(stream), peer)).await;
            }
            drop(place);
        });
    }
}
