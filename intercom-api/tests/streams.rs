//! SIP over real connections: TCP, TLS, WebSocket and secure WebSocket, with what a peer may do wrong on them.

#![allow(clippy::disallowed_methods)] // real sockets, in real time

use bytes::Bytes;
use fixtures::certificate;
use fixtures::process::{Folder, wait_until};
use fixtures::server::{Server, password};
use futures_util::{SinkExt, StreamExt};
use intercom_api::softphone::{Agent, AgentConfig, AgentEvent, AgentOut};
use intercom_api::transport::listener::{Gate, Limits, Listener};
use intercom_api::transport::{Counter, Counts, Incoming};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sip_core::flow::{Flow, Transport};
use sip_core::framing::{Frame, Framer};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

const PATIENCE: Duration = Duration::from_secs(10);
const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 30000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
type Connected = Box<dyn Stream>;

/// A server with all transports, and the certificate its peers trust.
struct House {
    server: Server,
    folder: Folder,
}

impl House {
    fn new(block: u8) -> House {
        let ip = format!("127.0.{block}.1");
        let folder = Folder::new("streams");
        certificate::write(folder.path(), &ip);
        let (any, path) = (format!("{ip}:0"), |name: &str| folder.path().join(name).display().to_string());
        let settings = [("SIP__TLS", any.as_str()), ("SIP__WS", &any), ("SIP__WSS", &any)];
        let files = [("TLS__CERT", &*path("cert.pem")), ("TLS__KEY", &*path("key.pem"))];
        let settings = [settings.as_slice(), &files].concat();
        let server = Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), &ip, "10000-10099", &settings);
        server.provision(&[("door", 1), ("p1", 0), ("p2", 0)], "room", &["p1", "p2"]);
        House { server, folder }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.server.sip_of("tcp")).await.expect("a connection")
    }

    /// A TLS connection that trusts the certificate that lies there now.
    async fn tls(&self, stream: TcpStream) -> std::io::Result<Connected> {
        let mut roots = RootCertStore::empty();
        let cert = CertificateDer::from_pem_file(self.folder.path().join("cert.pem")).expect("a certificate");
        roots.add(cert).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::from(stream.peer_addr()?.ip());
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }

    async fn phone(&self, transport: Transport, number: &str) -> Phone {
        let address = self.server.sip_of(transport.name());
        let secure = matches!(transport, Transport::Tls | Transport::Wss);
        let stream = TcpStream::connect(address).await.expect("a connection");
        let local = stream.local_addr().expect("an address");
        let stream: Connected = if secure { self.tls(stream).await.expect("TLS") } else { Box::new(stream) };
        let wire = if matches!(transport, Transport::Ws | Transport::Wss) {
            Wire::WebSocket(Box::new(web_socket(stream, address, Some("sip")).await.expect("a WebSocket")))
        } else {
            Wire::Bytes(stream, Framer::new(address))
        };
        let config = AgentConfig {
            number: number.to_owned(),
            password: password(number),
            domain: address.ip().to_string(),
            flow: Flow { transport, local, remote: address },
            seed: [number.len() as u8 + number.as_bytes()[1]; 32],
            supported: "",
            session_expires: None,
        };
        Phone { agent: Agent::new(config), wire }
    }

    /// The flow an account is registered over; empty when it is not.
    fn flow_of(&self, account: &str) -> String {
        let registered = self.server.api("GET", "/v1/registrations", None);
        let found = registered.as_array().and_then(|all| all.iter().find(|one| one["account"] == account).cloned());
        found.and_then(|one| Some(one["flow"].as_str()?.to_owned())).unwrap_or_default()
    }
}

async fn web_socket(
    stream: Connected,
    address: SocketAddr,
    subprotocol: Option<&'static str>,
) -> Result<WebSocketStream<Connected>, tokio_tungstenite::tungstenite::Error> {
    let mut request = format!("ws://{address}/").into_client_request()?;
    if let Some(subprotocol) = subprotocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(subprotocol));
    }
    client_async(request, stream).await.map(|(socket, _)| socket)
}

