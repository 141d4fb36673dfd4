//! Where HTTP comes in, with TLS or without (`api.tls`): one task per connection, so that a slow client holds up nobody, and
//! bounds on how many there are and how long they may take to say what they want.

#![allow(clippy::disallowed_methods)] // a shell: owns sockets and their tasks

use crate::transport::tls::Tls;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Connections at the same time; further ones wait to be accepted.
const CONNECTIONS: usize = 1024;
/// For the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the head of a request, also of the next one of the same connection.
const HEAD: Duration = Duration::from_secs(30);
/// For requests that are under way when the server stops; streams of events have no end of their own.
const GRACE: Duration = Duration::from_secs(2);

/// The far end of a connection; a request has it as `ConnectInfo<Peer>`.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves until `shutdown`, then ends what is open.
pub async fn serve(mut socket: TcpListener, tls: Option<Arc<Tls>>, router: Router, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (close, closing) = watch::channel(());
    let mut open = JoinSet::new();
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await;
            // Axum's own way to accept waits while there are no descriptors left.
            (place, Listener::accept(&mut socket).await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = open.join_next() => {}
            (place, (stream, peer)) = accept => {
                let connection = connection(stream, peer, tls.clone(), router.clone(), closing.clone());
                open.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
        }
    }
    drop(close);
    // What is left ends with the set.
    let _ = tokio::time::timeout(GRACE, async { while open.join_next().await.is_some() {} }).await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<Arc<Tls>>, router: Router, closing: watch::Receiver<()>) {
    let Some(tls) = tls else { return requests(stream, peer, router, closing).await };
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls.config()).accept(stream)).await {
        requests(stream, peer, router, closing).await;
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    mut closing: watch::Receiver<()>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(Peer(peer)));
        router.call(request)
    });
    let mut connection = pin!(
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEAD).serve_connection(TokioIo::new(stream), service)
    );
    // An error is the client's going away, or its not being HTTP.
    tokio::select! {
        _ = connection.as_mut() => return,
        // The sender is gone: the server stops.
        _ = closing.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
