//! The devices of the demo and what is seen of them: one line per step of the server's ladder, one per thing that happens at
//! a device, in the order of time.

#![allow(clippy::disallowed_methods)] // a shell: reads the clock

use super::server::Server;
use crate::softphone::{Device, DeviceConfig, Happened, Order, Role, Tally};
use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

/// Longest wait for anything; beyond it the demo has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the server's ladder is read and lines are printed.
const TICK: Duration = Duration::from_millis(50);
/// Lines wait so long for the ones that belong before them: the ladder is read a little later than it happens.
const SETTLE: i64 = 150;

/// Something the demo promised.
pub struct Expectation {
    pub what: String,
    pub met: bool,
}

/// What belongs first within one millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Button,
    Ladder,
    Device,
}

/// At which device, when, what.
type Seen = (String, Instant, Happened);

pub struct Stage<'a> {
    server: &'a Server,
    devices: BTreeMap<String, UnboundedSender<Order>>,
    inbox: UnboundedSender<Seen>,
    happened: UnboundedReceiver<Seen>,
    /// Events nobody waited for yet.
    unread: Vec<Seen>,
    /// What was waited for, where and when.
    seen: Vec<(String, &'static str, Instant)>,
    /// The button was pressed, and the same in milliseconds since 1970.
    button: Option<(Instant, i64)>,
    /// The call as last read, and how much of its ladder is printed.
    call: Value,
    printed: usize,
    /// (millisecond since the button, kind within it, text)
    lines: Vec<(i64, Kind, String)>,
}

