//! The HTTP API of the real binary: the examples of spec admin-api.md §13, the validation table of §13.1, and what happens
//! to input nobody would send on purpose.

use fixtures::process::wait_until;
use fixtures::server::Server;
use serde_json::{Value, json};
use sip_core::digest::Challenge;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn server(ip: &str) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, "10000-10099", &[("SIP__PUBLIC_HOST", "sip.example.com")])
}

/// A gateway call in its envelope.
fn gateway(server: &Server, path: &str, params: Value) -> (u16, Value) {
    let body =
        json!({"id": "4d1f0c3e5b7a49c8a7e2f0d1c2b3a495", "version": "1.0.0", "request": {"apiVer": "1.0.0"}, "params": params});
    let (status, reply) = server.try_api("POST", &format!("/entrance/paas/{path}"), Some(&body)).unwrap();
    assert_eq!(reply["id"], "4d1f0c3e5b7a49c8a7e2f0d1c2b3a495", "{path}: the id is echoed");
    (status, reply)
}

fn ok(server: &Server, path: &str, params: Value) -> Value {
    let (status, reply) = gateway(server, path, params);
    assert_eq!((status, &reply["code"], &reply["message"]), (200, &json!(200), &Value::Null), "{path}: {reply}");
    reply["data"].clone()
}

#[test]
fn a_room_is_provisioned_as_the_examples_say() {
    let server = server("127.0.0.90");
    let doors = ok(&server, "sipservice/sip/add", json!({"count": 2, "type": 1}));
    assert_eq!(doors.as_array().map(Vec::len), Some(2), "count elements");
    for field in ["sipNumber", "sipPassword", "sipHost", "sipPort", "type", "createTime"] {
        assert!(!doors[0][field].is_null(), "{field}");
    }
    assert_eq!((&doors[0]["sipHost"], &doors[0]["type"]), (&json!("sip.example.com"), &json!(1)));
    assert_eq!(doors[0]["sipPort"], json!(server.sip.port()));
    let phones = ok(&server, "sipservice/sip/add", json!({"count": 2, "type": 0}));
    let (door, phone) = (&doors[0]["sipNumber"], &phones[0]["sipNumber"]);
    assert_eq!(ok(&server, "sipservice/sip/detail/get", json!({"sipNumber": door})), doors[0]);

    let renewed = ok(&server, "sipservice/sip/password/update", json!({"sipNumber": phone}));
    assert_ne!(renewed["sipPassword"], phones[0]["sipPassword"]);
    assert_eq!(ok(&server, "sipservice/sip/detail/get", json!({"sipNumber": phone}))["sipPassword"], renewed["sipPassword"]);

    let group = ok(&server, "sipservice/group/add", json!({"count": 1}))[0]["groupID"].clone();
    let members = json!([phone, phones[1]["sipNumber"]]);
    assert_eq!(ok(&server, "sipservice/group/sip/add", json!({"groupID": group, "sipNumberList": members})), Value::Null);
    let listed = ok(&server, "sipservice/group/sip/list", json!({"groupId": group}));
    assert_eq!((listed.as_array().map(Vec::len), &listed[1]), (Some(2), &phones[1]));

    let sync = json!({"iotId": "iot-1", "sipNumber": door, "password": "p1aaaa", "host": "192.0.2.10", "port": "6050"});
    ok(&server, "videointercom/sipnumber/sync", sync);
    ok(&server, "videointercom/map/add", json!({"iotId": "iot-1", "maps": [{"roomId": "1-9-3-1202", "groupId": group}]}));

    // Bare parameters do as well.
    let (status, reply) = server.try_api("POST", "/entrance/paas/sipservice/group/add", Some(&json!({"count": 1}))).unwrap();
    assert_eq!((status, &reply["code"]), (200, &json!(200)));
    assert!(server.stop());
}

