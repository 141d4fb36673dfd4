//! Rings at the same time: how long until the door has its 183, how long until a phone has a picture.

use crate::stats::Row;
use anyhow::{Context, bail, ensure};
use fixtures::server::{Server, password};
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

/// Longest wait for anything; beyond it the run has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Handle {
    orders: UnboundedSender<Order>,
    events: UnboundedReceiver<(Instant, Happened)>,
}

impl Handle {
    async fn start(server: &Server, number: &str, role: Role, seed: usize) -> anyhow::Result<Handle> {
        let mut bytes = [0u8; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = DeviceConfig {
            number: number.to_owned(),
            password: password(number),
            domain: server.sip.ip().to_string(),
            server: server.sip,
            ip: [127, 0, 0, 61].into(),
            role,
            decode: false,
            lose: 0,
            seed: bytes,
        };
        let (orders, events) = Device::start(config).await?;
        Ok(Handle { orders, events })
    }

    /// Waits for something, and says when it happened. Anything that makes it impossible is an error.
    async fn wait(&mut self, what: &str, wanted: impl Fn(&Happened) -> bool) -> anyhow::Result<Instant> {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await.with_context(|| format!("no {what} in {PATIENCE:?}"))?;
            let (at, event) = event.context("the device ended")?;
            if wanted(&event) {
                return Ok(at);
            }
            if let Happened::Refused(code) | Happened::RegisterFailed(code) = event {
                bail!("{code} while waiting for {what}");
            }
        }
    }
}

pub async fn run(binary: &Path, rings: usize, phones: usize, rounds: usize) -> anyhow::Result<Vec<Row>> {
    // Pairs rest 30 s after a call, so every round wants its own.
    let pairs = rings * (phones + 1) * 2 * (rounds + 1);
    ensure!(binary.exists(), "no server at {}: cargo build --release", binary.display());
    let server = Server::start(binary, "127.0.0.60", &format!("20000-{}", 20000 + (2 * pairs - 1).min(25_000)), &[]);
    provision(&server, rings, phones);
    let mut doors = Vec::new();
    let mut rooms = Vec::new();
    for ring in 0..rings {
        doors.push(Handle::start(&server, &format!("door{ring}"), Role::Door(Clip::synthetic(50)), ring).await?);
        let mut room = Vec::new();
        for phone in 0..phones {
            let handle = Handle::start(
                &server,
                &format!("phone{ring}-{phone}"),
                Role::Phone { early: true },
                1_000_000 + ring * 100 + phone,
            )
            .await?;
            handle.orders.send(Order::Register)?;
            room.push(handle);
        }
        for phone in &mut room {
            phone.wait("registration", |e| matches!(e, Happened::Registered)).await?;
        }
        rooms.push(room);
    }
    let (mut progress, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (ring, door) in doors.iter().enumerate() {
            door.orders.send(Order::Call(format!("room{ring}")))?;
        }
        for (door, room) in doors.iter_mut().zip(&mut rooms) {
            let called = door.wait("call", |e| matches!(e, Happened::Calling)).await?;
            let at = door.wait("183", |e| matches!(e, Happened::Progress)).await?;
            progress.push(ms(called, at));
            for phone in room {
                let at = phone.wait("picture", |e| matches!(e, Happened::FirstPicture)).await?;
                seen.push(ms(called, at));
            }
        }
        for (door, room) in doors.iter_mut().zip(&mut rooms) {
            door.orders.send(Order::HangUp)?;
            for phone in room {
                phone.wait("end", |e| matches!(e, Happened::Ended(_))).await?;
            }
        }
    }
    let first_video = first_video(&server, rings * phones * rounds)?;
    Ok(vec![
        Row::of(format!("{rings} rings: INVITE (with its challenge) → 183"), "ms", progress, Some(50.0))?,
        Row::of(format!("{rings} rings × {phones} phones: first_video_ms (D-20)"), "ms", first_video, Some(300.0))?,
        Row::of("button pressed → picture complete on a phone", "ms", seen, None)?,
    ])
}

/// Doors, their rooms and the phones in them.
pub fn provision(server: &Server, rings: usize, phones: usize) {
    let mut accounts = Vec::new();
    let mut groups = Vec::new();
    for ring in 0..rings {
        let door = format!("door{ring}");
        accounts.push(json!({"number": door, "password": password(&door), "type": 1}));
        let members: Vec<String> = (0..phones).map(|phone| format!("phone{ring}-{phone}")).collect();
        accounts.extend(members.iter().map(|number| json!({"number": number, "password": password(number), "type": 0})));
        groups.push(json!({"id": format!("room{ring}"), "members": members}));
    }
    for chunk in accounts.chunks(100) {
        server.api("POST", "/v1/accounts", Some(&Value::from(chunk.to_vec())));
    }
    for chunk in groups.chunks(100) {
        server.api("POST", "/v1/groups", Some(&Value::from(chunk.to_vec())));
    }
}

/// What the server itself measured, of every member leg.
pub fn first_video(server: &Server, expected: usize) -> anyhow::Result<Vec<f64>> {
    let calls = server.api("GET", "/v1/calls", None);
    let list = calls.as_array().or_else(|| calls["calls"].as_array()).context("/v1/calls is no list")?;
    let legs = list.iter().flat_map(|call| call["legs"].as_array().into_iter().flatten());
    let times: Vec<f64> = legs.filter(|leg| leg["role"] == "member").filter_map(|leg| leg["first_video_ms"].as_f64()).collect();
    if times.len() != expected {
        bail!("{} of {expected} legs have first_video_ms", times.len());
    }
    Ok(times)
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}
