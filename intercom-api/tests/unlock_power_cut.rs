//! `kill -9` amid a hundred unlocks: the record is whole, says of every wish at most what is true, and `verify-records` says so at
//! any time (D-29).

#![allow(clippy::disallowed_methods)] // it drives a real program in real time

use fixtures::process::{Folder, wait_until};
use fixtures::server::{Server, password};
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

const DOORS: usize = 50;
const PHONES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);
const IP: &str = "127.0.112.1";

/// All doors and phones, and what happens at them.
struct House {
    server: SocketAddr,
    orders: BTreeMap<String, UnboundedSender<Order>>,
    news: UnboundedSender<(String, Happened)>,
    events: UnboundedReceiver<(String, Happened)>,
    opened: BTreeSet<String>,
    /// What each phone was told.
    told: BTreeMap<String, u16>,
}

impl House {
    fn new(server: SocketAddr) -> House {
        let (news, events) = mpsc::unbounded_channel();
        let (orders, opened, told) = Default::default();
        House { server, orders, news, events, opened, told }
    }

    async fn add(&mut self, number: &str, role: Role) {
        let mut seed = [number.len() as u8; 32];
        seed[..number.len()].copy_from_slice(number.as_bytes());
        let config = DeviceConfig {
            number: number.to_owned(),
            password: password(number),
            domain: self.server.ip().to_string(),
            server: self.server,
            ip: self.server.ip(),
            role,
            decode: false,
            lose: 0,
            seed,
        };
        let (orders, mut events) = Device::start(config).await.unwrap();
        self.orders.insert(number.to_owned(), orders);
        let (news, number) = (self.news.clone(), number.to_owned());
        tokio::spawn(async move {
            while let Some((_, event)) = events.recv().await {
                let _ = news.send((number.clone(), event));
            }
        });
    }

    fn order(&self, number: &str, order: Order) {
        self.orders[number].send(order).unwrap();
    }

    fn note(&mut self, number: String, event: &Happened) {
        match event {
            Happened::Opened(_) => drop(self.opened.insert(number)),
            Happened::UnlockResult(status) => assert_eq!(self.told.insert(number, *status), None, "told once"),
            _ => {}
        }
    }

    /// Waits until it has happened so often.
    async fn wait(&mut self, what: &str, count: usize, wanted: impl Fn(&Happened) -> bool) {
        let mut seen = 0;
        while seen < count {
            let event = timeout(PATIENCE, self.events.recv()).await;
            let (number, event) = event.unwrap_or_else(|_| panic!("only {seen} of {count} {what}")).unwrap();
            seen += usize::from(wanted(&event));
            self.note(number, &event);
        }
    }

    /// What has happened meanwhile.
    fn catch_up(&mut self) {
        while let Ok((number, event)) = self.events.try_recv() {
            self.note(number, &event);
        }
    }
}

fn door(index: usize) -> String {
    format!("d{index:03}")
}

fn phone(index: usize) -> String {
    format!("p{index:03}")
}

fn start(data: &Path) -> Server {
    Server::start_in(Path::new(env!("CARGO_BIN_EXE_doorline")), IP, "10000-12999", &[], Some(data))
}