enum Wire {
    Bytes(Connected, Framer),
    WebSocket(Box<WebSocketStream<Connected>>),
}

impl Wire {
    async fn send(&mut self, bytes: Bytes) {
        match self {
            Wire::Bytes(stream, _) => stream.write_all(&bytes).await.expect("it is sent"),
            Wire::WebSocket(socket) => {
                let text = String::from_utf8(bytes.to_vec()).expect("text");
                socket.send(Message::text(text)).await.expect("it is sent");
            }
        }
    }

    async fn receive(&mut self) -> Bytes {
        match self {
            Wire::Bytes(stream, framer) => loop {
                match framer.pop().expect("the server sends messages") {
                    Some(Frame::Message(bytes)) => return bytes,
                    Some(Frame::Ping | Frame::Pong) => {}
                    None => {
                        let mut chunk = [0; 4096];
                        let count = stream.read(&mut chunk).await.expect("a read");
                        assert!(count > 0, "the server closed the connection");
                        framer.push(&chunk[..count]);
                    }
                }
            },
            Wire::WebSocket(socket) => loop {
                if let Message::Text(text) = socket.next().await.expect("a message").expect("a message") {
                    return Bytes::from(text);
                }
            },
        }
    }
}

struct Phone {
    agent: Agent,
    wire: Wire,
}

impl Phone {
    async fn act(&mut self, act: impl FnOnce(&mut Agent, Instant, &mut AgentOut)) -> Vec<AgentEvent> {
        let mut out = AgentOut::default();
        act(&mut self.agent, Instant::now(), &mut out);
        for transmit in out.transmits {
            self.wire.send(transmit.bytes).await;
        }
        out.events
    }

    /// Goes on until this happens.
    async fn until(&mut self, what: &str, wanted: impl Fn(&AgentEvent) -> bool) {
        let heard = async {
            loop {
                let message = self.wire.receive().await;
                let events = self.act(|agent, now, out| agent.receive(now, message, out)).await;
                if events.iter().any(&wanted) {
                    return;
                }
            }
        };
        timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("no {what}"));
    }

    async fn register(&mut self) {
        self.act(|agent, now, out| agent.register(now, out)).await;
        self.until("registration", |event| matches!(event, AgentEvent::Registered)).await;
    }
}

/// Registers, is found at its flow, and is forgotten when the connection is gone.
async fn comes_and_goes(house: &House, transport: Transport) {
    let mut phone = house.phone(transport, "p1").await;
    phone.register().await;
    // The answer leaves before the read model learns of it.
    assert!(wait_until(PATIENCE, || house.flow_of("p1").starts_with(&format!("{transport}:"))), "{}", house.flow_of("p1"));
    phone.act(|agent, now, out| agent.register(now, out)).await;
    phone.until("refresh", |event| matches!(event, AgentEvent::Registered)).await;
    drop(phone);
    assert!(wait_until(PATIENCE, || house.flow_of("p1").is_empty()), "{transport}: {}", house.flow_of("p1"));
}

#[tokio::test]
async fn a_phone_registers_over_tcp() {
    comes_and_goes(&House::new(101), Transport::Tcp).await;
}

#[tokio::test]
async fn a_phone_registers_over_tls() {
    comes_and_goes(&House::new(102), Transport::Tls).await;
}

#[tokio::test]
async fn a_phone_registers_over_web_socket() {
    comes_and_goes(&House::new(103), Transport::Ws).await;
}

#[tokio::test]
async fn a_phone_registers_over_secure_web_socket() {
    comes_and_goes(&House::new(104), Transport::Wss).await;
}