#[test]
fn wrong_parameters_get_their_documented_code_and_change_nothing() {
    let server = server("127.0.0.91");
    let phone = ok(&server, "sipservice/sip/add", json!({"count": 1, "type": 0}))[0]["sipNumber"].clone();
    let door = ok(&server, "sipservice/sip/add", json!({"count": 1, "type": 1}))[0]["sipNumber"].clone();
    let group = ok(&server, "sipservice/group/add", json!({"count": 1}))[0]["groupID"].clone();
    let room = |room: &str| json!({"iotId": "i", "maps": [{"roomId": room, "groupId": group}]});
    let many: Vec<Value> = (0..101).map(|_| phone.clone()).collect();
    let cases: Vec<(&str, Value, u64)> = vec![
        ("sipservice/sip/add", json!({"count": 0, "type": 0}), 400),
        ("sipservice/sip/add", json!({"count": -1, "type": 0}), 400),
        ("sipservice/sip/add", json!({"count": 101, "type": 0}), 400),
        ("sipservice/sip/add", json!({"count": "2", "type": 0}), 20004),
        ("sipservice/sip/add", json!({"count": 1e30, "type": 0}), 20004),
        ("sipservice/sip/add", json!({"count": 1, "type": 2}), 400),
        ("sipservice/sip/add", json!({"count": 1}), 400),
        ("sipservice/sip/add", Value::Null, 400),
        ("sipservice/sip/detail/get", json!({"sipNumber": "nobody"}), 404),
        ("sipservice/sip/detail/get", json!({"sipNumber": ""}), 460),
        ("sipservice/sip/detail/get", json!({"sipNumber": "x".repeat(51)}), 400),
        ("sipservice/sip/password/update", json!({"sipNumber": "nobody"}), 404),
        ("sipservice/group/sip/add", json!({"groupID": "nowhere", "sipNumberList": [phone]}), 404),
        ("sipservice/group/sip/add", json!({"groupID": group, "sipNumberList": []}), 400),
        ("sipservice/group/sip/add", json!({"groupID": group, "sipNumberList": many}), 400),
        ("sipservice/group/sip/add", json!({"groupID": group, "sipNumberList": [phone, door]}), 400),
        ("sipservice/group/sip/add", json!({"groupID": group, "sipNumberList": [phone, "nobody"]}), 404),
        ("sipservice/group/sip/list", json!({"groupID": "nowhere"}), 404),
        ("videointercom/map/add", room("1-2"), 400),
        ("videointercom/map/add", room("1 2"), 400),
        (
            "videointercom/map/add",
            json!({"iotId": "i", "maps": [{"roomId": "1", "groupId": group}, {"roomId": "2", "groupId": "g"}]}),
            404,
        ),
        ("videointercom/sipnumber/sync", json!({"iotId": "i", "sipNumber": door, "host": "h", "port": "6050"}), 400),
        (
            "videointercom/sipnumber/sync",
            json!({"iotId": "i", "sipNumber": door, "password": "p", "host": "h", "port": "70000"}),
            400,
        ),
        (
            "videointercom/sipnumber/sync",
            json!({"iotId": "i", "sipNumber": phone, "password": "p", "host": "h", "port": "1"}),
            400,
        ),
        ("sipservice/no/such", json!({}), 20003),
    ];
    for (path, params, code) in cases {
        let (status, reply) = gateway(&server, path, params.clone());
        assert_eq!(reply["code"], json!(code), "{path} {params}: {reply}");
        let http = match code {
            20003 => 404,
            20004 | 460 => 400,
            code => code as u16,
        };
        assert_eq!(status, http, "D-32: {reply}");
        assert!(reply["message"].is_string() && reply["data"].is_null());
    }
    let unknown = gateway(&server, "sipservice/sip/detail/get", json!({"sipNumber": "nobody"})).1;
    assert_eq!((&unknown["message"], &unknown["localizedMsg"]), (&json!("SYS_0002"), &json!("SIP number invalid")));
    assert_eq!(ok(&server, "sipservice/group/sip/list", json!({"groupID": group})), json!([]), "all or nothing");
    let wrong_version = json!({"request": {"apiVer": "9.9.9"}, "params": {"count": 1}});
    let (status, reply) = server.try_api("POST", "/entrance/paas/sipservice/group/add", Some(&wrong_version)).unwrap();
    assert_eq!((status, &reply["code"]), (404, &json!(20003)));
    assert_eq!(server.api("GET", "/v1/accounts", None).as_array().map(Vec::len), Some(2));
}

