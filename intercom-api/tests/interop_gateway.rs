//! Clients of the gateway that nobody here wrote (`tests/clients/`) call the provisioning API: they are understood, over HTTP
//! and HTTPS; what they signed passes once and unchanged; an app reaches only its own; and one of them builds a whole house.

#![allow(clippy::disallowed_methods)] // a test with real sockets, programs and a real clock

use fixtures::process::Folder;
use fixtures::server::Server;
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;

const APPS: &str = "30000001:secret-of-one,30000002:secret-of-two";
const SIP_ADD: &str = "/entrance/paas/sipservice/sip/add";
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Npm,
    Pypi,
    Iot,
}

/// One of the clients, running.
struct Client {
    child: Child,
    replies: BufReader<ChildStdout>,
}

impl Client {
    fn start(kind: Kind, base: &str, key: &str, secret: &str) -> Client {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let peers = root.join("../target/peers");
        let (program, script) = match kind {
            Kind::Npm => ("node".into(), "gateway.js"),
            Kind::Pypi => (peers.join("python/bin/python"), "gateway.py"),
            Kind::Iot => (peers.join("python/bin/python"), "iot_gateway.py"),
        };
        let mut child = Command::new(&program)
            .arg(root.join("tests/clients").join(script))
            .args([base, key, secret])
            .env("NODE_PATH", peers.join("node/node_modules"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `./dev test` installs it", program.display()));
        let replies = BufReader::new(child.stdout.take().unwrap());
        Client { child, replies }
    }

    /// HTTP status and what the client gives its user.
    fn call(&mut self, path: &str, api_ver: &str, params: Value) -> (u64, Value) {
        let call = json!({"path": path, "apiVer": api_ver, "params": params, "query": {"b": "x y", "a": ""}});
        writeln!(self.child.stdin.as_mut().unwrap(), "{call}").unwrap();
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        let reply: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{path}: {error}: {line:?}"));
        (reply["status"].as_u64().unwrap(), reply.get("body").unwrap_or(&reply["error"]).clone())
    }

    /// The data of a call that must succeed.
    fn ok(&mut self, path: &str, params: Value) -> Value {
        let (status, body) = self.call(path, "1.0.0", params);
        assert_eq!((status, &body["code"]), (200, &json!(200)), "{path}: {body}");
        body["data"].clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn server(ip: &str, settings: &[(&str, &str)]) -> Server {
    let mut all = vec![("API__APPS", APPS)];
    all.extend(settings);
    Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, "10000-10399", &all)
}

#[test]
fn the_public_clients_are_understood() {
    let folder = Folder::new("gateway-tls");
    let (cert, key) = fixtures::certificate::write(folder.path(), "127.0.0.121");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let plain = server("127.0.0.120", &[]);
    let tls = server("127.0.0.121", &[("API__TLS", "true"), ("TLS__CERT", &cert), ("TLS__KEY", &key)]);
    let bases = [
        (format!("http://{}", plain.api), vec![Kind::Npm, Kind::Pypi, Kind::Iot]),
        (format!("https://{}", tls.api), vec![Kind::Npm]),
    ];
    for (base, kinds) in bases {
        for kind in kinds {
            let mut client = Client::start(kind, &base, "30000001", "secret-of-one");
            let account = client.ok(SIP_ADD, json!({"count": 1, "type": 0}))[0].clone();
            let again = client.ok("/entrance/paas/sipservice/sip/detail/get", json!({"sipNumber": account["sipNumber"]}));
            assert_eq!(again, account, "{kind:?} at {base}");
            assert_eq!(client.call(SIP_ADD, "9.9.9", json!({})).0, 404, "{kind:?}: no such version");

            let mut wrong = Client::start(kind, &base, "30000001", "secret-of-two");
            let (status, told) = wrong.call(SIP_ADD, "1.0.0", json!({"count": 1, "type": 0}));
            assert_eq!(status, 403, "{kind:?}: {told}");
        }
    }
    // Whoever writes a client sees what the server has read.
    let mut wrong = Client::start(Kind::Npm, &format!("http://{}", plain.api), "30000001", "secret-of-two");
    let told = wrong.call(SIP_ADD, "1.0.0", json!({"count": 1, "type": 0})).1.to_string();
    assert!(told.contains("Server StringToSign:`POST#application/json#") && !told.contains("secret"), "{told}");
    assert!(plain.stop() && tls.stop());
}

/// Passes on one request of a client and keeps its bytes.
fn overheard(server: SocketAddr, send: impl FnOnce(String)) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.122:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let listening = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let request = read_message(&mut client);
        client.write_all(&replay(server, &request)).unwrap();
        request
    });
    send(base);
    listening.join().unwrap()
}