#[tokio::test]
async fn a_door_on_tcp_rings_phones_on_web_socket_and_tls() {
    let house = House::new(105);
    let (mut door, mut first, mut second) = (
        house.phone(Transport::Tcp, "door").await,
        house.phone(Transport::Ws, "p1").await,
        house.phone(Transport::Tls, "p2").await,
    );
    first.register().await;
    second.register().await;
    door.act(|agent, now, out| agent.call(now, "room", Bytes::from(SDP), out)).await;
    door.until("early dialog", |event| matches!(event, AgentEvent::Progress { code: 183, .. })).await;
    for phone in [&mut first, &mut second] {
        phone.until("ring", |event| matches!(event, AgentEvent::Incoming { .. })).await;
        phone.act(|agent, now, out| agent.answer(now, 180, None, out)).await;
    }
    first.act(|agent, now, out| agent.answer(now, 200, Some(SDP.as_bytes()), out)).await;
    second.until("end of the ring", |event| matches!(event, AgentEvent::Cancelled)).await;
    door.until("answer", |event| matches!(event, AgentEvent::Answered { .. })).await;
    door.act(|agent, now, out| agent.hang_up(now, out)).await;
    first.until("end", |event| matches!(event, AgentEvent::Ended)).await;
    let mut call = serde_json::Value::Null;
    let ended = wait_until(PATIENCE, || {
        call = house.server.api("GET", "/v1/calls", None)[0].clone();
        call["state"] == "ended"
    });
    assert!(ended && call["answered_by"] == "p1" && call["end_reason"] == "caller hung up", "{call:#}");
}

fn options(number: u32, extra: &str) -> String {
    format!(
        "OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKo{number};rport\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:x>\r\nCall-ID: o{number}\r\nCSeq: 1 OPTIONS\r\n{extra}\r\n"
    )
}

/// Everything the server says until it closes.
async fn last_words(mut stream: impl AsyncRead + Unpin) -> String {
    let mut words = Vec::new();
    // A reset after the words is as good as an end.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut words)).await.expect("the server closes");
    String::from_utf8(words).expect("text")
}

#[tokio::test]
async fn bytes_one_by_one_and_all_at_once_are_the_same_messages() {
    let house = House::new(106);
    let message = |number| options(number, "Content-Length: 0\r\n");
    let mut stream = house.tcp().await;
    for byte in message(1).bytes() {
        stream.write_all(&[byte]).await.expect("it is sent");
        stream.flush().await.expect("it is sent");
    }
    let together = format!("\r\n\r\n{}\r\n{}\r\n\r\n", message(2), message(3));
    stream.write_all(together.as_bytes()).await.expect("it is sent");
    let mut wire = Wire::Bytes(Box::new(stream), Framer::new(house.server.sip_of("tcp")));
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = timeout(PATIENCE, wire.receive()).await.expect("an answer");
        let answer = sip_core::message::Message::parse(answer).expect("an answer");
        answers.extend(answer.call_id().map(str::to_owned));
    }
    answers.sort();
    assert_eq!(answers, ["o1", "o2", "o3"]);
}

#[tokio::test]
async fn pings_are_answered() {
    let house = House::new(107);
    let mut stream = house.tcp().await;
    stream.write_all(b"\r\n\r\n").await.expect("it is sent");
    let mut pong = [0; 2];
    timeout(PATIENCE, stream.read_exact(&mut pong)).await.expect("in time").expect("a pong");
    assert_eq!(&pong, b"\r\n");
    let socket: Connected = Box::new(TcpStream::connect(house.server.sip_of("ws")).await.expect("a connection"));
    let mut socket = web_socket(socket, house.server.sip_of("ws"), Some("sip")).await.expect("a WebSocket");
    socket.send(Message::text("\r\n\r\n")).await.expect("it is sent");
    let pong = timeout(PATIENCE, socket.next()).await.expect("in time").expect("a pong").expect("a pong");
    assert_eq!(pong, Message::text("\r\n"));
}