#[test]
fn chosen_numbers_are_all_or_nothing_and_survive_a_restart() {
    let folder = fixtures::process::Folder::new("restart");
    let data = folder.path().join("kept");
    let data_dir = data.to_str().unwrap().to_owned();
    let start = |ip: &str| {
        Server::start_in(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, "10000-10099", &[], Some(Path::new(&data_dir)))
    };
    let server = start("127.0.0.92");
    let account = |number: &str| json!({"number": number, "password": "pw", "type": 0});
    server.api("POST", "/v1/accounts", Some(&json!([account("101"), account("102")])));
    server.api("POST", "/v1/groups", Some(&json!({"id": "room", "members": ["102", "101"], "name": "Room 1"})));
    let refused = |body: Value, path: &str, wanted: u16| {
        let (status, reply) = server.try_api("POST", path, Some(&body)).unwrap();
        assert_eq!(status, wanted, "{body}: {reply}");
        assert!(reply["error"].is_string());
    };
    refused(json!([account("103"), account("101")]), "/v1/accounts", 409);
    refused(json!([account("103"), account("103")]), "/v1/accounts", 409);
    refused(account("room"), "/v1/accounts", 409);
    refused(account("a@b"), "/v1/accounts", 400);
    refused(account("房"), "/v1/accounts", 400);
    refused(account(""), "/v1/accounts", 400);
    refused(json!({"number": "103", "password": "", "type": 0}), "/v1/accounts", 400);
    refused(json!({"number": "103", "password": "x", "type": 7}), "/v1/accounts", 400);
    refused(json!({"number": "103", "password": "x", "type": 0, "colour": "red"}), "/v1/accounts", 400);
    refused(json!([]), "/v1/accounts", 400);
    refused(json!({"id": "g2", "members": ["101", "nobody"]}), "/v1/groups", 404);
    refused(json!({"id": "101", "members": []}), "/v1/groups", 409);
    assert!(server.stop());

    let server = start("127.0.0.92");
    let accounts = server.api("GET", "/v1/accounts", None);
    let numbers: Vec<&Value> = accounts.as_array().unwrap().iter().map(|a| &a["number"]).collect();
    assert_eq!(numbers, ["101", "102"]);
    assert!(!accounts.to_string().contains("pw"), "passwords are not in lists");
    assert_eq!(server.api("GET", "/v1/groups/room", None)["members"], json!(["102", "101"]), "in the order given");
    assert_eq!(server.try_api("GET", "/v1/groups/other", None).unwrap().0, 404);
}

#[test]
fn strangers_and_nonsense_get_a_clear_4xx() {
    let server = server("127.0.0.93");
    let raw = |text: &[u8]| {
        let mut stream = TcpStream::connect(server.api).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        stream.write_all(text).unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    };
    let request = |method: &str, path: &str, head: &str, body: &[u8]| {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}Content-Length: {}\r\n\r\n", body.len())
                .into_bytes();
        text.extend_from_slice(body);
        raw(&text)
    };
    let right = format!("Authorization: Bearer {}\r\n", fixtures::server::BEARER);
    assert!(request("GET", "/healthz", "", b"").starts_with("HTTP/1.1 200"), "health needs no token");
    for head in ["", "Authorization: Bearer wrong\r\n", "Authorization: Bearer \r\n", "Authorization: Basic eDp5\r\n"] {
        for path in ["/v1/calls", "/entrance/paas/sipservice/group/add", "/nowhere"] {
            let reply = request("GET", path, head, b"");
            assert!(reply.starts_with("HTTP/1.1 401"), "{path} {head}: {reply}");
        }
    }
    let deep = "[".repeat(100_000);
    for body in
        [&b"{"[..], b"nonsense", b"\xff\xfe", b"[1]", b"{\"params\": 3}", deep.as_bytes(), b"{\"count\":1,\"count\":\"x\"}"]
    {
        let reply = request("POST", "/entrance/paas/sipservice/group/add", &right, body);
        assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
        assert!(reply.contains("\"code\":"), "in the envelope: {reply}");
        let reply = request("POST", "/v1/accounts", &right, body);
        assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("\"error\":"), "{reply}");
    }
    let large = vec![b' '; 2 << 20];
    assert!(request("POST", "/v1/accounts", &right, &large).starts_with("HTTP/1.1 413"));
    assert!(request("GET", "/v1/nothing", &right, b"").starts_with("HTTP/1.1 404"));
    assert!(request("PUT", "/v1/accounts", &right, b"").starts_with("HTTP/1.1 405"));
    assert!(request("GET", "/v1/calls?colour=red", &right, b"").starts_with("HTTP/1.1 400"));
    assert!(request("DELETE", "/v1/calls/none", &right, b"").starts_with("HTTP/1.1 404"));
    // Whatever is wrong is said in JSON.
    for (method, path) in [
        ("GET", "/v1/accounts?limit=0"),
        ("GET", "/v1/accounts?limit=1001"),
        ("GET", "/v1/accounts?limit=many"),
        ("GET", "/v1/accounts?type=2"),
        ("GET", "/v1/accounts?limit=1&limit=2"),
        ("GET", "/v1/registrations?from=1"),
        ("GET", "/v1/calls?state=asleep"),
        ("GET", "/v1/records?from=yesterday"),
        ("GET", "/v1/records/first/snapshot"),
        ("GET", "/v1/accounts/%ff"),
        ("GET", "/v1/bans?after=nobody"),
        ("DELETE", "/v1/bans?source=192.0.2.1"),
        ("PATCH", "/v1/accounts/101"),
    ] {
        let reply = request(method, path, &right, b"");
        assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("{\"error\":"), "{method} {path}: {reply}");
    }
}