/// One HTTP message with a `Content-Length`.
fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return bytes;
            }
        }
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "{text}");
        bytes.extend(&some[..count]);
    }
}

fn replay(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(request).unwrap();
    read_message(&mut stream)
}

#[test]
fn a_signed_request_passes_once_and_only_as_it_was_signed() {
    let server = server("127.0.0.122", &[]);
    let accounts = |server: &Server| server.api("GET", "/v1/accounts", None).as_array().map(Vec::len);
    let request = overheard(server.api, |base| {
        Client::start(Kind::Npm, &base, "30000001", "secret-of-one").ok(SIP_ADD, json!({"count": 1, "type": 0}));
    });
    assert_eq!(accounts(&server), Some(1));
    let status = |answer: Vec<u8>| String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    assert_eq!(status(replay(server.api, &request)), Some(403), "it came already");
    let text = String::from_utf8(request).unwrap();
    for (was, is) in [
        ("\"count\":1", "\"count\":9"),
        ("/sip/add?", "/sip/delete?"),
        ("30000001", "30000002"),
        ("a=", "a=1"),
        ("POST ", "PUT "),
    ] {
        assert!(text.contains(was), "{was}: {text}");
        let changed = text.replacen(was, is, 1);
        assert_eq!(status(replay(server.api, changed.as_bytes())), Some(403), "{was} → {is}");
    }
    assert_eq!(accounts(&server), Some(1), "nothing of that was done");
    let metrics = fixtures::http::text(server.api, "/metrics").unwrap();
    for name in ["replay", "signature", "content_md5"] {
        assert!(metrics.contains(&format!("doorline_http_refused_total{{name=\"{name}\"}}")), "{name}: {metrics}");
    }
    // It may have come to a former run, so it is nothing to this one either.
    let data = server.data();
    let folder = Folder::new("restarted");
    fixtures::process::run(Command::new("cp").arg("-r").arg(&data).arg(folder.path().join("data"))).unwrap();
    assert!(server.stop());
    let binary = Path::new(env!("CARGO_BIN_EXE_doorline"));
    let settings = [("API__APPS", APPS)];
    let again = Server::start_in(binary, "127.0.0.122", "10000-10399", &settings, Some(&folder.path().join("data")));
    assert_eq!(status(replay(again.api, text.as_bytes())), Some(403), "signed before this server started");
    assert!(again.stop());
}

#[test]
fn an_app_reaches_only_its_own_and_not_too_often() {
    let server = server("127.0.0.123", &[("API__RATE", "30")]);
    let base = format!("http://{}", server.api);
    let mut one = Client::start(Kind::Npm, &base, "30000001", "secret-of-one");
    let mut two = Client::start(Kind::Npm, &base, "30000002", "secret-of-two");
    let number = one.ok(SIP_ADD, json!({"count": 1, "type": 0}))[0]["sipNumber"].clone();
    let group = one.ok("/entrance/paas/sipservice/group/add", json!({"count": 1}))[0]["groupID"].clone();
    let own = two.ok("/entrance/paas/sipservice/group/add", json!({"count": 1}))[0]["groupID"].clone();
    for (path, params) in [
        ("sip/detail/get", json!({"sipNumber": number})),
        ("sip/password/update", json!({"sipNumber": number})),
        ("group/sip/list", json!({"groupID": group})),
        ("group/sip/add", json!({"groupID": own, "sipNumberList": [number]})),
    ] {
        assert_eq!(two.call(&format!("/entrance/paas/sipservice/{path}"), "1.0.0", params).0, 403, "{path}");
    }
    one.ok("/entrance/paas/sipservice/group/sip/add", json!({"groupID": group, "sipNumberList": [number]}));
    let statuses: Vec<u64> = (0..100).map(|_| two.call(SIP_ADD, "1.0.0", json!({"count": 1, "type": 0})).0).collect();
    assert!(statuses.contains(&429) && statuses.contains(&200), "{statuses:?}");
    // The other one and the owner are not held up by that.
    one.ok("/entrance/paas/sipservice/group/sip/list", json!({"groupID": group}));
    assert_eq!(server.api("GET", "/v1/groups", None).as_array().map(Vec::len), Some(2), "the owner sees all");
    assert!(server.stop());
}

