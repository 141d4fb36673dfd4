//! What a registration costs: REGISTER, 401, REGISTER, 200 at a fixed rate, Doorline and Kamailio in turns.

use crate::kamailio::Kamailio;
use crate::load::{Load, Plan, number};
use crate::meter::Meter;
use crate::stats::{Reach, Row};
use anyhow::ensure;
use fixtures::server::{Server, password};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// `sip.realm` by default.
pub const REALM: &str = "doorline";
/// Processes Kamailio answers with: one per core and one more.
const WORKERS: u32 = 3;

pub struct Settings {
    pub rates: Vec<u32>,
    pub seconds: u32,
    pub accounts: usize,
    pub sockets: usize,
    pub kamailio: bool,
    /// Seconds between Kamailio's writes.
    pub flush: u32,
}

pub fn run(binary: &Path, settings: &Settings) -> anyhow::Result<Vec<Row>> {
    ensure!(binary.exists(), "no server at {}: cargo build --release", binary.display());
    let server = Server::start(binary, "127.0.0.62", "20000-20099", &[]);
    provision(&server, settings.accounts);
    let kamailio = settings.kamailio.then(|| Kamailio::start("127.0.0.70", REALM, WORKERS, settings.flush)).transpose()?;
    let mut ours = Side::new("Doorline", server.sip, server.pid(), settings)?;
    let mut theirs = kamailio.as_ref().map(|k| Side::new("Kamailio", k.sip, k.pid(), settings)).transpose()?;
    let mut rows = Vec::new();
    for &rate in &settings.rates {
        let cost = ours.measure(&mut rows, rate, settings.seconds)?;
        if let Some(theirs) = &mut theirs {
            let ratio = cost / theirs.measure(&mut rows, rate, settings.seconds)?;
            let name = format!("{rate}/s: Doorline's CPU / Kamailio's");
            rows.push(Row::figure(name, "ratio", ratio).reach(Reach::AtMost(0.75)));
        }
    }
    Ok(rows)
}

/// A server and the phones that register there.
struct Side {
    name: &'static str,
    load: Load,
    meter: Meter,
}

impl Side {
    /// The first registrations of all phones fill tables; a measured phone is one that is known.
    fn new(name: &'static str, sip: SocketAddr, pid: u32, settings: &Settings) -> anyhow::Result<Side> {
        let mut load = Load::new(sip, REALM, settings.accounts, settings.sockets)?;
        load.run(Plan { count: settings.accounts as u64, rate: 4000.0, grace: Duration::from_secs(10) })?;
        Ok(Side { name, load, meter: Meter::new(pid) })
    }

    /// CPU seconds per 1,000 registrations.
    fn measure(&mut self, rows: &mut Vec<Row>, rate: u32, seconds: u32) -> anyhow::Result<f64> {
        let before = self.meter.cpu()?;
        let count = u64::from(rate) * u64::from(seconds);
        let outcome = self.load.run(Plan { count, rate: f64::from(rate), grace: Duration::from_secs(5) })?;
        // What is written a moment later belongs to it.
        std::thread::sleep(Duration::from_secs(1));
        let cpu = (self.meter.cpu()? - before) / (outcome.registered.max(1) as f64 / 1000.0);
        let (who, share) = (self.name, outcome.share());
        let reached = outcome.registered as f64 / outcome.took.as_secs_f64();
        rows.push(Row::figure(format!("{rate}/s {who}: CPU per 1,000 registrations"), "s", cpu));
        rows.push(Row::figure(format!("{rate}/s {who}: registered"), "share", share).reach(Reach::AtLeast(0.999)));
        rows.push(Row::figure(format!("{rate}/s {who}: registrations per second"), "1/s", reached));
        rows.push(Row::figure(format!("{rate}/s {who}: repeated requests"), "count", outcome.repeats as f64));
        rows.push(Row::of(format!("{rate}/s {who}: REGISTER → 200"), "ms", outcome.latencies, None)?);
        Ok(cpu)
    }
}

/// Accounts of the load, 100 a call.
pub fn provision(server: &Server, accounts: usize) {
    let numbers: Vec<String> = (0..accounts).map(number).collect();
    for chunk in numbers.chunks(100) {
        let list: Vec<Value> =
            chunk.iter().map(|number| json!({"number": number, "password": password(number), "type": 0})).collect();
        server.api("POST", "/v1/accounts", Some(&Value::from(list)));
    }
}