/// A GET by hand: what comes back, head and all.
fn get(api: SocketAddr, path: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n").as_bytes()).unwrap();
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

/// Registers by hand with some password, and says how it was answered.
fn try_password(server: &Server, phone: &UdpSocket, number: &str, password: &str) -> String {
    let (uri, local) = (format!("sip:{}", server.sip.ip()), phone.local_addr().unwrap());
    let ask = |step: u32, more: &str| {
        static SENT: AtomicU32 = AtomicU32::new(0);
        let branch = format!("try{}", SENT.fetch_add(1, Ordering::Relaxed));
        let text = format!(
            "REGISTER {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{branch};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{number}@x>;tag=1\r\nTo: <sip:{number}@x>\r\nCall-ID: {branch}\r\nCSeq: {step} REGISTER\r\n\
             Contact: <sip:{number}@{local}>\r\n{more}Content-Length: 0\r\n\r\n"
        );
        phone.send_to(text.as_bytes(), server.sip).unwrap();
        let mut buffer = [0; 4096];
        let length = phone.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let challenged = ask(1, "");
    let challenge = challenged.lines().find_map(|line| line.strip_prefix("WWW-Authenticate: ")).expect("a challenge");
    let answer = Challenge::parse(challenge).unwrap().answer("REGISTER", &uri, number, password, "c", 1);
    ask(2, &format!("Authorization: {answer}\r\n"))[8..11].to_owned()
}

#[test]
fn bans_are_shown_and_lifted_and_everything_is_counted() {
    let server = server("127.0.0.94");
    server.provision(&[("101", 0)], "room", &["101"]);
    let phone = UdpSocket::bind("127.0.0.95:0").unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for _ in 0..5 {
        assert_eq!(try_password(&server, &phone, "101", "guess"), "403");
    }
    // Each further guess is a longer ban: long enough to look at it.
    for _ in 0..2 {
        while server.api("GET", "/v1/bans", None) != json!([]) {
            std::thread::yield_now();
        }
        assert_eq!(try_password(&server, &phone, "101", "guess"), "403");
    }
    let bans = server.api("GET", "/v1/bans", None);
    assert_eq!((&bans[0]["source"], &bans[0]["account"], &bans[0]["failures"]), (&json!("127.0.0.95"), &json!("101"), &json!(7)));
    assert!(bans[0]["until_ms"].as_i64() > Some(1_700_000_000_000));
    assert_eq!(try_password(&server, &phone, "101", "pw-101"), "403", "not even the right one is heard");

    let metrics = get(server.api, "/metrics", "");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("text/plain; version=0.0.4"), "open on loopback: {metrics}");
    for line in [
        "doorline_bans 1",
        "doorline_registrations 0",
        "doorline_free_ports 50",
        "doorline_sip_events_total{name=\"wrong_credentials\"} 7",
        "doorline_sip_events_total{name=\"banned\"} 1",
        "doorline_sip_events_total{name=\"stranger_queue_full\"} 0",
        "doorline_sip_events_total{name=\"udp_lost\"} 0",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line}: {metrics}");
    }
    assert!(get(server.api, "/metrics", "X-Forwarded-For: 192.0.2.1\r\n").starts_with("HTTP/1.1 401"), "passed on by a proxy");
    assert!(get(server.api, "/v1/bans", "").starts_with("HTTP/1.1 401"));

    let lift = |query: &str| server.try_api("DELETE", &format!("/v1/bans{query}"), None).unwrap().0;
    assert_eq!(lift("?source=127.0.0.95"), 400);
    assert_eq!(lift("?source=somewhere&account=101"), 400);
    assert_eq!(lift("?source=127.0.0.95&account=102"), 404);
    assert_eq!(lift("?source=127.0.0.95&account=101"), 204);
    assert_eq!(server.api("GET", "/v1/bans", None), json!([]));
    assert_eq!(try_password(&server, &phone, "101", "pw-101"), "200");
    assert!(get(server.api, "/metrics", "").contains("\ndoorline_registrations 1\n"));
}

