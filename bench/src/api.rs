//! The provisioning API of a large estate: how soon it is ready, what it weighs, how fast it answers, and what phones notice of it.
//! The server has the last core, the load the first.

use crate::load::{Load, Plan, number};
use crate::meter::Meter;
use crate::register::REALM;
use crate::relay::{Core, on};
use crate::stats::{Reach, Row};
use anyhow::{Context, bail, ensure};
use fixtures::process::Folder;
use fixtures::server::{BEARER, Server, password};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub struct Settings {
    pub accounts: usize,
    /// Groups of three, and as many rooms.
    pub groups: usize,
    /// How long each part takes.
    pub seconds: u64,
}

/// `detail/get` a second that must be served.
const RATE: u32 = 1000;
/// Clients that keep their connections.
const CLIENTS: u32 = 4;
/// Door units over which the rooms are spread.
const UNITS: usize = 30;

pub fn run(binary: &Path, settings: &Settings) -> anyhow::Result<Vec<Row>> {
    ensure!(binary.exists(), "no server at {}: cargo build --release", binary.display());
    let folder = Folder::new("bench-api");
    let (data, file) = (folder.path().join("data"), folder.path().join("estate.jsonl"));
    write_estate(&file, settings).context("the estate")?;
    let mut rows = Vec::new();

    let begin = Instant::now();
    let import = Command::new(binary).args(["import", "--data-dir"]).arg(&data).arg(&file).output()?;
    ensure!(import.status.success(), "import: {}", String::from_utf8_lossy(&import.stderr));
    let &Settings { accounts, groups, seconds } = settings;
    rows.push(Row::figure(format!("import of {accounts} accounts, {groups} groups, {groups} rooms"), "s", seconds_since(begin)));

    on(Core::Server)?;
    let begin = Instant::now();
    let server = Server::start_in(binary, "127.0.0.62", "20000-20099", &[("SIP__SOURCE_RATE", "0")], Some(&data));
    rows.push(Row::figure("start to ready", "s", seconds_since(begin)).reach(Reach::AtMost(2.0)));
    on(Core::Generator)?;
    let meter = Meter::new(server.pid());
    rows.push(Row::figure("resident when ready", "MiB", meter.resident()? / 1024.0).reach(Reach::AtMost(200.0)));

    let mut client = Client::new(server.api)?;
    let add = json!({"count": 100, "type": 0});
    rows.push(Row::of("sip/add of 100", "ms", client.time(50, |_| ("sipservice/sip/add", add.clone()))?, Some(20.0))?);
    let page = |index: usize| {
        let page = json!({"iotId": format!("iot-{}", index % UNITS), "pageNo": 1 + index % 5, "pageSize": 100});
        ("videointercom/map/query", page)
    };
    rows.push(Row::of("map/query, a page of 100", "ms", client.time(200, page)?, Some(5.0))?);

    let cpu = meter.cpu()?;
    let (times, took) = detail_at_rate(server.api, settings)?;
    let (cpu, count) = (meter.cpu()? - cpu, times.len() as f64);
    rows.push(Row::figure("detail/get a second", "1/s", count / took).reach(Reach::AtLeast(f64::from(RATE) * 0.99)));
    rows.push(Row::of("detail/get", "ms", times, None)?);
    rows.push(Row::figure("CPU of 1,000 detail/get", "s", cpu / (count / 1000.0)).reach(Reach::AtMost(1.0)));

    let mut phones = Load::new(server.sip, REALM, accounts.min(2000), 50)?;
    let mut register = || -> anyhow::Result<Vec<f64>> {
        let plan = Plan { count: 200 * seconds, rate: 200.0, grace: Duration::from_secs(5) };
        let outcome = phones.run(plan)?;
        ensure!(outcome.share() > 0.999, "only {} of the phones registered", outcome.share());
        Ok(outcome.latencies)
    };
    // The first registrations fill tables.
    register()?;
    let mut idle = register()?;
    let (loaded, calls) = under_load(server.api, accounts, &mut register)?;
    idle.extend(register()?);
    let ratio = p99(&loaded) / p99(&idle);
    rows.push(Row::of("REGISTER → 200, API idle (before and after)", "ms", idle, None)?);
    rows.push(Row::of("REGISTER → 200, API under full load", "ms", loaded, None)?);
    rows.push(Row::figure("API calls a second meanwhile", "1/s", calls / seconds as f64));
    rows.push(Row::figure("REGISTER p99, loaded / idle", "ratio", ratio).reach(Reach::AtMost(2.0)));
    rows.push(Row::figure("resident at the end", "MiB", meter.resident()? / 1024.0));
    ensure!(server.stop(), "the server did not end well");
    Ok(rows)
}

fn seconds_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64()
}

