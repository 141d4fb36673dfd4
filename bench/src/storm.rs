//! The power comes back: all phones of an estate register within ten seconds.

use crate::load::{Load, Plan};
use crate::meter::Meter;
use crate::register::{REALM, provision};
use crate::stats::{Reach, Row};
use anyhow::ensure;
use fixtures::server::Server;
use std::path::Path;
use std::time::Duration;

pub struct Settings {
    pub accounts: usize,
    pub within: u32,
    pub sockets: usize,
    /// Seconds after the storm until idle memory is read; 0: it is not.
    pub settle: u64,
}

/// Fails unless every phone is registered.
pub fn run(binary: &Path, settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let &Settings { accounts, within, sockets, settle } = settings;
    ensure!(binary.exists(), "no server at {}: cargo build --release", binary.display());
    let server = Server::start(binary, "127.0.0.62", "20000-20099", &[]);
    provision(&server, accounts);
    let meter = Meter::new(server.pid());
    let (idle, cpu) = (meter.resident()?, meter.cpu()?);
    let mut load = Load::new(server.sip, REALM, accounts, sockets)?;
    let rate = accounts as f64 / f64::from(within);
    let outcome = load.run(Plan { count: accounts as u64, rate, grace: Duration::from_secs(40) })?;
    let (cpu, peak) = (meter.cpu()? - cpu, meter.peak()?);
    let share = outcome.share();
    ensure!(share >= 1.0, "{} of {accounts} phones are registered", outcome.registered);
    let mut rows = vec![
        Row::figure(format!("{accounts} phones within {within} s: registered"), "share", share).reach(Reach::AtLeast(1.0)),
        Row::figure("until the last was", "s", outcome.took.as_secs_f64()),
        Row::of("REGISTER → 200", "ms", outcome.latencies, None)?,
        Row::figure("repeated requests", "count", outcome.repeats as f64),
        Row::figure("server CPU", "s", cpu),
        Row::figure("server memory before", "MiB", idle / 1024.0),
        Row::figure("server memory at its peak", "MiB", peak / 1024.0),
    ];
    if settle > 0 {
        // Transactions live 32 s (timer J); what is left then is the bindings.
        std::thread::sleep(Duration::from_secs(settle));
        let each = (meter.resident()? - idle) / accounts as f64;
        rows.push(Row::figure("memory per idle binding", "KiB", each).reach(Reach::AtMost(1.0)));
    }
    // After the memory was read: a list of them all costs some itself.
    let listed = server.api("GET", "/v1/registrations", None);
    let listed = listed.as_array().or_else(|| listed["registrations"].as_array()).map_or(0, Vec::len);
    ensure!(listed > 0, "the server lists no registration");
    Ok(rows)
}
