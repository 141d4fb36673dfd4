//! Every example of spec admin-api.md §13, played by the real server in one story: shapes, and every value that is not the
//! server's own. A simulated door and phone stand where a door is opened (`fixtures/seed/README.md`).

#![allow(clippy::disallowed_methods)] // sockets

use fixtures::server::Server;
use intercom_api::http::seed::endpoints;
use intercom_api::http::seed::table::{Plain, Shape, Word};
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const EXAMPLES: &str = include_str!("../../fixtures/seed/examples.json");
const ID: &str = "4d1f0c3e5b7a49c8a7e2f0d1c2b3a495";

fn examples() -> Vec<Value> {
    serde_json::from_str(EXAMPLES).unwrap()
}

/// The same, but for values of fields that the server invents: of the same JSON type there.
fn same(wanted: &Value, got: &Value, invented: &[&str]) -> bool {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            wanted.len() == got.len()
                && wanted.iter().all(|(name, value)| match got.get(name) {
                    Some(other) if invented.contains(&name.as_str()) => match (value, other) {
                        (Value::String(_), Value::String(text)) => !text.is_empty() && text.len() <= 50,
                        (Value::Number(_), Value::Number(number)) => number.is_u64(),
                        _ => false,
                    },
                    Some(other) => same(value, other, invented),
                    None => false,
                })
        }
        (Value::Array(wanted), Value::Array(got)) => {
            wanted.len() == got.len() && wanted.iter().zip(got).all(|(one, other)| same(one, other, invented))
        }
        _ => wanted == got,
    }
}

/// Is this what the table says of the endpoint's reply?
fn fits(shape: &Shape, data: &Value) -> bool {
    let object = |words: &[Word], value: &Value| {
        let fields: BTreeSet<&str> = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let known: BTreeSet<&str> = words.iter().map(|word| word.name).collect();
        fields == known
            && words.iter().all(|word| match (word.kind, &value[word.name]) {
                (_, Value::Null) => word.nullable,
                (Plain::Text, value) => value.is_string(),
                (Plain::Integer | Plain::Long, value) => value.is_i64(),
                (Plain::Object, value) => value.is_object(),
            })
    };
    let list = |words: &[Word], value: &Value| value.as_array().is_some_and(|list| list.iter().all(|one| object(words, one)));
    match shape {
        Shape::Nothing => data.is_null(),
        Shape::Object(words) => object(words, data),
        Shape::List(words) => list(words, data),
        Shape::Page(words) => {
            ["total", "pageNo", "pageSize"].iter().all(|name| data[name].is_i64()) && list(words, &data["data"])
        }
    }
}

/// The table's own examples are those of the specification, and every endpoint has one that is played.
#[test]
fn the_documentation_shows_the_examples_that_are_played() {
    let examples = examples();
    let mut seen = BTreeSet::new();
    for endpoint in endpoints() {
        for version in endpoint.versions {
            assert!(seen.insert((endpoint.path, version)), "{} {version} twice", endpoint.path);
        }
        let params: Value = serde_json::from_str(endpoint.example.params).unwrap();
        let played = examples.iter().filter(|example| {
            example["path"] == endpoint.path && endpoint.versions.contains(&example["apiVer"].as_str().unwrap_or_default())
        });
        let mut played = played.peekable();
        let refresh = endpoint.path.ends_with("token/refresh");
        assert!(refresh || played.peek().is_some(), "{} is not played", endpoint.path);
        assert!(refresh || played.any(|example| example["params"] == params), "{}: {params}", endpoint.path);
        let data = endpoint.example.data;
        let data = if data.is_empty() { Value::Null } else { serde_json::from_str(data).unwrap() };
        assert!(fits(&endpoint.data, &data), "{}: {data}", endpoint.path);
        assert!(!endpoint.summary.is_empty() && !endpoint.summary.ends_with('.'));
    }
}

struct Unit {
    orders: mpsc::UnboundedSender<Order>,
    events: mpsc::UnboundedReceiver<(Instant, Happened)>,
}

