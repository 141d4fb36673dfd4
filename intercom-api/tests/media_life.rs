//! Media over the life of a call, with the real server and real sockets: foreign packets over the whole port range, a phone that
//! changes its network, IPv6, a phone without video. And what an installer reads in `/v1/calls`.

#![allow(clippy::disallowed_methods)] // a test with real sockets and a real clock

mod board;

use board::{Board, DOOR, OFFER, PHONE, answers, header};
use fixtures::server::{Server, password};
use intercom_api::live::CallView;
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role, Tally};
use intercom_api::turn::{Effect, Publication};
use media::command::{Command, Event, LegPlan, LegReport, StreamReport};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(30);

struct Unit {
    orders: mpsc::UnboundedSender<Order>,
    events: mpsc::UnboundedReceiver<(Instant, Happened)>,
}

impl Unit {
    async fn start(server: &Server, number: &str, ip: &str, role: Role) -> Unit {
        let ip: IpAddr = ip.parse().unwrap();
        let host = server.sip.ip();
        let config = DeviceConfig {
            number: number.to_owned(),
            password: password(number),
            domain: if host.is_ipv6() { format!("[{host}]") } else { host.to_string() },
            server: server.sip,
            ip,
            role,
            decode: false,
            lose: 0,
            seed: std::array::from_fn(|n| (n as u8) ^ number.as_bytes()[number.len() - 1]),
        };
        let (orders, events) = Device::start(config).await.unwrap();
        let mut unit = Unit { orders, events };
        unit.order(Order::Register);
        unit.waits("registers", |happened| matches!(happened, Happened::Registered).then_some(())).await;
        unit
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    async fn waits<T>(&mut self, what: &str, wanted: impl Fn(&Happened) -> Option<T>) -> T {
        let hears = async {
            loop {
                let (_, happened) = self.events.recv().await.expect("the unit lives");
                if let Some(found) = wanted(&happened) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, hears).await.unwrap_or_else(|_| panic!("never {what}"))
    }

    async fn report(&mut self) -> Tally {
        self.order(Order::Report);
        self.waits("reports", |happened| if let Happened::Report(tally) = happened { Some(*tally) } else { None }).await
    }

    /// Until it has heard so many packets more of a tone, without a single one of anything else.
    async fn hears(&mut self, hz: u16, packets: u64) {
        let end = Instant::now() + PATIENCE;
        let begin = self.report().await;
        loop {
            let now = self.report().await;
            if now.audio_packets >= begin.audio_packets + packets && now.tone.is_some_and(|(tone, n)| tone == hz && n >= packets)
            {
                return;
            }
            assert!(Instant::now() < end, "it does not hear {hz} Hz: {begin:?}, {now:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A door rings a room of one phone, which answers; both hear each other.
async fn talk(server: &Server, door_ip: &str, phone_ip: &str) -> (Unit, Unit) {
    server.provision(&[("door", 1), ("101", 0)], "room", &["101"]);
    let mut phone = Unit::start(server, "101", phone_ip, Role::Phone { early: true }).await;
    let mut door = Unit::start(server, "door", door_ip, Role::Door(Clip::test_picture())).await;
    door.order(Order::Call("room".into()));
    phone.waits("sees a picture", |happened| matches!(happened, Happened::FirstPicture).then_some(())).await;
    phone.order(Order::Answer);
    door.waits("is answered", |happened| matches!(happened, Happened::Answered).then_some(())).await;
    door.hears(600, 10).await;
    phone.hears(1000, 10).await;
    (door, phone)
}

fn call(server: &Server) -> Value {
    server.api("GET", "/v1/calls", None)[0].clone()
}

/// Where the phone's audio goes.
fn sends_to(server: &Server) -> String {
    call(server)["legs"][1]["audio"]["sends_to"].as_str().unwrap_or_default().to_owned()
}

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_doorline"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_changes_its_network_in_a_talk_and_both_go_on_hearing() {
    let server = Server::start(binary(), "127.0.0.111", "11000-11039", &[]);
    let (mut door, mut phone) = talk(&server, "127.0.11.1", "127.0.11.2").await;
    phone.order(Order::MoveAudio("127.0.11.3".parse().unwrap()));
    phone.hears(1000, 25).await;
    door.hears(600, 25).await;
    assert!(fixtures::process::wait_until(PATIENCE, || sends_to(&server).starts_with("127.0.11.3:")));
    assert_eq!(call(&server)["state"], "answered");
    assert!(server.stop());
}

/// Twenty thousand datagrams; `SPRAY=1000000` for the long run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spray_over_the_port_range_reaches_nobody_and_gets_nothing() {
    let count: u32 = std::env::var("SPRAY").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let server = Server::start(binary(), "127.0.0.112", "11100-11139", &[]);
    let (mut door, mut phone) = talk(&server, "127.0.12.1", "127.0.12.2").await;
    // From strange addresses, and from those of the door and the phone themselves.
    let sockets = ["127.0.12.9", "127.0.12.9", "127.0.12.1", "127.0.12.2"].map(|ip| UdpSocket::bind((ip, 0)).unwrap());
    let before = (door.report().await, phone.report().await);
    let mut random = 0x5eed_u64;
    for n in 0..count {
        for shift in [13, 7, 17] {
            random ^= if shift == 7 { random >> shift } else { random << shift };
        }
        let to = SocketAddr::from(([127, 0, 0, 112], 11_100 + (random % 40) as u16));
        let mut packet = vec![0x80, 0];
        packet.extend(random.to_be_bytes());
        // Loud, and no tone that anybody sends.
        packet
            .extend((0..162).map(|at: u64| if n % 2 == 0 { (random >> (at % 57)) as u8 } else { 0x80 | (at % 2 * 0x40) as u8 }));
        let _ = sockets[(random % 4) as usize].send_to(&packet, to);
        if n % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // Ten packets of the talk later all of it is through.
    door.hears(600, 10).await;
    phone.hears(1000, 10).await;
    let after = (door.report().await, phone.report().await);
    for (before, after, hz) in [(before.0, after.0, 600), (before.1, after.1, 1000)] {
        let (_, heard) = before.tone.unwrap();
        let others = (after.audio_packets - before.audio_packets) as i64 - (after.tone.unwrap().1 as i64 - heard as i64);
        assert_eq!((after.tone.unwrap().0, others), (hz, 0), "nothing but the other side was heard");
    }
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv_from(&mut [0; 64]).is_err(), "nothing came back");
    }
    assert!(fixtures::process::wait_until(PATIENCE, || {
        let call = call(&server);
        let drops = |leg: usize, kind: &str| call["legs"][leg][kind]["drops"]["foreign_source"].as_u64().unwrap_or(0);
        let dropped = drops(0, "audio") + drops(1, "audio") + drops(0, "video") + drops(1, "video");
        call["state"] == "answered" && dropped > u64::from(count) / 20
    }));
    assert!(server.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_of_ipv6_rings_shows_and_talks() {
    for bind in ["::1", "::"] {
        let server = Server::start(binary(), "[::1]", "11200-11239", &[("MEDIA__BIND_IP", bind)]);
        let (_door, _phone) = talk(&server, "::1", "::1").await;
        assert!(fixtures::process::wait_until(PATIENCE, || sends_to(&server).starts_with("[::1]:")), "media over {bind}");
        assert!(server.stop());
    }
}

/// The phone's answer to our INVITE.
fn progress(board: &mut Board, invite: &str, sdp: &str) -> Vec<Effect> {
    let lines = ["Via", "From", "Call-ID", "CSeq"].map(|name| format!("{name}: {}\r\n", header(invite, name))).concat();
    let text = format!(
        "SIP/2.0 183 Session Progress\r\n{lines}To: {};tag=p\r\nContact: <sip:p1@{PHONE}>\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{sdp}",
        header(invite, "To"),
        sdp.len()
    );
    board.receive(PHONE, &text)
}

fn shown(effects: &[Effect]) -> CallView {
    let view =
        |effect: &Effect| if let Effect::Publish(Publication::Call(view)) = effect { Some((**view).clone()) } else { None };
    effects.iter().rev().find_map(view).expect("a call")
}

fn plan(effects: &[Effect]) -> (media::command::SessionId, LegPlan) {
    let plan = |effect: &Effect| {
        let Effect::Media { command, .. } = effect else { return None };
        match &**command {
            Command::Put { session, leg } | Command::Open { session, anchor: leg, .. } => Some((*session, leg.clone())),
            _ => None,
        }
    };
    effects.iter().rev().find_map(plan).expect("a plan")
}

#[test]
fn an_installer_is_told_of_a_phone_behind_nat_until_it_is_heard() {
    let mut board = Board::new();
    board.register(PHONE, "p1");
    let effects = board.ring_with("");
    assert_eq!(shown(&effects).legs[0].note, Some("nothing heard"), "the door");
    let invite = answers(&effects, PHONE).remove(0);
    let sdp = OFFER.replace("192.0.2.10", "192.168.1.5");
    let effects = progress(&mut board, &invite, &sdp);
    assert_eq!(shown(&effects).legs[1].note, Some("no early path (NAT)"));
    let (session, leg) = plan(&effects);
    let audio = leg.audio.unwrap();
    assert_eq!((audio.remote, audio.sip_source), (Some("192.168.1.5:4000".parse().unwrap()), PHONE.ip()));
    let heard = LegReport {
        leg: leg.leg,
        audio: StreamReport { alive: true, ..StreamReport::default() },
        video: StreamReport::default(),
    };
    let mut effects = Vec::new();
    board.board.media(board.now, Event::Report { session, legs: vec![heard], last: false }, &mut effects);
    assert_eq!(shown(&effects).legs[1].note, None);
}

#[test]
fn a_phone_whose_address_is_reachable_has_no_note_and_one_without_video_rings_and_talks() {
    let mut board = Board::new();
    board.register(PHONE, "p1");
    let request = with_offer(&board.signed_ring(""), &format!("{OFFER}m=video 4002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"));
    let effects = board.receive(DOOR, &request);
    let invite = answers(&effects, PHONE).remove(0);
    assert!(invite.contains("m=video"));
    let sdp = format!("{}m=video 0 RTP/AVP 96\r\n", OFFER.replace("192.0.2.10", "192.0.2.11"));
    let effects = progress(&mut board, &invite, &sdp);
    let (_, leg) = plan(&effects);
    assert!(leg.audio.is_some() && leg.video.is_none());
    assert_eq!((shown(&effects).legs[1].state, shown(&effects).legs[1].note), ("early", None));
}

fn with_offer(request: &str, offer: &str) -> String {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let head = head.replace(&format!("Content-Length: {}", OFFER.len()), &format!("Content-Length: {}", offer.len()));
    format!("{head}\r\n\r\n{offer}")
}

#[test]
fn a_door_that_offers_ice_and_rtcp_mux_gets_both_and_its_room_is_offered_neither() {
    let mut board = Board::new();
    board.register(PHONE, "p1");
    let offer = format!("{OFFER}a=rtcp-mux\r\na=ice-ufrag:them\r\na=ice-pwd:0123456789012345678901\r\n");
    let request = with_offer(&board.signed_ring(""), &offer);
    let effects = board.receive(DOOR, &request);
    let answer = answers(&effects, DOOR).into_iter().find(|text| text.starts_with("SIP/2.0 183")).expect("a 183");
    assert!(answer.contains("a=ice-lite\r\n") && answer.contains("a=rtcp-mux\r\n"), "{answer}");
    let (_, door) = plan(&effects);
    let audio = door.audio.unwrap();
    let ice = audio.ice.expect("what its checks are judged with");
    assert!(
        audio.rtcp_mux
            && ice.pwd.len() >= 22
            && answer.contains(&format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ice.ufrag, ice.pwd))
    );
    let invite = answers(&effects, PHONE).remove(0);
    assert!(!invite.contains("ice") && !invite.contains("rtcp-mux"), "{invite}");
}
