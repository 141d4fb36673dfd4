//! Events as those receive them who build on them: curl reads the stream, a server of nobody's takes webhooks, mosquitto_sub
//! hears MQTT from a real broker (D-31).

#![allow(clippy::disallowed_methods)] // it drives real programs in real time

use fixtures::process::{Folder, Process, run, wait_until};
use fixtures::server::{BEARER, Server, password};
use fixtures::sink::{Posted, Sink};
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(90);

fn start(ip: &str, settings: &[(&str, &str)], data: Option<&Path>) -> Server {
    Server::start_in(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, "10000-12999", settings, data)
}

/// Doors and phones, and what happens at them.
struct House {
    orders: BTreeMap<String, UnboundedSender<Order>>,
    news: UnboundedSender<(String, Happened, Instant)>,
    events: UnboundedReceiver<(String, Happened, Instant)>,
    /// What nobody has waited for yet: devices tell each in its own time.
    heard: Vec<(String, Happened, Instant)>,
}

impl House {
    fn new() -> House {
        let (news, events) = mpsc::unbounded_channel();
        House { orders: BTreeMap::new(), news, events, heard: Vec::new() }
    }

    async fn add(&mut self, server: &Server, number: &str, role: Role) {
        let mut seed = [number.len() as u8; 32];
        seed[..number.len()].copy_from_slice(number.as_bytes());
        let (domain, ip) = (server.sip.ip().to_string(), server.sip.ip());
        let (number, password) = (number.to_owned(), password(number));
        let config =
            DeviceConfig { number: number.clone(), password, domain, server: server.sip, ip, role, decode: false, lose: 0, seed };
        let (orders, mut events) = Device::start(config).await.unwrap();
        self.orders.insert(number.clone(), orders);
        let news = self.news.clone();
        tokio::spawn(async move {
            while let Some((_, event)) = events.recv().await {
                let _ = news.send((number.clone(), event, Instant::now()));
            }
        });
    }

    fn order(&self, number: &str, order: Order) {
        self.orders[number].send(order).unwrap();
    }

    /// When it happened.
    async fn wait(&mut self, who: &str, what: &str, wanted: impl Fn(&Happened) -> bool) -> Instant {
        loop {
            if let Some(at) = self.heard.iter().position(|(number, event, _)| number == who && wanted(event)) {
                return self.heard.remove(at).2;
            }
            let news = timeout(Duration::from_secs(30), self.events.recv()).await;
            self.heard.extend(news.unwrap_or_else(|_| panic!("{who}: no {what}")));
        }
    }

    /// A visitor who rings and goes: how long until the phone knew.
    async fn ring(&mut self, door: &str, room: &str, phone: &str) -> Duration {
        self.heard.clear();
        self.order(door, Order::Call(room.to_owned()));
        let called = self.wait(door, "call", |event| matches!(event, Happened::Calling)).await;
        let rang = self.wait(phone, "ring", |event| matches!(event, Happened::Incoming)).await;
        self.order(door, Order::HangUp);
        self.wait(phone, "end", |event| matches!(event, Happened::Cancelled)).await;
        rang.saturating_duration_since(called)
    }
}

/// curl on `/events`.
struct Stream {
    process: Process,
    _folder: Folder,
}

impl Stream {
    fn open(server: &Server, query: &str, last: Option<&str>) -> Stream {
        let folder = Folder::new("stream");
        let mut command = Command::new("curl");
        command.args(["-sS", "-N", "-H", &format!("Authorization: Bearer {BEARER}")]);
        if let Some(last) = last {
            command.args(["-H", &format!("Last-Event-ID: {last}")]);
        }
        command.arg(format!("http://{}/events?{query}", server.api));
        let mut process = Process::start("curl", folder.path(), &mut command);
        process.wait_for(": doorline", PATIENCE);
        Stream { process, _folder: folder }
    }