/// A phone or door of the building.
struct Party {
    orders: mpsc::UnboundedSender<Order>,
    happened: mpsc::UnboundedReceiver<(std::time::Instant, Happened)>,
}

impl Party {
    async fn start(server: &Server, account: &Value, host: u16, role: Role) -> Party {
        let text = |field: &str| account[field].as_str().unwrap().to_owned();
        let [high, low] = host.to_be_bytes();
        let config = DeviceConfig {
            number: text("sipNumber"),
            password: text("sipPassword"),
            domain: server.sip.ip().to_string(),
            server: server.sip,
            ip: IpAddr::V4(Ipv4Addr::new(127, 7, high, low)),
            role,
            decode: false,
            lose: 0,
            seed: [high ^ low; 32],
        };
        let (orders, happened) = Device::start(config).await.unwrap();
        Party { orders, happened }
    }

    /// Waits for something; `None` when it does not come.
    async fn hears<T>(&mut self, wanted: impl Fn(&Happened) -> Option<T>) -> Option<T> {
        let hears = async {
            loop {
                match self.happened.recv().await {
                    Some((_, happened)) => {
                        if let Some(found) = wanted(&happened) {
                            return Some(found);
                        }
                    }
                    None => return None,
                }
            }
        };
        tokio::time::timeout(PATIENCE, hears).await.ok().flatten()
    }

    async fn registers(&mut self) -> bool {
        self.orders.send(Order::Register).unwrap();
        let heard = self.hears(|happened| match happened {
            Happened::Registered => Some(true),
            Happened::RegisterFailed(_) => Some(false),
            _ => None,
        });
        heard.await == Some(true)
    }
}

/// Rooms of the building; each has a phone, and some of them are rung.
const ROOMS: usize = 1000;
const AT_ONCE: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_building_of_a_thousand_rooms_is_made_by_the_gateways_client() {
    let server = server("127.0.0.124", &[]);
    let mut platform = Client::start(Kind::Npm, &format!("http://{}", server.api), "30000001", "secret-of-one");
    let intercom = |path: &str| format!("/entrance/paas/videointercom/{path}");
    let service = |path: &str| format!("/entrance/paas/sipservice/{path}");
    let bound = platform.ok("/entrance/paas/sipserver/query", json!({}))[0]["serverId"].clone();
    platform.ok("/entrance/paas/sipserver/bind", json!({"serverId": bound}));

    let unit = platform.ok(&service("sip/add"), json!({"count": 1, "type": 1}))[0].clone();
    let issued = json!({"iotId": "iot-1", "sipNumber": unit["sipNumber"], "password": unit["sipPassword"], "host": unit["sipHost"],
                        "port": unit["sipPort"].to_string()});
    platform.ok(&intercom("sipnumber/sync"), issued);
    let mut door = Party::start(&server, &unit, 0xfffe, Role::Door(Clip::synthetic(25))).await;
    assert!(door.registers().await, "the door, right after the reply");

    let mut phones = Vec::new();
    for floor in 0..ROOMS / AT_ONCE {
        let groups = platform.ok(&service("group/add"), json!({"count": AT_ONCE}));
        let accounts = platform.ok(&service("sip/add"), json!({"count": AT_ONCE, "type": 0}));
        // Right after the reply, all of them at the same time.
        let mut floor_phones = Vec::new();
        for (position, account) in (0..).zip(accounts.as_array().unwrap()) {
            let host = u16::try_from(floor * AT_ONCE + position + 1).unwrap();
            let phone = Party::start(&server, account, host, Role::Phone { early: true }).await;
            phone.orders.send(Order::Register).unwrap();
            floor_phones.push(phone);
        }
        let mut maps = Vec::new();
        for position in 0..AT_ONCE {
            let (group, number) = (&groups[position]["groupID"], &accounts[position]["sipNumber"]);
            platform.ok(&service("group/sip/add"), json!({"groupID": group, "sipNumberList": [number]}));
            let room = format!("1-9-3-{}", 100 * (floor + 1) + position);
            platform.ok(&intercom("space/add"), json!({"spaceId": format!("space-{room}"), "groupId": group, "roomId": room}));
            maps.push(json!({"roomId": room, "groupId": group}));
        }
        platform.ok(&intercom("map/add"), json!({"iotId": "iot-1", "maps": maps}));
        for phone in &mut floor_phones {
            let registered = phone.hears(|happened| match happened {
                Happened::Registered => Some(true),
                Happened::RegisterFailed(_) => Some(false),
                _ => None,
            });
            assert_eq!(registered.await, Some(true), "a phone of floor {floor}");
        }
        phones.extend(floor_phones);
    }
    let (status, page) = platform.call(&intercom("map/query"), "1.0.1", json!({"iotId": "iot-1", "pageNo": 10, "pageSize": 100}));
    assert_eq!((status, &page["data"]["total"], page["data"]["data"].as_array().map(Vec::len)), (200, &json!(ROOMS), Some(100)));

    // The bare room, the wall unit's and the edge's way of writing it (OPEN-24).
    for (position, room) in [(0, "100"), (501, "9-3-601"), (ROOMS - 1, "1-9-3-1099")] {
        door.orders.send(Order::Call(room.into())).unwrap();
        let phone = &mut phones[position];
        assert!(
            phone.hears(|h| matches!(h, Happened::FirstPicture).then_some(())).await.is_some(),
            "room {room} sees the visitor"
        );
        phone.orders.send(Order::Answer).unwrap();
        assert!(door.hears(|h| matches!(h, Happened::Answered).then_some(())).await.is_some(), "room {room} answers");
        door.orders.send(Order::HangUp).unwrap();
        assert!(phone.hears(|h| matches!(h, Happened::Ended(_)).then_some(())).await.is_some());
        assert!(door.hears(|h| matches!(h, Happened::Ended(_)).then_some(())).await.is_some());
    }
    assert!(server.stop());
}