/// What limits opening is set by PATCH, survives a restart, and is refused when it makes no sense.
#[test]
fn doors_and_accounts_are_limited_by_patch() {
    let folder = fixtures::process::Folder::new("doors");
    let data_dir = folder.path().join("data").display().to_string();
    let start = || {
        Server::start_in(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.0.98", "10000-10099", &[], Some(Path::new(&data_dir)))
    };
    let server = start();
    server.provision(&[("d1", 1), ("p1", 0)], "room", &["p1"]);
    let door = server.api("GET", "/v1/doors/d1", None);
    assert_eq!((&door["acts_as"], &door["profile"], &door["disabled"]), (&json!("generic"), &Value::Null, &json!(false)));
    let hours = json!([{"days": [1, 2, 3, 4, 5], "from": "07:00", "to": "19:30"}]);
    let patch =
        json!({"profile": "akuvox", "keys": "12#", "star": "translate", "ringback": false, "key_frame": "info", "hours": hours});
    let door = server.api("PATCH", "/v1/doors/d1", Some(&patch));
    assert_eq!((&door["acts_as"], &door["keys"], &door["hours"]), (&json!("akuvox"), &json!("12#"), &hours), "{door}");
    server.api("PATCH", "/v1/doors/d1", Some(&json!({"keys": null, "disabled": true})));
    let account = server.api("PATCH", "/v1/accounts/p1", Some(&json!({"disabled": true})));
    assert_eq!((&account["number"], &account["disabled"], &account["hours"]), (&json!("p1"), &json!(true), &json!([])));
    for (path, body, status) in [
        ("/v1/doors/d1", json!({"profile": "no such"}), 400),
        ("/v1/doors/d1", json!({"keys": "x"}), 400),
        ("/v1/doors/d1", json!({"star": "swallow"}), 400),
        ("/v1/doors/d1", json!({"hours": [{"days": [0], "from": "07:00", "to": "19:30"}]}), 400),
        ("/v1/doors/d1", json!({"colour": "red"}), 400),
        ("/v1/doors/p1", json!({"disabled": true}), 404),
        ("/v1/accounts/p1", json!({"profile": "2n"}), 400),
        ("/v1/accounts/d2", json!({"disabled": true}), 404),
    ] {
        assert_eq!(server.try_api("PATCH", path, Some(&body)).unwrap().0, status, "{path} {body}");
    }
    server.kill();
    let server = start();
    let doors = server.api("GET", "/v1/doors", None);
    assert_eq!((&doors[0]["disabled"], &doors[0]["keys"], &doors[0]["ringback"]), (&json!(true), &Value::Null, &json!(false)));
    assert_eq!((&doors[0]["star"], &doors[0]["key_frame"]), (&json!("translate"), &json!("info")));
    let unlock = |door: &str| server.try_api("POST", &format!("/v1/doors/{door}/unlock"), None).unwrap();
    let (status, told) = unlock("d1");
    assert_eq!((status, &told["status"], &told["reason"]), (403, &json!(403), &json!("forbidden")), "{told}");
    server.api("PATCH", "/v1/doors/d1", Some(&json!({"disabled": false, "hours": []})));
    assert_eq!(unlock("d1").0, 480, "it is registered nowhere");
    assert_eq!(unlock("p1").0, 404, "a phone is no door");
    // What is refused is told before it is written.
    let records = || server.api("GET", "/v1/records", None).as_array().map(Vec::len);
    assert!(wait_until(Duration::from_secs(5), || records() == Some(2)), "{:?}", records());
}

#[test]
fn who_says_half_a_request_holds_up_nobody() {
    let server = server("127.0.0.126");
    let say = |head: &str| {
        let mut stream = TcpStream::connect(server.api).unwrap();
        write!(stream, "POST /v1/accounts HTTP/1.1\r\nHost: x\r\n{head}\r\nContent-Length: 1000\r\n\r\n{{").unwrap();
        stream
    };
    let bearer = format!("Authorization: Bearer {}", fixtures::server::BEARER);
    let _half: Vec<TcpStream> = (0..200).map(|_| say(&bearer)).collect();
    // Strangers are answered without their body: it would be memory of ours.
    for (head, status) in [("X-Ca-Key: nobody", "403"), ("Authorization: Bearer x", "401"), ("X-Nothing: x", "401")] {
        let mut stream = say(head);
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut answer = [0; 512];
        let count = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).to_ascii_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{head}: {answer}");
        assert_eq!(answer.contains("www-authenticate: bearer"), status == "401", "{answer}");
    }
    server.api("GET", "/v1/accounts", None);
    assert!(server.stop(), "and it stops all the same");
}