/// `doorline verify-records`: its exit status and what it says.
fn verify(data: &Path, expect: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorline"));
    let output = command.args(["verify-records", "--data-dir"]).arg(data).args(expect).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn records(server: &Server) -> Vec<Value> {
    server.api("GET", "/v1/records?limit=1000", None).as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_amid_a_hundred_unlocks_leaves_a_whole_record_that_claims_nothing_that_was_not() {
    let folder = Folder::new("unlock-power-cut");
    let data = folder.path().join("data");
    let server = start(&data);
    let account = |number: String, kind: u8| json!({"number": number, "password": password(&number), "type": kind});
    server.api("POST", "/v1/accounts", Some(&(0..DOORS).map(|index| account(door(index), 1)).collect::<Value>()));
    server.api("POST", "/v1/accounts", Some(&(0..PHONES).map(|index| account(phone(index), 0)).collect::<Value>()));
    let room = |index: usize| json!({"id": format!("r{index:03}"), "members": [phone(2 * index), phone(2 * index + 1)]});
    server.api("POST", "/v1/groups", Some(&(0..DOORS).map(room).collect::<Value>()));

    let mut house = House::new(server.sip);
    for index in 0..PHONES {
        house.add(&phone(index), Role::Phone { early: true }).await;
        house.order(&phone(index), Order::Register);
    }
    house.wait("registrations", PHONES, |event| matches!(event, Happened::Registered)).await;
    for index in 0..DOORS {
        house.add(&door(index), Role::Door(Clip::synthetic(1000))).await;
        house.order(&door(index), Order::Call(format!("r{index:03}")));
    }
    house.wait("rings", PHONES, |event| matches!(event, Happened::Incoming)).await;

    // Half of them are through and on record.
    let half = PHONES / 2;
    for index in 0..half {
        house.order(&phone(index), Order::Unlock(7));
    }
    house.wait("results", half, |event| matches!(event, Happened::UnlockResult(_))).await;
    let sure: Vec<String> = house.told.iter().filter(|(_, status)| **status == 200).map(|(number, _)| number.clone()).collect();
    assert!(wait_until(PATIENCE, || records(&server).len() == half));
    let (status, text) = verify(&data, &[]);
    assert_eq!(status, Some(0), "while it runs: {text}");
    let expect = text.lines().find_map(|line| line.strip_prefix("last entry ")).unwrap().to_owned();
    // The power goes when the first of the others' doors have opened.
    for index in half..PHONES {
        house.order(&phone(index), Order::Unlock(7));
    }
    house.wait("openings", 10, |event| matches!(event, Happened::Opened(_))).await;
    // At once, without a program for it.
    kill_process(Pid::from_raw(server.pid() as i32).unwrap(), Signal::KILL).unwrap();
    server.kill();
    house.catch_up();
    let (status, text) = verify(&data, &["--expect", &expect]);
    assert_eq!(status, Some(0), "as the cut has left it: {text}");

    let server = start(&data);
    let found = records(&server);
    let outcome = |name: &str| found.iter().filter(|record| record["outcome"] == name).count();
    for record in &found {
        let number = record["door"].as_str().unwrap();
        match record["outcome"].as_str().unwrap() {
            "opened" => assert!(house.opened.contains(number), "{number} says it never opened: {record}"),
            "unknown" => assert_eq!((&record["status"], &record["reason"]), (&json!(408), &json!("server stopped"))),
            other => panic!("{other}: {record}"),
        }
    }
    let one = |account: &str| found.iter().filter(|record| record["account"] == account).collect::<Vec<_>>();
    for account in &sure {
        assert!(matches!(one(account)[..], [record] if record["outcome"] == "opened"), "{account} was told so");
    }
    let told: Vec<&String> = house.told.iter().filter(|(_, status)| **status == 200).map(|(account, _)| account).collect();
    let unrecorded = told.iter().filter(|account| !one(account).iter().any(|record| record["outcome"] == "opened")).count();
    println!(
        "{} told, {} doors opened; on record: {} opened, {} cut off; {unrecorded} told in the last 50 ms and not on record",
        told.len(),
        house.opened.len(),
        outcome("opened"),
        outcome("unknown"),
    );
    assert!(sure.len() == half && found.len() <= PHONES);
    assert_eq!(verify(&data, &["--expect", &expect]).0, Some(0), "after the restart");

    assert!(server.stop());
    assert_eq!(verify(&data, &[]).0, Some(0), "after an orderly stop");
    // And it is not always content.
    let database = Connection::open(data.join("doorline.sqlite")).unwrap();
    let opened = "SELECT min(id) FROM entry WHERE content LIKE '%\"opened\"%'";
    let id: i64 = database.query_row(opened, [], |row| row.get(0)).unwrap();
    database.execute("UPDATE entry SET content = replace(content, 'opened', 'refused') WHERE id = ?1", [id]).unwrap();
    let (status, text) = verify(&data, &[]);
    assert!(status == Some(1) && text.contains(&format!("entry {id}:")), "{text}");
}