fn p99(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

/// As `export` would write it.
fn write_estate(file: &Path, settings: &Settings) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut line = |line: Value| writeln!(out, "{line}");
    line(json!({"kind": "doorline_export", "version": 1}))?;
    let account = |number: String, kind: u8| json!({"kind": "account", "password": password(&number), "number": number, "type": kind, "name": null, "created_ms": 1});
    for index in 0..settings.accounts {
        line(account(number(index), 0))?;
    }
    for unit in 0..UNITS {
        line(account(format!("d{unit}"), 1))?;
    }
    for group in 0..settings.groups {
        let members: Vec<String> = (0..3).map(|member| number((group * 3 + member) % settings.accounts)).collect();
        line(json!({"kind": "group", "id": format!("g{group}"), "members": members, "name": null, "created_ms": 1}))?;
    }
    for unit in 0..UNITS {
        let (iot_id, door) = (format!("iot-{unit}"), format!("d{unit}"));
        line(json!({"kind": "unit", "iot_id": iot_id, "password": password(&door), "number": door, "host": "sip.example.com",
                    "port": "6050", "product_key": null, "device_name": null, "nick_name": null}))?;
    }
    for group in 0..settings.groups {
        let (iot_id, room) = (format!("iot-{}", group % UNITS), format!("1-{}-1-{}", group % UNITS, group / UNITS));
        line(json!({"kind": "room", "iot_id": iot_id, "room": room, "group": format!("g{group}")}))?;
    }
    Ok(out.flush()?)
}

/// One HTTP connection that stays open.
struct Client {
    api: SocketAddr,
    reader: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Client {
    fn new(api: SocketAddr) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(api)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client { api, reader: BufReader::new(stream), body: Vec::new() })
    }

    /// One call that must succeed.
    fn call(&mut self, path: &str, params: &Value) -> anyhow::Result<()> {
        let (api, body) = (self.api, params.to_string());
        let request = format!(
            "POST /entrance/paas/{path} HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {BEARER}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.reader.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut status, mut length) = (String::new(), String::new(), 0);
        loop {
            line.clear();
            ensure!(self.reader.read_line(&mut line)? > 0, "{path}: the server closed the connection");
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if status.is_empty() {
                status.clone_from(&text);
            }
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        self.body.resize(length, 0);
        self.reader.read_exact(&mut self.body)?;
        if !status.starts_with("http/1.1 200") {
            bail!("{path}: {status} {}", String::from_utf8_lossy(&self.body));
        }
        Ok(())
    }

    /// Milliseconds of calls one after the other.
    fn time(&mut self, count: usize, call: impl Fn(usize) -> (&'static str, Value)) -> anyhow::Result<Vec<f64>> {
        (0..count)
            .map(|index| {
                let (path, params) = call(index);
                let begin = Instant::now();
                self.call(path, &params)?;
                Ok(begin.elapsed().as_secs_f64() * 1000.0)
            })
            .collect()
    }
}

fn detail(index: usize, accounts: usize) -> Value {
    // All over the table.
    json!({"sipNumber": number(index.wrapping_mul(7919) % accounts)})
}

/// Milliseconds from the moment each call should have begun, and how long all took.
fn detail_at_rate(api: SocketAddr, settings: &Settings) -> anyhow::Result<(Vec<f64>, f64)> {
    let begin = Instant::now();
    let client = |client: u32| -> anyhow::Result<Vec<f64>> {
        let mut connection = Client::new(api)?;
        let mut times = Vec::new();
        for index in 0..u64::from(RATE / CLIENTS) * settings.seconds {
            let at = begin
                + Duration::from_secs_f64((index as f64 + f64::from(client) / f64::from(CLIENTS)) / f64::from(RATE / CLIENTS));
            thread::sleep(at.saturating_duration_since(Instant::now()));
            connection.call("sipservice/sip/detail/get", &detail(index as usize * 31 + client as usize, settings.accounts))?;
            times.push(at.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times)
    };
    let times = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|index| scope.spawn(move || client(index))).collect();
        clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    Ok((times.concat(), seconds_since(begin)))
}

/// Does something while clients call as fast as they are answered: readers, and one that adds accounts. How many calls there were.
fn under_load<T>(api: SocketAddr, accounts: usize, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
    let over = AtomicBool::new(false);
    let client = |client: u32| -> anyhow::Result<u64> {
        let mut connection = Client::new(api)?;
        let mut count = 0;
        while !over.load(Ordering::Relaxed) {
            if client == 0 {
                connection.call("sipservice/sip/add", &json!({"count": 10, "type": 0}))?;
            } else {
                connection.call("sipservice/sip/detail/get", &detail(count as usize * 31 + client as usize, accounts))?;
            }
            count += 1;
        }
        Ok(count)
    };
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS).map(|index| scope.spawn(move || client(index))).collect();
        let done = work();
        over.store(true, Ordering::Relaxed);
        let mut calls = 0;
        for client in clients {
            calls += client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok((done?, calls as f64))
    })
}