    /// `event` and `data` of what has come; every `id` is that of its body.
    fn events(&self) -> Vec<(String, Value)> {
        let text = self.process.output();
        let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole).to_owned();
        let event = |block: &str| {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let body: Value = serde_json::from_str(field("data")?).unwrap();
            assert_eq!(body["id"].as_str(), field("id"));
            Some((field("event")?.to_owned(), body))
        };
        whole.split("\n\n").filter_map(event).collect()
    }

    fn names(&self) -> Vec<String> {
        self.events().into_iter().map(|(name, _)| name).collect()
    }

    fn wait_for(&self, count: usize) -> Vec<(String, Value)> {
        assert!(wait_until(PATIENCE, || self.events().len() >= count), "only {:?}", self.events());
        self.events()
    }
}

fn bodies(posted: &[Posted]) -> Vec<Value> {
    posted.iter().map(|post| serde_json::from_str(&post.body).unwrap()).collect()
}

fn id_of(body: &Value) -> i64 {
    body["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id: {body}"))
}

/// What openssl says of `TIMESTAMP.BODY` is what the header says.
fn check_signature(post: &Posted, secret: &str, folder: &Path) {
    let file = folder.join("signed");
    fs::write(&file, format!("{}.{}", post.headers["x-doorline-timestamp"], post.body)).unwrap();
    let output = run(Command::new("openssl").args(["dgst", "-sha256", "-hmac", secret]).arg(&file)).unwrap();
    let hex = String::from_utf8(output).unwrap().trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(post.headers["x-doorline-signature"], format!("sha256={hex}"));
    assert_eq!(post.headers["content-type"], "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_call_is_told_alike_to_curl_a_webhook_and_mosquitto() {
    let folder = Folder::new("broker");
    let configuration = folder.path().join("mosquitto.conf");
    fs::write(&configuration, "listener 1883 127.0.131.5\nallow_anonymous true\n").unwrap();
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.env("PATH", path).args(["-c", "exec mosquitto -v -c \"$0\""]).arg(&configuration);
    let mut broker = Process::start("mosquitto", folder.path(), &mut command);
    broker.wait_for("running", PATIENCE);
    // Its lines as they come, not when a buffer is full.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "mosquitto_sub", "-h", "127.0.131.5", "-d", "-q", "1", "-t", "site/#", "-F", "%t %p"]);
    let mut subscriber = Process::start("mosquitto_sub", folder.path(), &mut command);
    subscriber.wait_for("Subscribed", PATIENCE);

    let mqtt = [("MQTT__URL", "mqtt://127.0.131.5:1883"), ("MQTT__PREFIX", "site"), ("MQTT__EVENTS", "*")];
    let server = start("127.0.131.1", &mqtt, None);
    broker.wait_for("doorline-", PATIENCE);
    server.provision(&[("door", 1), ("p1", 0)], "room", &["p1"]);
    let unit = json!({"iotId": "iot-1", "sipNumber": "door", "password": password("door"), "host": "h", "port": "1"});
    server.api("POST", "/entrance/paas/videointercom/sipnumber/sync", Some(&unit));
    let map = json!({"iotId": "iot-1", "maps": [{"roomId": "1-9-3-1202", "groupId": "room"}]});
    server.api("POST", "/entrance/paas/videointercom/map/add", Some(&map));

    let sink = Sink::start("127.0.131.9:0");
    let hook = json!({"url": format!("http://{}/hook?a=b", sink.address), "secret": "s3cret", "events": ["*"]});
    let made = server.api("POST", "/v1/webhooks", Some(&hook));
    assert!(!made.to_string().contains("s3cret"), "{made}");
    let stream = Stream::open(&server, "events=*", None);
    let usual = Stream::open(&server, "", None);

    let mut house = House::new();
    house.add(&server, "p1", Role::Phone { early: true }).await;
    house.order("p1", Order::Register);
    house.wait("p1", "registration", |event| matches!(event, Happened::Registered)).await;
    house.add(&server, "door", Role::Door(Clip::synthetic(1000))).await;
    house.order("door", Order::Register);
    house.wait("door", "registration", |event| matches!(event, Happened::Registered)).await;
    house.order("door", Order::Call("1202".into()));
    house.wait("p1", "ring", |event| matches!(event, Happened::Incoming)).await;
    let heard = || {
        let text = subscriber.output();
        let lines = text.lines().filter_map(|line| line.strip_prefix("site")?.split_once(' '));
        lines.map(|(topic, body)| (topic.to_owned(), serde_json::from_str(body).unwrap())).collect::<Vec<(String, Value)>>()
    };
    // Before anyone answers: a wake is for a ring.
    let is_call = |body: &Value| body["eventCode"] == "1";
    assert!(wait_until(PATIENCE, || stream.events().iter().any(|(_, body)| is_call(body))));
    assert!(wait_until(PATIENCE, || bodies(&sink.posted()).iter().any(is_call)));
    assert!(wait_until(PATIENCE, || heard().iter().any(|(_, body)| is_call(body))));
    house.order("p1", Order::Unlock(7));
    house.wait("p1", "result", |event| matches!(event, Happened::UnlockResult(200))).await;
    assert!(wait_until(PATIENCE, || stream.names().contains(&"passage".to_owned())));
    house.order("p1", Order::Answer);
    house.wait("p1", "talk", |event| matches!(event, Happened::Answered)).await;
    house.order("door", Order::HangUp);

    let told = stream.wait_for(8);
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["registered", "registered", "online", "call", "unlocked", "passage", "answered", "ended"]);
    let told: Vec<Value> = told.into_iter().map(|(_, body)| body).collect();
    assert!(told.is_sorted_by_key(id_of));
    let came = wait_until(Duration::from_secs(20), || sink.posted().len() >= 8);
    assert!(came, "{:?} {}", bodies(&sink.posted()), server.api("GET", "/v1/webhooks", None));
    assert_eq!(bodies(&sink.posted()), told, "the webhook");
    sink.posted().iter().for_each(|post| check_signature(post, "s3cret", folder.path()));
    assert_eq!(sink.posted()[3].headers["x-doorline-event"], told[3]["id"].as_str().unwrap());
    assert_eq!(sink.posted()[3].path, "/hook?a=b");

    assert!(wait_until(PATIENCE, || heard().len() >= 8), "{}", subscriber.output());
    assert_eq!(heard().into_iter().map(|(_, body)| body).collect::<Vec<_>>(), told, "MQTT");
    for (topic, body) in heard() {
        let subject = if body["messageType"].is_null() { "vinotify" } else { "homelink/videointercom" };
        assert_eq!(topic, format!("/broadcast/doorline/{subject}"));
    }

    let call = &told[3];
    let id = call["callId"].as_str().unwrap();
    assert_eq!(server.api("GET", &format!("/v1/calls/{id}"), None)["from"], "door");
    let fields = ["eventCode", "source", "targetType", "target"].map(|name| call[name].as_str().unwrap());
    assert_eq!(fields, ["1", "door", "1", "room"]);
    assert!(call["eventTime"].is_i64());
    assert_eq!((&told[6]["source"], &told[7]["reason"]), (&json!("p1"), &json!("caller hung up")));
    let passage = &told[5];
    assert_eq!(passage["data"]["eventInfo"], r#"{"sipNumber":"p1","groupId":"room","roomId":"1-9-3-1202"}"#);
    assert_eq!((&passage["data"]["iotId"], &passage["data"]["tenantId"]), (&json!("iot-1"), &json!("doorline")));
    let listed = server.api("GET", "/v1/passages?version=1.1", None);
    assert_eq!((&listed[0]["id"], &listed[0]["callId"]), (&passage["id"], &json!(id)));
    assert_eq!(listed[0]["data"]["eventInfo"], r#"{"sipNumber":"p1","groupId":"room","roomId":"1-9-3-1202","spaceId":""}"#);
    assert!(listed[0]["data"]["time"].is_null());
    assert_eq!(usual.names(), ["online", "call", "passage"], "codes from 101 on are off by default");
    // The server does not wait for those who listen.
    assert!(server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_over_a_restart_without_gap_or_repeat() {
    let folder = Folder::new("stream-restart");
    let data = folder.path().join("data");
    let server = start("127.0.132.1", &[], Some(&data));
    server.provision(&[("door", 1), ("p1", 0)], "room", &["p1"]);
    let mut house = House::new();
    house.add(&server, "p1", Role::Phone { early: false }).await;
    house.order("p1", Order::Register);
    house.wait("p1", "registration", |event| matches!(event, Happened::Registered)).await;
    house.add(&server, "door", Role::Door(Clip::synthetic(1000))).await;
    for _ in 0..3 {
        house.ring("door", "room", "p1").await;
    }
    let all = Stream::open(&server, "events=call,unanswered&after=0", None).wait_for(6);
    // The last ones are told while the server ends, to nobody.
    house.order("door", Order::Call("room".into()));
    house.wait("p1", "ring", |event| matches!(event, Happened::Incoming)).await;
    assert!(server.stop());

    let server = start("127.0.132.1", &[], Some(&data));
    let last = all[2].1["id"].as_str().unwrap().to_owned();
    let stream = Stream::open(&server, "events=call,unanswered", Some(&last));
    let after = stream.wait_for(5);
    assert_eq!(after[..3], all[3..]);
    assert_eq!((after[3].0.as_str(), after[4].0.as_str()), ("call", "unanswered"));
    assert_eq!((&after[3].1["callId"], &after[4].1["reason"]), (&after[4].1["callId"], &json!("server stopped")));

    let mut house = House::new();
    house.add(&server, "p1", Role::Phone { early: false }).await;
    house.order("p1", Order::Register);
    house.wait("p1", "registration", |event| matches!(event, Happened::Registered)).await;
    house.add(&server, "door", Role::Door(Clip::synthetic(1000))).await;
    house.ring("door", "room", "p1").await;
    let after = stream.wait_for(7);
    assert_eq!((after.len(), after[5].0.as_str(), after[6].0.as_str()), (7, "call", "unanswered"));
    let ids: Vec<i64> = all.iter().take(3).chain(&after).map(|(_, body)| id_of(body)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

/// One receiver does not listen for a whole run, another takes connections and never answers, and the power goes: nobody's ring
/// waits for that, and afterwards everything comes that is still worth knowing.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_receiver_slows_no_ring_and_misses_nothing_but_ended_wakes() {
    const DOORS: usize = 40;
    const ROUNDS: usize = 5;
    const RINGS: usize = DOORS * ROUNDS;
    const DEAD: &str = "127.0.133.9:8099";
    let folder = Folder::new("dead-receiver");
    let data = folder.path().join("data");
    let server = start("127.0.133.1", &[], Some(&data));
    let number = |kind: &str, index: usize| format!("{kind}{index:02}");
    let account = |number: String, kind: u8| json!({"number": number, "password": password(&number), "type": kind});
    let accounts = (0..DOORS).flat_map(|i| [account(number("d", i), 1), account(number("p", i), 0)]);
    server.api("POST", "/v1/accounts", Some(&accounts.collect()));
    let groups = (0..DOORS).map(|i| json!({"id": number("r", i), "members": [number("p", i)]}));
    server.api("POST", "/v1/groups", Some(&groups.collect()));
    let mut house = House::new();
    for i in 0..DOORS {
        house.add(&server, &number("p", i), Role::Phone { early: false }).await;
        house.order(&number("p", i), Order::Register);
        house.wait(&number("p", i), "registration", |event| matches!(event, Happened::Registered)).await;
        house.add(&server, &number("d", i), Role::Door(Clip::synthetic(1000))).await;
    }
    let mut before = Vec::new();
    for i in 0..DOORS {
        before.push(house.ring(&number("d", i), &number("r", i), &number("p", i)).await);
    }

    let stuck = Sink::start("127.0.133.8:0");
    stuck.answer(0);
    let hook = |url: String| json!({"url": url, "secret": "s", "events": ["call", "unanswered"]});
    server.api("POST", "/v1/webhooks", Some(&hook(format!("http://{}/", stuck.address))));
    let made = server.api("POST", "/v1/webhooks", Some(&hook(format!("http://{DEAD}/"))));
    let path = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
    let mut during = Vec::new();
    for _ in 0..ROUNDS {
        for i in 0..DOORS {
            during.push(house.ring(&number("d", i), &number("r", i), &number("p", i)).await);
        }
    }
    let median = |mut all: Vec<Duration>| {
        all.sort();
        (all[all.len() / 2], all[all.len() * 95 / 100])
    };
    println!(
        "INVITE at the door to INVITE at the phone, median and 95 %: {:?} without receivers, {:?} with dead and stuck ones",
        median(before),
        median(during)
    );

    let state = server.api("GET", &path, None);
    assert!(state["failures"].as_u64() > Some(0) && state["next_try_ms"].is_i64(), "{state}");
    // Everything is written, the first wake perhaps given up already.
    let written = wait_until(PATIENCE, || {
        let state = server.api("GET", &path, None);
        state["lag"].as_u64().unwrap() + state["dead"].as_u64().unwrap() == 2 * RINGS as u64
    });
    assert!(written, "{}", server.api("GET", &path, None));
    server.kill();

    let server = start("127.0.133.1", &[], Some(&data));
    let sink = Sink::start(DEAD);
    assert!(wait_until(PATIENCE, || sink.posted().len() >= RINGS), "{} of {RINGS}", sink.posted().len());
    let came = bodies(&sink.posted());
    assert!(came.iter().all(|body| body["eventCode"] == "103") && came.is_sorted_by(|a, b| id_of(a) < id_of(b)));
    assert_eq!(came.len(), RINGS, "each once");
    let dead = server.api("GET", &format!("{path}/dead?limit=1000"), None);
    let dead = dead.as_array().unwrap();
    assert!(dead.iter().all(|letter| letter["reason"] == "ring ended" && letter["body"]["eventCode"] == "1"));
    assert_eq!(dead.len(), RINGS);

    // Whoever wants them all the same may have them.
    server.api("POST", &format!("{path}/redeliver"), None);
    assert!(wait_until(PATIENCE, || sink.posted().len() >= 2 * RINGS));
    assert!(wait_until(PATIENCE, || server.api("GET", &path, None)["dead"] == 0));
    assert_eq!(server.api("GET", &path, None)["lag"], 0);

    // One that says no is heard three times; one that is gone is left alone.
    sink.answer(422);
    server.api("POST", &format!("{path}/redeliver"), None);
    let other = Sink::start("127.0.133.7:0");
    other.answer(410);
    let made = server.api("POST", "/v1/webhooks", Some(&hook(format!("http://{}/", other.address))));
    let gone = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
    let mut house = House::new();
    house.add(&server, "p00", Role::Phone { early: false }).await;
    house.order("p00", Order::Register);
    house.wait("p00", "registration", |event| matches!(event, Happened::Registered)).await;
    house.add(&server, "d00", Role::Door(Clip::synthetic(1000))).await;
    house.ring("d00", "r00", "p00").await;
    let rejected = wait_until(PATIENCE, || {
        let dead = server.api("GET", &format!("{path}/dead"), None);
        dead.as_array().unwrap().iter().any(|letter| letter["reason"] == "status 422")
    });
    assert!(rejected, "{}", server.api("GET", &path, None));
    assert!(wait_until(PATIENCE, || server.api("GET", &gone, None)["enabled"] == false));
    assert_eq!(other.posted().len(), 1);
}
