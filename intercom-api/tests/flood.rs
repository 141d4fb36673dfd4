//! A flood of strangers from all over 127/8 against a building of phones that go on living: they refresh, reboot and are rung.
//! Half a minute; `FLOOD_S=600` makes it ten.

#![allow(clippy::disallowed_methods)] // a test with real sockets and a real clock

use fixtures::flood::{Flood, resident};
use fixtures::server::{Server, password};
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PHONES: u8 = 20;
/// Longer than any request is repeated.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long it lasts.
fn length() -> Duration {
    Duration::from_secs(std::env::var("FLOOD_S").ok().and_then(|text| text.parse().ok()).unwrap_or(30))
}

/// How long a visitor waits before the next ring: a door may ring ten times at once, then once in ten seconds.
fn pause(rings: u32) -> Duration {
    if rings < 8 { Duration::from_millis(1200) } else { Duration::from_millis(10_500) }
}

struct Phone {
    orders: mpsc::UnboundedSender<Order>,
    events: mpsc::UnboundedReceiver<(Instant, Happened)>,
}

impl Phone {
    async fn start(server: &Server, number: &str, host: u8, role: Role) -> Phone {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 7, host));
        let config = DeviceConfig {
            number: number.to_owned(),
            password: password(number),
            domain: server.sip.ip().to_string(),
            server: server.sip,
            ip,
            role,
            decode: false,
            lose: 0,
            seed: std::array::from_fn(|_| host.wrapping_mul(31) ^ Instant::now().elapsed().subsec_nanos() as u8),
        };
        let (orders, events) = Device::start(config).await.unwrap();
        Phone { orders, events }
    }

    /// Does something and waits for what it wants to happen. `false`: something else did, or nothing.
    async fn does(&mut self, order: Order, wanted: impl Fn(&Happened) -> bool, unwanted: impl Fn(&Happened) -> bool) -> bool {
        self.orders.send(order).unwrap();
        let hears = async {
            while let Some((_, happened)) = self.events.recv().await {
                if wanted(&happened) || unwanted(&happened) {
                    return wanted(&happened);
                }
            }
            false
        };
        tokio::time::timeout(PATIENCE, hears).await.unwrap_or(false)
    }

    async fn registers(&mut self) -> bool {
        self.does(
            Order::Register,
            |happened| matches!(happened, Happened::Registered),
            |happened| matches!(happened, Happened::RegisterFailed(_)),
        )
        .await
    }

    /// Rings the room until it is shown that it rings, and gives up again.
    async fn rings(&mut self) -> bool {
        let rang = self
            .does(
                Order::Call("room".into()),
                |happened| matches!(happened, Happened::Progress),
                |happened| matches!(happened, Happened::Refused(_)),
            )
            .await;
        let _ = self.orders.send(Order::HangUp);
        rang
    }
}

/// One value of `/metrics`.
fn gauge(server: &Server, name: &str) -> u64 {
    let text = fixtures::http::text(server.api, "/metrics").unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_building_lives_on_in_a_flood_and_everything_is_as_before_afterwards() {
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.0.97", "10000-10399", &[]);
    let numbers: Vec<String> = (0..PHONES).map(|n| format!("1{n:02}")).collect();
    let mut accounts: Vec<(&str, u8)> = numbers.iter().map(|number| (number.as_str(), 0)).collect();
    accounts.push(("door", 1));
    server.provision(&accounts, "room", &[&numbers[0], &numbers[1]]);
    let mut phones = Vec::new();
    for (host, number) in (1..).zip(&numbers) {
        let mut phone = Phone::start(&server, number, host, Role::Phone { early: true }).await;
        assert!(phone.registers().await);
        phones.push(phone);
    }
    let mut door = Phone::start(&server, "door", 200, Role::Door(Clip::synthetic(25))).await;
    assert!(door.registers().await && door.rings().await);

    let time = length();
    let flood = Flood { server: server.sip, victim: "100", per_second: 20_000, time, seed: 7 }.start();
    let end = Instant::now() + time;
    let mut lives = Vec::new();
    for ((host, number), mut phone) in (1..).zip(numbers.clone()).zip(phones) {
        // The last ones are switched off and on in the middle: strangers again, among all the others.
        let reboots = host > PHONES - 4;
        let reborn =
            if reboots { Some(Phone::start(&server, &number, host + 100, Role::Phone { early: true }).await) } else { None };
        lives.push(tokio::spawn(async move {
            let (mut done, mut failed) = (0u32, 0u32);
            let mut reborn = reborn;
            while Instant::now() < end {
                if Instant::now() + time / 2 > end
                    && let Some(new) = reborn.take()
                {
                    phone = new;
                }
                if phone.registers().await {
                    done += 1
                } else {
                    failed += 1
                }
                // Ten refreshes a second are a thousand times what phones do.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (phone, done, failed)
        }));
    }
    let (mut done, mut failed) = (0, 0);
    let before = resident(server.pid());
    let (mut middle, mut rings) = (0, 0);
    while !flood.is_over() {
        if door.rings().await {
            done += 1
        } else {
            failed += 1
        }
        if middle == 0 && Instant::now() + time / 2 > end {
            middle = resident(server.pid());
        }
        rings += 1;
        tokio::time::sleep(pause(rings).min(end.saturating_duration_since(Instant::now()))).await;
    }
    let sent = flood.finish();
    let after = resident(server.pid());
    let mut phones = Vec::new();
    for life in lives {
        let (phone, right, wrong) = life.await.unwrap();
        (done, failed) = (done + right, failed + wrong);
        phones.push(phone);
    }
    let memory = format!("{} KiB before, {} in the middle, {} after", before >> 10, middle >> 10, after >> 10);
    println!("{sent} datagrams of strangers; {done} transactions of the building, {failed} failed; {memory}");
    assert!(sent > 20_000, "a flood: {sent}");
    assert!(f64::from(failed) <= f64::from(done) / 1000.0, "{failed} of {done} failed\n{}", server.log());
    // What the flood may fill is bounded, and full by half time: buckets of sources, its queue, the flight recorder.
    assert!(after < before + (32 << 20) && after < middle + (8 << 20), "{memory}");

    // Afterwards everything is as before: nobody was lost, nothing is left over, everybody is served at once.
    assert_eq!(gauge(&server, "doorline_registrations "), u64::from(PHONES) + 1);
    assert!(phones[3].registers().await && door.rings().await);
    assert!(fixtures::process::wait_until(Duration::from_secs(20), || gauge(&server, "doorline_calls_running ") == 0));
    assert!(gauge(&server, "doorline_transactions_in ") <= u64::from(done + failed) * 2, "strangers leave no transactions");
    assert_eq!(server.api("GET", "/v1/bans", None), Value::Array(Vec::new()), "nobody is banned for a flood in his name");
    assert!(server.stop());
}
