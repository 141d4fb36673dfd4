//! A full disk: writes are refused with 503 and reads go on, phones register, a visitor rings and is let in; when there is room
//! again, what could not be written about it is written. On a real file system of a few megabytes, mounted for the server alone.

#![allow(clippy::disallowed_methods)] // it drives a real program in real time

mod vault;

use fixtures::process::{Folder, wait_until};
use fixtures::server::{Server, password};
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;
use vault::{phone, register};

const IP: &str = "127.0.113.1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that is the server on a file system of its own: it lives and ends with the server's mount namespace. Who is not root
/// is root in a namespace of his own.
fn on_a_small_disk(folder: &Path, data: &Path) -> PathBuf {
    fs::create_dir_all(data).unwrap();
    let (script, rights) = (folder.join("doorline-on-8m"), if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" });
    let text = format!(
        "#!/bin/sh\nexec unshare {rights} sh -c 'mount -t tmpfs -o size=8m,mode=700 tmpfs \"$0\" && exec {} \"$@\"' {} \"$@\"\n",
        env!("CARGO_BIN_EXE_doorline"),
        data.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// Writes until there is no room.
fn fill(file: &Path) {
    let mut file = File::create(file).unwrap();
    for size in [64 << 10, 4 << 10, 1] {
        loop {
            match file.write_all(&vec![0; size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

struct Phone {
    orders: UnboundedSender<Order>,
    events: UnboundedReceiver<(std::time::Instant, Happened)>,
}

impl Phone {
    async fn start(server: &Server, number: &str, role: Role) -> Phone {
        let config = DeviceConfig {
            number: number.to_owned(),
            password: password(number),
            domain: server.sip.ip().to_string(),
            server: server.sip,
            ip: server.sip.ip(),
            role,
            decode: false,
            lose: 0,
            seed: [number.len() as u8; 32],
        };
        let (orders, events) = Device::start(config).await.unwrap();
        Phone { orders, events }
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    async fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Happened) -> Option<T>) -> T {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await.unwrap_or_else(|_| panic!("no {what}"));
            if let Some(found) = wanted(&event.expect("the device runs").1) {
                return found;
            }
        }
    }
}

/// A write and its status.
fn add(server: &Server, number: &str) -> u16 {
    let account = json!({"number": number, "password": "x", "type": 0, "name": "n".repeat(64)});
    server.try_api("POST", "/v1/accounts", Some(&account)).unwrap().0
}

fn metric(server: &Server, name: &str) -> String {
    let text = fixtures::http::text(server.api, "/metrics").unwrap();
    text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_doors_open_and_nothing_is_lost() {
    let folder = Folder::new("full-disk");
    let data = folder.path().join("data");
    let script = on_a_small_disk(folder.path(), &data);
    let server = Server::start_in(&script, IP, "10000-10199", &[], Some(&data));
    server.provision(&[("door", 1), ("101", 0), ("102", 0)], "room", &["101"]);
    // From outside the server's files are seen through its own eyes.
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.pid(), data.display()));
    assert!(inside.join("doorline.sqlite").exists() && !data.join("doorline.sqlite").exists());
    let mut member = Phone::start(&server, "101", Role::Phone { early: true }).await;
    let mut door = Phone::start(&server, "door", Role::Door(Clip::synthetic(1000))).await;

    fill(&inside.join("filler"));
    // Until the log needs a page more.
    let refused = (0..5000).map(|index| add(&server, &format!("x{index}"))).find(|status| *status != 201);
    assert_eq!(refused, Some(503));
    let seed = json!({"count": 10, "type": 0});
    let (status, reply) = server.try_api("POST", "/entrance/paas/sipservice/sip/add", Some(&seed)).unwrap();
    assert_eq!((status, &reply["code"], &reply["localizedMsg"]), (503, &json!(503), &json!("the store is not available")));
    assert_eq!(server.api("GET", "/v1/accounts/101", None)["number"], "101", "reads go on");

    // A phone registers, the door rings it, it opens the door: all without the disk.
    assert_eq!(register(server.sip, &phone("127.0.113.2"), "102", "pw-102"), "200");
    member.order(Order::Register);
    member.wait("registration", |event| matches!(event, Happened::Registered).then_some(())).await;
    door.order(Order::Call("room".into()));
    member.wait("ring", |event| matches!(event, Happened::Incoming).then_some(())).await;
    member.order(Order::Unlock(7));
    let told = member.wait("result", |event| if let Happened::UnlockResult(status) = event { Some(*status) } else { None }).await;
    assert_eq!(told, 200);
    door.wait("pulse", |event| matches!(event, Happened::Opened(_)).then_some(())).await;
    // It waits as long as it takes.
    let tries = |text: &str| server.log().contains(text);
    assert!(wait_until(PATIENCE, || tries("entries of the record wait for the disk")), "{}", server.log());
    assert_ne!(metric(&server, "doorline_record_entries_waiting "), "doorline_record_entries_waiting 0");
    let records = || server.api("GET", "/v1/records", None).as_array().cloned().unwrap_or_default();
    assert_eq!(records(), Vec::<Value>::new());

    fs::remove_file(inside.join("filler")).unwrap();
    assert_eq!(add(&server, "after"), 201, "at once");
    assert!(wait_until(PATIENCE, || records().iter().any(|record| record["outcome"] == "opened")), "{}", server.log());
    assert_eq!(metric(&server, "doorline_sip_events_total{name=\"record_entries_lost\"}").rsplit(' ').next(), Some("0"));
    // What was refused left nothing, what was acknowledged is there.
    assert_eq!(server.try_api("GET", "/v1/accounts/after", None).unwrap().0, 200);
    drop(door);
    assert!(server.stop());
}