#[tokio::test]
async fn what_is_too_much_is_answered_and_closed() {
    let house = House::new(108);
    for (name, text, answer) in [
        ("1 MiB", options(1, "Content-Length: 1048576\r\n") + &"x".repeat(1 << 20), "SIP/2.0 413 "),
        ("a header of 64 KiB", options(2, &format!("X: {}\r\n", "x".repeat(65_536))), "SIP/2.0 513 "),
        ("no length", options(3, ""), "SIP/2.0 400 "),
        ("10,000 headers", options(4, &("X: 1\r\n".repeat(10_000) + "Content-Length: 0\r\n")), ""),
        ("no SIP", "GET / HTTP/1.1\r\n\r\n".to_owned(), ""),
    ] {
        let mut stream = house.tcp().await;
        // The server may be gone before all of it is sent.
        let _ = stream.write_all(text.as_bytes()).await;
        let words = last_words(stream).await;
        assert!(words.starts_with(answer) && words.is_empty() == answer.is_empty(), "{name}: {words}");
    }
    let address = house.server.sip_of("ws");
    let socket: Connected = Box::new(TcpStream::connect(address).await.expect("a connection"));
    let mut socket = web_socket(socket, address, Some("sip")).await.expect("a WebSocket");
    let _ = socket.send(Message::text("x".repeat(70_000))).await;
    let end = timeout(PATIENCE, socket.next()).await.expect("the server closes");
    assert!(!matches!(end, Some(Ok(Message::Text(_)))), "{end:?}");
}