impl Unit {
    async fn start(server: &Server, number: &str, password: &str, ip: [u8; 4], role: Role) -> Unit {
        let config = DeviceConfig {
            number: number.to_owned(),
            password: password.to_owned(),
            domain: server.sip.ip().to_string(),
            server: server.sip,
            ip: IpAddr::from(ip),
            role,
            decode: false,
            lose: 0,
            seed: [ip[3]; 32],
        };
        let (orders, events) = Device::start(config).await.unwrap();
        let mut unit = Unit { orders, events };
        unit.order(Order::Register);
        unit.wait(|happened| matches!(happened, Happened::Registered)).await;
        unit
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    async fn wait(&mut self, wanted: impl Fn(&Happened) -> bool) {
        let found = async { while !wanted(&self.events.recv().await.expect("the device lives").1) {} };
        tokio::time::timeout(Duration::from_secs(10), found).await.expect("it happens");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_gets_its_reply() {
    let settings = [("SIP__PUBLIC_HOST", "sip.example.com"), ("SIP__UDP", "127.0.4.1:6050")];
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.4.1", "10000-10099", &settings);
    let account = |number: &str, password: &str, kind: u8| json!({"number": number, "password": password, "type": kind});
    let accounts =
        [("d10000000a", "p1aaaa", 1), ("d10000000b", "p1bbbb", 1), ("u10000000a", "p1cccc", 0), ("u10000000b", "p1dddd", 0)];
    let accounts = accounts.map(|(number, password, kind)| account(number, password, kind));
    server.api("POST", "/v1/accounts", Some(&json!(accounts)));
    let groups = json!([{"id": "g10000000a", "members": []}, {"id": "g10000000b", "members": []}]);
    server.api("POST", "/v1/groups", Some(&groups));

    let mut in_call = None;
    for example in examples() {
        let (path, version) = (example["path"].as_str().unwrap(), example["apiVer"].as_str().unwrap());
        if path.ends_with("service/invoke") && in_call.is_none() {
            // A visitor rings, and the door has a name.
            let names = json!({"product_key": "pk1", "device_name": "HJSB-000205"});
            let door = server.api("PATCH", "/v1/doors/d10000000a", Some(&names));
            assert_eq!(door["units"][0]["device_name"], "HJSB-000205", "{door}");
            let phone = Role::Phone { early: true };
            let mut phone = Unit::start(&server, "u10000000b", "p1dddd", [127, 0, 4, 3], phone).await;
            let door = Unit::start(&server, "d10000000a", "p1aaaa", [127, 0, 4, 2], Role::Door(Clip::synthetic(25))).await;
            door.order(Order::Call("g10000000a".into()));
            phone.wait(|happened| matches!(happened, Happened::Incoming)).await;
            in_call = Some((door, phone));
        }
        let body = json!({"id": ID, "version": "1.0.0", "request": {"apiVer": version}, "params": example["params"]});
        let (status, reply) = server.try_api("POST", path, Some(&body)).unwrap();
        let mut wanted = example["reply"].clone();
        wanted["id"] = json!(ID);
        let invented: Vec<&str> = example["invented"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(same(&wanted, &reply, &invented), "{path}:\n{wanted}\n{reply}\n{}", server.log());
        assert_eq!(json!(status), wanted["code"]);
        let endpoint = endpoints().find(|endpoint| endpoint.path == path && endpoint.versions.contains(&version)).unwrap();
        assert!(status != 200 || fits(&endpoint.data, &reply["data"]), "{path}: {reply}");
    }

    let (mut door, mut phone) = in_call.expect("a door was opened");
    door.wait(|happened| matches!(happened, Happened::Opened(_))).await;
    // The members of the group were taken out of it while they rang.
    phone.wait(|happened| matches!(happened, Happened::Cancelled)).await;
    door.wait(|happened| matches!(happened, Happened::Refused(480))).await;
    let records = server.api("GET", "/v1/records", None).to_string();
    assert!(records.contains("\"api:owner\""), "{records}");
    assert!(server.stop());
}

/// OPEN-17: by a switch, what the samples call the port is there too.
#[test]
fn members_have_a_server_port_too_if_that_is_switched_on() {
    let server =
        Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.4.9", "10000-10099", &[("API__SERVER_PORT", "true")]);
    server.provision(&[("101", 0)], "room", &["101"]);
    let list = json!({"groupID": "room"});
    let (_, reply) = server.try_api("POST", "/entrance/paas/sipservice/group/sip/list", Some(&list)).unwrap();
    assert_eq!(
        (&reply["data"][0]["serverPort"], &reply["data"][0]["sipPort"]),
        (&json!(server.sip.port()), &json!(server.sip.port()))
    );
    let (_, detail) =
        server.try_api("POST", "/entrance/paas/sipservice/sip/detail/get", Some(&json!({"sipNumber": "101"}))).unwrap();
    assert_eq!(detail["data"]["serverPort"], Value::Null, "only there");
}

/// Provisioned by the API, a phone registers right after the reply, and the call is routed by it (D-30).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_made_through_the_api_can_be_rung_at_once() {
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.4.11", "10000-10099", &[]);
    let call = |path: &str, params: Value| {
        let (_, reply) = server.try_api("POST", &format!("/entrance/paas/{path}"), Some(&params)).unwrap();
        assert_eq!(reply["code"], 200, "{path}: {reply}");
        reply["data"].clone()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let account = |kind: u8| {
        let account = call("sipservice/sip/add", json!({"count": 1, "type": kind}))[0].clone();
        (text(&account["sipNumber"]), text(&account["sipPassword"]))
    };
    let ((door, door_password), (phone, phone_password)) = (account(1), account(0));
    let group = text(&call("sipservice/group/add", json!({"count": 1}))[0]["groupID"]);
    call("sipservice/group/sip/add", json!({"groupID": group, "sipNumberList": [phone]}));
    let sync = json!({"iotId": "iot-1", "sipNumber": door, "password": door_password, "host": "192.0.2.10", "port": "6050"});
    call("videointercom/sipnumber/sync", sync);
    call("videointercom/map/add", json!({"iotId": "iot-1", "maps": [{"roomId": "9-3-1202", "groupId": group}]}));

    let mut phone = Unit::start(&server, &phone, &phone_password, [127, 0, 4, 13], Role::Phone { early: true }).await;
    let door = Unit::start(&server, &door, &door_password, [127, 0, 4, 12], Role::Door(Clip::synthetic(25))).await;
    door.order(Order::Call("1202".into()));
    phone.wait(|happened| matches!(happened, Happened::Incoming)).await;
    // The family moves out.
    call("sipservice/group/delete", json!({"groupList": [group]}));
    phone.wait(|happened| matches!(happened, Happened::Cancelled)).await;
    assert!(server.stop());
}

/// OPEN-22: 32 members unless said.
#[test]
fn a_group_is_full_at_some_time() {
    let server =
        Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.4.31", "10000-10099", &[("API__GROUP_MEMBERS", "2")]);
    server.provision(&[("101", 0), ("102", 0), ("103", 0)], "room", &["101", "102"]);
    let add = json!({"groupID": "room", "sipNumberList": ["103"]});
    let (status, reply) = server.try_api("POST", "/entrance/paas/sipservice/group/sip/add", Some(&add)).unwrap();
    assert_eq!((status, &reply["code"]), (400, &json!(400)), "{reply}");
    assert_eq!(server.api("GET", "/v1/groups/room", None)["members"], json!(["101", "102"]));
    let again = json!({"groupID": "room", "sipNumberList": ["101", "102"]});
    assert_eq!(server.try_api("POST", "/entrance/paas/sipservice/group/sip/add", Some(&again)).unwrap().0, 200, "they are in it");
}

/// Spec admin-api.md §11: two scales for one thing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_unit_is_not_activated_online_offline_or_disabled() {
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.4.21", "10000-10099", &[]);
    server.provision(&[("door", 1)], "room", &[]);
    let call = |path: &str, params: Value| {
        let (_, reply) = server.try_api("POST", path, Some(&params)).unwrap();
        assert_eq!(reply["code"], 200, "{path}: {reply}");
        reply["data"].clone()
    };
    let sync = json!({"iotId": "iot-1", "sipNumber": "door", "password": "pw-door", "host": "192.0.2.10", "port": "6050"});
    call("/entrance/paas/videointercom/sipnumber/sync", sync);
    let seen = || {
        let one = call("/app/thing/status/get", json!({"iotId": "iot-1"}))["status"].as_i64().unwrap();
        let list = call("/solution/community/paas/tenant/device/query", json!({"queryType": "OWNED"}));
        let other = &list["data"][0];
        (one, other["status"].as_i64().unwrap(), other["lastOnlineTime"].is_i64())
    };
    assert_eq!(seen(), (0, -1, false), "nobody has seen it");
    let door = Unit::start(&server, "door", "pw-door", [127, 0, 4, 22], Role::Door(Clip::synthetic(25))).await;
    assert_eq!(seen(), (1, 1, true));
    door.order(Order::Unregister);
    let until = Instant::now() + Duration::from_secs(10);
    while server.api("GET", "/v1/registrations", None) != json!([]) {
        assert!(Instant::now() < until, "it says good-bye");
        tokio::task::yield_now().await;
    }
    assert_eq!(seen(), (3, 0, true));
    server.api("PATCH", "/v1/doors/door", Some(&json!({"disabled": true})));
    assert_eq!(seen(), (8, 0, true), "the other scale does not know it");
}