impl Stage<'_> {
    pub fn new(server: &Server) -> Stage<'_> {
        let (inbox, happened) = mpsc::unbounded_channel();
        Stage {
            server,
            devices: BTreeMap::new(),
            inbox,
            happened,
            unread: Vec::new(),
            seen: Vec::new(),
            button: None,
            call: Value::Null,
            printed: 0,
            lines: Vec::new(),
        }
    }

    /// Starts a device under this name.
    pub async fn enter(&mut self, name: &str, (number, password): &(String, String), role: Role) -> anyhow::Result<()> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let config = DeviceConfig {
            number: number.clone(),
            password: password.clone(),
            domain: self.server.sip.ip().to_string(),
            server: self.server.sip,
            ip: self.server.sip.ip(),
            decode: matches!(role, Role::Phone { .. }),
            role,
            lose: 0,
            seed,
        };
        let (orders, mut events) = Device::start(config).await?;
        let (name, all) = (name.to_owned(), self.inbox.clone());
        self.devices.insert(name.clone(), orders);
        tokio::spawn(async move {
            while let Some((at, event)) = events.recv().await {
                if all.send((name.clone(), at, event)).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    pub fn order(&mut self, name: &str, order: Order) -> anyhow::Result<()> {
        match &order {
            Order::Call(_) => {
                let unix = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
                self.button = Some((Instant::now(), i64::try_from(unix)?));
            }
            Order::Unlock(_) => self.seen.push((name.to_owned(), "wish", Instant::now())),
            _ => {}
        }
        self.devices.get(name).context("no such device")?.send(order).context("the device ended")
    }

    /// Waits until this happens at this device; meanwhile everything is shown.
    pub async fn wait(&mut self, name: &str, what: &'static str, wanted: impl Fn(&Happened) -> bool) -> anyhow::Result<Happened> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(index) = self.unread.iter().position(|(who, _, event)| who == name && wanted(event)) {
                let (who, at, event) = self.unread.remove(index);
                self.seen.push((who, what, at));
                return Ok(event);
            }
            if let Some((who, _, Happened::Refused(code) | Happened::RegisterFailed(code))) = self.unread.first() {
                bail!("{who} was refused with {code} while {name} waited for its {what}");
            }
            if Instant::now() >= deadline {
                bail!("no {what} at {name} in {} s", PATIENCE.as_secs());
            }
            self.watch(deadline).await?;
        }
    }

    /// Lets time pass, and shows what happens.
    pub async fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.watch(end).await?;
        }
        Ok(())
    }

    /// What a device received so far.
    pub async fn tally(&mut self, name: &str) -> anyhow::Result<Tally> {
        self.order(name, Order::Report)?;
        match self.wait(name, "report", |event| matches!(event, Happened::Report(_))).await? {
            Happened::Report(tally) => Ok(tally),
            _ => bail!("no report"),
        }
    }

    /// The call's leg of an account as the server shows it.
    pub fn leg(&self, account: &str) -> Value {
        let legs = self.call["legs"].as_array();
        legs.and_then(|legs| legs.iter().find(|leg| leg["account"] == account)).cloned().unwrap_or_default()
    }

    /// Milliseconds from the button to something that was waited for.
    pub fn since_button(&self, name: &str, what: &str) -> Option<f64> {
        Some(ms(self.button?.0, self.when(name, what)?))
    }

    /// Milliseconds between two things.
    pub fn between(&self, from: (&str, &str), to: (&str, &str)) -> Option<f64> {
        Some(ms(self.when(from.0, from.1)?, self.when(to.0, to.1)?))
    }

    /// How often it happened, waited for or not.
    pub fn count(&self, name: &str, what: &str) -> usize {
        let unread = self.unread.iter().filter(|(who, _, event)| who == name && matches!(event, Happened::Opened(_))).count();
        self.seen.iter().filter(|(who, seen, _)| who == name && *seen == what).count() + unread
    }

    pub async fn records(&self) -> anyhow::Result<Value> {
        self.server.get("/v1/records").await
    }

    /// The picture of the latest entry of the record, once it is made; `None`: there is none.
    pub async fn picture_of_record(&mut self) -> anyhow::Result<Option<Bytes>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let entry = self.records().await?[0].take();
            if entry["snapshot_sha256"].is_string() {
                return Ok(Some(self.server.image(&format!("/v1/records/{}/snapshot", entry["id"])).await?));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            self.watch(Instant::now() + TICK).await?;
        }
    }

    /// The server's own word that the call is over, and that no call is left.
    pub async fn until_ended(&mut self) -> anyhow::Result<bool> {
        let end = Instant::now() + PATIENCE;
        while self.call["state"] != "ended" && Instant::now() < end {
            self.watch(end).await?;
        }
        self.watch(Instant::now() + TICK).await?;
        self.print(i64::MAX);
        let calls = self.server.get("/v1/calls").await?;
        Ok(calls.as_array().is_some_and(|calls| calls.iter().all(|call| call["state"] == "ended")))
    }

    fn when(&self, name: &str, what: &str) -> Option<Instant> {
        self.seen.iter().rev().find(|(who, seen, _)| who == name && *seen == what).map(|(_, _, at)| *at)
    }

    /// Takes what comes until a tick is over, then reads the ladder and prints.
    async fn watch(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        tokio::select! {
            event = self.happened.recv() => {
                let (name, at, event) = event.context("all devices ended")?;
                if let (Some(text), Some((button, _))) = (describe(&name, &event), self.button) {
                    let kind = if matches!(event, Happened::Calling) { Kind::Button } else { Kind::Device };
                    self.lines.push((ms(button, at) as i64, kind, text));
                }
                self.unread.push((name, at, event));
                return Ok(());
            }
            _ = tick.tick() => {}
            () = sleep_until(deadline.into()) => {}
        }
        self.read_ladder().await?;
        if let Some((button, _)) = self.button {
            self.print(ms(button, Instant::now()) as i64 - SETTLE);
        }
        Ok(())
    }

    async fn read_ladder(&mut self) -> anyhow::Result<()> {
        let Some((_, button_ms)) = self.button else { return Ok(()) };
        let Some(id) = self.call["id"].as_str().map(str::to_owned) else {
            self.call = self.server.get("/v1/calls").await?[0].take();
            return Ok(());
        };
        self.call = self.server.get(&format!("/v1/calls/{id}")).await?;
        let late = self.call["started_ms"].as_i64().unwrap_or(button_ms) - button_ms;
        let steps = self.call["ladder"].as_array().cloned().unwrap_or_default();
        for step in steps.iter().skip(self.printed) {
            let text = |name: &str| step[name].as_str().unwrap_or("?").to_owned();
            let at = (step["ms"].as_i64().unwrap_or_default() + late).max(0);
            self.lines.push((at, Kind::Ladder, format!("{:>12} → {:<12} {}", text("from"), text("to"), text("what"))));
        }
        self.printed = steps.len();
        Ok(())
    }

    /// Prints what is older than `until`, in the order of time.
    fn print(&mut self, until: i64) {
        self.lines.sort_by_key(|(at, kind, _)| (*at, *kind));
        let ready = self.lines.partition_point(|(at, ..)| *at <= until);
        for (at, _, line) in self.lines.drain(..ready) {
            say(&format!("{at:>6} ms  {line}"));
        }
    }
}

/// What is worth a line of its own; the rest is in the ladder.
fn describe(name: &str, event: &Happened) -> Option<String> {
    let text = match event {
        Happened::Calling => format!("{name}: the visitor presses the button"),
        Happened::FirstPicture => format!("{name} shows the visitor"),
        Happened::Opened(account) => format!("{name}: the bolt opens, {account} wished it"),
        Happened::UnlockResult(status) => format!("{name} is told {status}"),
        Happened::Cancelled => format!("{name} stops ringing"),
        _ => return None,
    };
    Some(format!("* {text}"))
}

/// A line for the reader; one who has stopped reading is no reason to stop checking.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// 128 random bits, for the token of the demo's server.
pub fn hex() -> anyhow::Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}