/// Accounts and groups are changed and deleted, page by page, and a phone hears of it at once.
#[test]
fn accounts_and_groups_are_changed_listed_and_deleted() {
    let server = server("127.0.0.99");
    server.provision(&[("d1", 1), ("101", 0), ("102", 0), ("103", 0)], "room", &["101", "102"]);
    let phone = UdpSocket::bind("127.0.0.100:0").unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // What HTTP reads is written behind the answer to the phone.
    let registered = |wanted: usize| {
        while server.api("GET", "/v1/registrations", None).as_array().map(Vec::len) != Some(wanted) {
            std::thread::yield_now();
        }
    };
    assert_eq!(try_password(&server, &phone, "101", "pw-101"), "200");
    registered(1);

    let change = json!({"name": "Kitchen", "password": "new one", "hours": [{"days": [7], "from": "00:00", "to": "24:00"}]});
    let account = server.api("PATCH", "/v1/accounts/101", Some(&change));
    assert_eq!((&account["name"], &account["hours"], &account["disabled"]), (&json!("Kitchen"), &change["hours"], &json!(false)));
    assert!(account.get("password").is_none());
    // It was made with the old password.
    registered(0);
    assert_eq!(try_password(&server, &phone, "101", "pw-101"), "403");
    assert_eq!(try_password(&server, &phone, "101", "new one"), "200");
    assert_eq!(server.api("GET", "/v1/accounts/101", None), account);
    assert_eq!(server.api("PATCH", "/v1/accounts/d1", Some(&json!({"name": "Gate"})))["name"], "Gate");

    let numbers = |query: &str| {
        let list = server.api("GET", &format!("/v1/accounts{query}"), None);
        list.as_array().unwrap().iter().map(|account| account["number"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(numbers("?type=1"), ["d1"]);
    assert_eq!(numbers("?name=kitch"), ["101"]);
    assert_eq!(numbers("?group=room"), ["101", "102"]);
    let bearer = format!("Authorization: Bearer {}\r\n", fixtures::server::BEARER);
    let page = get(server.api, "/v1/accounts?type=0&limit=2", &bearer);
    let link = page.lines().find_map(|line| line.strip_prefix("link: <")?.strip_suffix(">; rel=\"next\"")).expect("a next page");
    assert_eq!(link, "/v1/accounts?type=0&limit=2&after=102");
    assert_eq!(numbers(link.strip_prefix("/v1/accounts").unwrap()), ["103"]);
    assert!(!get(server.api, link, &bearer).contains("link: "), "that was the last");

    let group = server.api("PATCH", "/v1/groups/room", Some(&json!({"members": ["103", "101"], "name": "Flat"})));
    assert_eq!((&group["members"], &group["name"]), (&json!(["103", "101"]), &json!("Flat")));
    let patch = |path: &str, body: Value| server.try_api("PATCH", path, Some(&body)).unwrap().0;
    assert_eq!(patch("/v1/groups/room", json!({"members": ["d1"]})), 400);
    assert_eq!(patch("/v1/groups/room", json!({"members": ["nobody"]})), 404);
    assert_eq!(patch("/v1/groups/none", json!({})), 404);
    assert_eq!(patch("/v1/accounts/101", json!({"password": ""})), 400);
    assert_eq!(patch("/v1/accounts/101", json!({"number": "104"})), 400);
    assert_eq!(patch("/v1/accounts/101", json!([["Bath"]])), 400);
    assert_eq!(server.api("GET", "/v1/groups/room", None), group, "a refused change changes nothing");

    let delete = |path: &str| server.try_api("DELETE", path, None).unwrap().0;
    assert_eq!(delete("/v1/accounts/101"), 204);
    assert_eq!((delete("/v1/accounts/101"), delete("/v1/groups/none")), (404, 404));
    registered(0);
    assert_eq!(try_password(&server, &phone, "101", "new one"), "403");
    assert_eq!(server.api("GET", "/v1/groups/room", None)["members"], json!(["103"]));
    assert_eq!(server.api("GET", "/v1/groups?member=103", None).as_array().map(Vec::len), Some(1));
    assert_eq!(delete("/v1/groups/room"), 204);
    assert_eq!(server.api("GET", "/v1/groups", None), json!([]));
    assert_eq!(numbers(""), ["102", "103", "d1"]);
}