#[test]
fn where_no_app_is_set_one_is_made_and_its_secret_is_shown_once() {
    let binary = Path::new(env!("CARGO_BIN_EXE_doorline"));
    let folder = Folder::new("first-app");
    let start = || Server::start_in(binary, "127.0.0.125", "10000-10099", &[], Some(folder.path()));
    let server = start();
    let shown = std::fs::read_to_string(folder.path().join("first-app.txt")).unwrap();
    let word = |before: &str| shown.lines().find_map(|line| line.strip_prefix(before)).unwrap().to_owned();
    let (key, secret) = (word("X-Ca-Key "), word("secret "));
    assert!(!server.log().contains(&secret), "{}", server.log());
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder.path().join("first-app.txt")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(folder.path().join("first-app.txt")).unwrap();
    assert!(server.stop());

    let server = start();
    assert!(!folder.path().join("first-app.txt").exists(), "only once");
    let mut client = Client::start(Kind::Npm, &format!("http://{}", server.api), &key, &secret);
    let account = client.ok(SIP_ADD, json!({"count": 1, "type": 0}))[0].clone();
    // What is its own is the installation's own.
    server.api("GET", &format!("/v1/accounts/{}", account["sipNumber"].as_str().unwrap()), None);
    server.api("POST", "/v1/groups", Some(&json!({"id": "room", "members": [account["sipNumber"]]})));
    assert_eq!(client.ok("/entrance/paas/sipservice/group/sip/list", json!({"groupID": "room"}))[0], account);
    assert!(server.stop());
}

/// Whoever began without an app and sets one later: it stands for the installation, as the made one did.
#[test]
fn the_first_app_that_is_set_takes_over_from_the_made_one() {
    let binary = Path::new(env!("CARGO_BIN_EXE_doorline"));
    let folder = Folder::new("later-app");
    let start = |settings: &[(&str, &str)]| Server::start_in(binary, "127.0.0.127", "10000-10099", settings, Some(folder.path()));
    let server = start(&[]);
    server.provision(&[("101", 0)], "room", &["101"]);
    assert!(server.stop());
    let members = |server: &Server, key: &str, secret: &str| {
        let mut client = Client::start(Kind::Npm, &format!("http://{}", server.api), key, secret);
        client.call("/entrance/paas/sipservice/group/sip/list", "1.0.0", json!({"groupID": "room"})).0
    };
    let server = start(&[("API__APPS", "30000001:secret-of-one")]);
    assert_eq!(members(&server, "30000001", "secret-of-one"), 200);
    assert!(server.stop());
    // From then on it is that one, also behind others, and nobody takes its place unseen.
    let server = start(&[("API__APPS", "30000002:secret-of-two,30000001:secret-of-one")]);
    assert_eq!((members(&server, "30000001", "secret-of-one"), members(&server, "30000002", "secret-of-two")), (200, 403));
    assert!(server.stop());
    let server = start(&[("API__APPS", "30000002:secret-of-two")]);
    assert_eq!(members(&server, "30000002", "secret-of-two"), 403);
    assert!(server.log().contains("is not in api.apps"), "{}", server.log());
    assert!(server.stop());
}