#[tokio::test]
async fn a_web_socket_for_something_else_is_refused() {
    let house = House::new(109);
    let address = house.server.sip_of("ws");
    for subprotocol in [None, Some("chat")] {
        let socket: Connected = Box::new(TcpStream::connect(address).await.expect("a connection"));
        let refused = web_socket(socket, address, subprotocol).await.err().expect("it is refused");
        assert!(refused.to_string().contains("400"), "{refused}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_after_sighup_and_a_bad_one_is_not() {
    let house = House::new(110);
    let (address, ip) = (house.server.sip_of("tls"), "127.0.110.1");
    let connect = || async { TcpStream::connect(address).await.expect("a connection") };
    let _old = house.tls(connect().await).await.expect("the first certificate");
    let before = std::fs::read(house.folder.path().join("cert.pem")).expect("a file");
    certificate::write(house.folder.path(), ip);
    assert!(house.tls(connect().await).await.is_err(), "not before it is told");
    house.server.reload();
    assert!(wait_until(PATIENCE, || house.server.log().contains("the certificate was read again")), "{}", house.server.log());
    house.tls(connect().await).await.expect("the new certificate");
    let good = std::fs::read(house.folder.path().join("cert.pem")).expect("a file");
    std::fs::write(house.folder.path().join("cert.pem"), before).expect("a file");
    house.server.reload();
    assert!(wait_until(PATIENCE, || house.server.log().contains("do not fit")), "{}", house.server.log());
    std::fs::write(house.folder.path().join("cert.pem"), good).expect("a file");
    house.tls(connect().await).await.expect("the certificate before");
    assert!(!house.server.log().contains("PRIVATE KEY"));
}

/// A listener of our own, with patience in milliseconds.
struct Alone {
    counts: Arc<Counts>,
    incoming: mpsc::Receiver<Incoming>,
    address: SocketAddr,
}

impl Alone {
    fn new(transport: Transport, limits: Limits) -> Alone {
        let counts = Arc::new(Counts::default());
        let gate = Gate::new(limits, counts.clone());
        let listener = Listener::bind(transport, "127.0.0.1:0".parse().expect("an address"), None, gate).expect("a socket");
        let (queue, incoming) = mpsc::channel(64);
        let address = listener.local();
        tokio::spawn(listener.run(queue));
        Alone { counts, incoming, address }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    async fn next(&mut self) -> Incoming {
        timeout(PATIENCE, self.incoming.recv()).await.expect("in time").expect("news")
    }

    /// Waits until this was counted so often.
    async fn counted(&self, counter: Counter, count: u64) {
        let counted = async {
            while self.counts.get(counter) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{}: {:?}", counter.name(), self.counts.counts()));
    }
}

#[tokio::test]
async fn connections_that_say_nothing_or_not_enough_are_closed() {
    let limits = Limits { half_open: Duration::from_millis(100), idle: Duration::from_millis(300), ..Limits::default() };
    let mut alone = Alone::new(Transport::Tcp, limits);
    let _silent = alone.connect().await;
    alone.counted(Counter::HalfOpen, 1).await;
    let mut slow = alone.connect().await;
    // Pings are no message, and half a message is none.
    slow.write_all(b"\r\n\r\nOPTIONS sip:x").await.expect("it is sent");
    alone.counted(Counter::HalfOpen, 2).await;
    let mut idle = alone.connect().await;
    idle.write_all(options(1, "Content-Length: 0\r\n").as_bytes()).await.expect("it is sent");
    // The SIP thread lets go of none of them.
    let (mut open, mut closed) = (Vec::new(), 0);
    while closed < 3 {
        match alone.next().await {
            Incoming::Opened(opened) => open.push(opened),
            Incoming::Message(..) => {}
            Incoming::Closed { .. } => closed += 1,
        }
    }
    alone.counted(Counter::Idle, 1).await;
    let alone = Alone::new(Transport::Ws, limits);
    let _silent = alone.connect().await;
    alone.counted(Counter::HalfOpen, 1).await;
}

#[tokio::test]
async fn one_source_gets_its_share_and_all_together_theirs() {
    let alone = Alone::new(Transport::Tcp, Limits { per_source: 2, ..Limits::default() });
    let first = alone.connect().await;
    let _second = alone.connect().await;
    alone.counted(Counter::Opened, 2).await;
    let third = alone.connect().await;
    assert_eq!(last_words(third).await, "");
    alone.counted(Counter::LimitPerSource, 1).await;
    drop(first);
    alone.counted(Counter::ClosedByPeer, 1).await;
    let _fourth = alone.connect().await;
    alone.counted(Counter::Opened, 3).await;
    let alone = Alone::new(Transport::Tcp, Limits { total: 1, ..Limits::default() });
    let _first = alone.connect().await;
    alone.counted(Counter::Opened, 1).await;
    assert_eq!(last_words(alone.connect().await).await, "");
    alone.counted(Counter::LimitTotal, 1).await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_let_go() {
    let mut alone = Alone::new(Transport::Tcp, Limits { write: Duration::from_millis(100), ..Limits::default() });
    let _deaf = alone.connect().await;
    let Incoming::Opened(opened) = alone.next().await else { panic!("it is open") };
    let message = Bytes::from(vec![b'x'; 60_000]);
    while let Ok(()) = opened.messages.try_send(message.clone()) {
        tokio::task::yield_now().await;
    }
    alone.counted(Counter::WriteStuck, 1).await;
    assert!(opened.messages.try_send(message).is_err());
    assert!(matches!(alone.next().await, Incoming::Closed { .. }));
}

#[tokio::test]
async fn a_web_socket_that_answers_no_ping_is_closed() {
    let limits = Limits { ping: Duration::from_millis(50), ..Limits::default() };
    let mut alone = Alone::new(Transport::Ws, limits);
    let stream: Connected = Box::new(alone.connect().await);
    let mut socket = web_socket(stream, alone.address, Some("sip")).await.expect("a WebSocket");
    let Incoming::Opened(_opened) = alone.next().await else { panic!("it is open") };
    // Reading answers pings; five of them go by.
    for _ in 0..5 {
        assert!(matches!(socket.next().await, Some(Ok(Message::Ping(_)))));
    }
    assert_eq!(alone.counts.get(Counter::PingUnanswered), 0);
    alone.counted(Counter::PingUnanswered, 1).await;
}
