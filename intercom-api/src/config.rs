//! The configuration: one struct, all defaults, checked completely before any socket opens.
//!
//! TOML, then environment `DOORLINE_<SECTION>__<KEY>` (lists comma-separated), which wins. An unknown key or variable is an
//! error: a misspelt setting must not silently be the default. A key is here when something honours it.

mod callers;
pub mod events;

pub use callers::{App, Grant, Role, User};
pub use events::{Events, Mqtt, Webhook};

use crate::keyfile::{self, Key};
use crate::model::Secret;
use crate::store::MAX_MEMBERS;
use crate::switchboard::limits::SOURCE_RATE;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    #[serde(flatten)]
    pub top: Top,
    pub sip: Sip,
    pub tls: Tls,
    pub media: Media,
    pub api: Api,
    pub ring: Ring,
    pub talk: Talk,
    pub unlock: Unlock,
    pub records: Records,
    pub store: Store,
    pub events: Events,
    pub mqtt: Mqtt,
    pub webhooks: Vec<Webhook>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Top {
    pub data_dir: PathBuf,
    pub drain_s: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sip {
    pub udp: Vec<String>,
    pub tcp: Vec<String>,
    pub tls: Vec<String>,
    pub ws: Vec<String>,
    pub wss: Vec<String>,
    pub domains: Vec<String>,
    pub realm: String,
    pub public_host: String,
    pub source_rate: u32,
    pub sha256: bool,
    /// 0: off.
    pub ping_s: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    pub bind_ip: String,
    pub public_ip: String,
    pub ports: String,
    /// 0: as many as fit the machine.
    pub workers: u16,
    /// 0: off.
    pub silence_s: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    pub listen: String,
    pub tls: bool,
    pub bearer: Secret,
    pub apps: Vec<App>,
    pub users: Vec<User>,
    /// 0: no limit.
    pub rate: u32,
    pub server_port: bool,
    pub group_members: usize,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ring {
    pub timeout_s: u64,
    /// `ringback` or `none`.
    pub tone: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Talk {
    pub limit_s: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Unlock {
    pub while_ringing: bool,
    pub out_of_dialog: bool,
    pub timeout_ms: u64,
    pub hold_s: u64,
    pub utc_offset_minutes: i32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Records {
    pub keep_days: u32,
    pub snapshots_mb: u32,
}

/// Keys as 64 hex digits, for who keeps them elsewhere than in `data_dir`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    pub key: Secret,
    pub new_key: Secret,
}

impl Store {
    /// The key of secrets, if it is set.
    pub fn key(&self) -> Option<Key> {
        keyfile::parse(self.key.reveal())
    }

    /// The next one, for `rotate-key`.
    pub fn new_key(&self) -> Option<Key> {
        keyfile::parse(self.new_key.reveal())
    }
}

impl Default for Records {
    fn default() -> Records {
        Records { keep_days: 30, snapshots_mb: 4000 }
    }
}

impl Default for Unlock {
    fn default() -> Unlock {
        Unlock { while_ringing: true, out_of_dialog: false, timeout_ms: 2700, hold_s: 3, utc_offset_minutes: 0 }
    }
}

impl Default for Top {
    fn default() -> Top {
        Top { data_dir: "./doorline-data".into(), drain_s: 30 }
    }
}

impl Default for Sip {
    fn default() -> Sip {
        Sip {
            udp: vec!["0.0.0.0:6050".into()],
            tcp: vec!["0.0.0.0:6050".into()],
            tls: Vec::new(),
            ws: Vec::new(),
            wss: Vec::new(),
            domains: Vec::new(),
            realm: "doorline".into(),
            public_host: String::new(),
            source_rate: SOURCE_RATE,
            sha256: false,
            ping_s: 0,
        }
    }
}

impl Default for Media {
    fn default() -> Media {
        Media { bind_ip: "0.0.0.0".into(), public_ip: String::new(), ports: "10000-20000".into(), workers: 0, silence_s: 30 }
    }
}

impl Default for Api {
    fn default() -> Api {
        Api {
            listen: "127.0.0.1:8080".into(),
            tls: false,
            bearer: Secret::default(),
            apps: Vec::new(),
            users: Vec::new(),
            rate: 1000,
            server_port: false,
            group_members: 32,
        }
    }
}

impl Default for Ring {
    fn default() -> Ring {
        Ring { timeout_s: 60, tone: "ringback".into() }
    }
}

impl Default for Talk {
    fn default() -> Talk {
        Talk { limit_s: 300 }
    }
}

/// Section, key, what it is; in the order in which they are printed.
const KEYS: &[(&str, &str, &str)] = &[
    ("", "data_dir", "where the SQLite file and generated keys live"),
    ("", "drain_s", "SIGTERM: running calls have so many seconds to end by themselves"),
    events::WEBHOOKS,
    ("sip", "udp", "addresses to listen on; port 0 is the system's choice"),
    ("sip", "tcp", "the same for TCP; where it is not set, those of sip.udp; an empty list turns it off"),
    ("sip", "tls", "the same for TLS, usually port 5061; needs tls.cert and tls.key"),
    ("sip", "ws", "the same for SIP over WebSocket (RFC 7118)"),
    ("sip", "wss", "the same over secure WebSocket; needs tls.cert and tls.key"),
    ("sip", "domains", "Request-URI hosts that are ours beside our addresses and sip.public_host; others get 404"),
    ("sip", "realm", "digest realm; passwords do not depend on it"),
    ("sip", "public_host", "host written in Contact and Via and returned as sipHost; empty: the address a device reached us at"),
    (
        "sip",
        "source_rate",
        "datagrams per second of one address that has not signed in; five times that at once; 0: no limit, for phones that all come from one proxy",
    ),
    ("sip", "sha256", "offer SHA-256 before MD5; old phones (baresip 1.0) do not register when it comes first"),
    ("sip", "ping_s", "ask UDP phones that were silent for so many seconds whether they are there (15-3600); 0: do not ask"),
    ("tls", "cert", "PEM file with the certificate and its chain; read again on SIGHUP"),
    ("tls", "key", "PEM file with its private key"),
    ("media", "bind_ip", "address of the RTP sockets"),
    ("media", "public_ip", "address written in SDP; empty: bind_ip, or the address a device reached us at"),
    ("media", "ports", "RTP on the even ports of this range, RTCP on the next one; a ringing phone with video takes four"),
    ("media", "workers", "media threads; 0: one less than cores, at least one"),
    ("media", "silence_s", "a talk ends when one of its two sides sends nothing for so many seconds (5-3600); 0: it goes on"),
    ("api", "listen", "address of the HTTP API"),
    ("api", "tls", "serve it with tls.cert and tls.key"),
    ("api", "bearer", "token of the owner; empty: he has none"),
    ("api", "apps", "platforms that sign their requests: tables of key, secret and name; empty: one is made at the first start"),
    (
        "api",
        "users",
        "further tokens: tables of name, token, role (owner or operator) and may (passwords, pictures) for operators",
    ),
    ("api", "rate", "requests a second of one app or user; more get 429; 0: no limit"),
    ("api", "server_port", "lists of a group's accounts have `serverPort` beside `sipPort`, for clients that read only that"),
    ("api", "group_members", "most members of a group (1-64); all of them ring at once"),
    ("ring", "timeout_s", "a call that nobody answers ends after so many seconds (1-180)"),
    ("ring", "tone", "what the visitor hears while it rings: ringback or none"),
    ("talk", "limit_s", "longest talk in seconds (10-3600)"),
    ("unlock", "while_ringing", "a phone of the room may open the door before anybody answers"),
    ("unlock", "out_of_dialog", "take an INFO outside of any call as a wish too; MESSAGE is always one"),
    ("unlock", "timeout_ms", "whoever asked is told after so long what came of it (500-10000); phones give up after 3000"),
    ("unlock", "hold_s", "a wish within so many seconds of an opening is the same opening (1-60)"),
    ("unlock", "utc_offset_minutes", "minutes east of UTC in which allowed hours are told (-840-840); summer time is not known"),
    ("records", "keep_days", "entries of the record and pictures of visitors are kept so many days"),
    ("records", "snapshots_mb", "and at most so many megabytes of them, the newest"),
    ("store", "key", "seals passwords in the database, 64 hex digits; empty: secrets.key in data_dir, made at the first start"),
    ("store", "new_key", "only for `doorline rotate-key` where store.key is set: the next one"),
];

/// Of all sections.
fn keys() -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
    KEYS.iter().chain(events::KEYS)
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line`, or the environment variable.
    pub place: String,
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Where the text of a setting came from.
struct Sources<'a> {
    file: Option<(&'a Path, String)>,
    from_environment: Vec<(String, String)>,
}

impl Sources<'_> {
    fn place(&self, section: &str, key: &str) -> String {
        let variable = variable(section, key);
        if self.from_environment.iter().any(|(name, _)| *name == variable) {
            return variable;
        }
        let dotted = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        let Some((path, text)) = &self.file else { return dotted };
        let mut inside = "";
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                inside = name.trim();
            } else if let Some((name, _)) = line.split_once('=') {
                let name = name.trim();
                if (inside == section && name == key) || (inside.is_empty() && name == dotted) {
                    return format!("{}:{}: {dotted}", path.display(), number + 1);
                }
            }
        }
        dotted
    }
}

fn variable(section: &str, key: &str) -> String {
    let name = if section.is_empty() { key.to_owned() } else { format!("{section}__{key}") };
    format!("DOORLINE_{}", name.to_uppercase())
}

/// Reads a file (none: defaults) and the environment, and checks everything. All problems are told, not only the first.
pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let text = match file {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Some((path, text)),
            Err(error) => return Err(vec![Problem { place: path.display().to_string(), what: error.to_string() }]),
        },
        None => None,
    };
    let variables = environment.filter(|(name, _)| name.starts_with("DOORLINE_")).collect();
    let sources = Sources { file: text, from_environment: variables };
    let mut table = Table::new();
    if let Some((path, text)) = &sources.file {
        // Types and unknown keys of the file by themselves, so that the message has its line.
        match toml::from_str::<Table>(text) {
            Ok(parsed) => table = parsed,
            Err(error) => return Err(vec![Problem { place: place_of(path, text, &error), what: error.message().to_owned() }]),
        }
        if let Err(error) = toml::from_str::<Config>(text) {
            problems.push(Problem { place: place_of(path, text, &error), what: error.message().to_owned() });
        }
        for (section, value) in &table {
            let known = keys().any(|(s, key, _)| s == section || (s.is_empty() && key == section));
            if !known {
                problems.push(Problem { place: path.display().to_string(), what: format!("unknown key or section `{section}`") });
            }
            let _ = value;
        }
    }
    let defaults = Table::try_from(Config::default()).unwrap_or_default();
    for (name, text) in &sources.from_environment {
        let Some((section, key, _)) = keys().find(|(section, key, _)| variable(section, key) == *name) else {
            problems.push(Problem { place: name.clone(), what: "unknown setting".into() });
            continue;
        };
        let default = if section.is_empty() { defaults.get(*key) } else { defaults.get(*section).and_then(|s| s.get(key)) };
        match typed(text, default) {
            Ok(value) => put(&mut table, section, key, value),
            Err(what) => problems.push(Problem { place: name.clone(), what }),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // TCP goes where UDP goes unless it is told where to go.
    if let Some(Value::Table(sip)) = table.get_mut("sip")
        && let (Some(udp), false) = (sip.get("udp").cloned(), sip.contains_key("tcp"))
    {
        sip.insert("tcp".into(), udp);
    }
    let config: Config = match table.try_into() {
        Ok(config) => config,
        Err(error) => return Err(vec![Problem { place: "configuration".into(), what: error.message().to_owned() }]),
    };
    check(&config, &sources, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

fn place_of(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    format!("{}:{line}", path.display())
}

/// The text of a variable as a value of the default's type.
fn typed(text: &str, default: Option<&Value>) -> Result<Value, String> {
    match default {
        Some(Value::Integer(_)) => text.trim().parse().map(Value::Integer).map_err(|_| format!("`{text}` is not a whole number")),
        Some(Value::Boolean(_)) => text.trim().parse().map(Value::Boolean).map_err(|_| format!("`{text}` is not true or false")),
        Some(Value::Array(_)) => {
            Ok(Value::Array(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(|t| Value::String(t.into())).collect()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn put(table: &mut Table, section: &str, key: &str, value: Value) {
    if section.is_empty() {
        table.insert(key.to_owned(), value);
    } else if let Value::Table(inner) = table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
        inner.insert(key.to_owned(), value);
    }
}

/// Meaning, beyond types.
fn check(config: &Config, sources: &Sources<'_>, problems: &mut Vec<Problem>) {
    let mut wrong = |section: &str, key: &str, what: String| problems.push(Problem { place: sources.place(section, key), what });
    if config.sip.udp.is_empty() {
        wrong("sip", "udp", "needs at least one address, e.g. \"0.0.0.0:6050\"".into());
    }
    for (key, addresses) in config.sip.listeners() {
        for address in addresses {
            // What TCP takes over from UDP is told once.
            if address.parse::<SocketAddr>().is_err() && !(key == "tcp" && config.sip.tcp == config.sip.udp) {
                wrong("sip", key, format!("`{address}` is not an address with a port, e.g. \"0.0.0.0:6050\""));
            }
        }
    }
    match (config.tls.is_set(), config.sip.tls.is_empty() && config.sip.wss.is_empty()) {
        (true, _) => {
            if let Err(what) = crate::transport::tls::Tls::load(&config.tls.cert, &config.tls.key) {
                wrong("tls", "cert", what);
            }
        }
        (false, true) => {}
        (false, false) => wrong("tls", "cert", "sip.tls and sip.wss need tls.cert and tls.key".into()),
    }
    if config.sip.realm.is_empty() || config.sip.realm.contains(['"', '\\']) || config.sip.realm.chars().any(char::is_control) {
        wrong("sip", "realm", "must not be empty and holds no quotes".into());
    }
    for (key, host) in config.sip.domains.iter().map(|d| ("domains", d)).chain([("public_host", &config.sip.public_host)]) {
        if host.contains(|c: char| c.is_whitespace() || "<>\"@;,/".contains(c)) {
            wrong("sip", key, format!("`{host}` is not a host name or address"));
        }
    }
    if config.sip.ping_s != 0 && !(15..=3600).contains(&config.sip.ping_s) {
        wrong("sip", "ping_s", format!("{} is not 0 or within 15-3600", config.sip.ping_s));
    }
    if config.media.bind_ip.parse::<IpAddr>().is_err() {
        wrong("media", "bind_ip", format!("`{}` is not an IP address", config.media.bind_ip));
    }
    if !config.media.public_ip.is_empty()
        && config.media.public_ip.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified()).eq(&false)
    {
        wrong("media", "public_ip", format!("`{}` is not an IP address devices can send to", config.media.public_ip));
    }
    match config.media.port_range() {
        Some((from, to)) if to < from.saturating_add(7) => {
            wrong("media", "ports", format!("{from}-{to} is too small: one call with one phone takes eight ports"));
        }
        Some((from, _)) if from < 1024 => wrong("media", "ports", "ports below 1024 are not for media".into()),
        Some(_) => {}
        None => wrong("media", "ports", format!("`{}` is not a range of ports, e.g. \"10000-20000\"", config.media.ports)),
    }
    if config.media.workers > 256 {
        wrong("media", "workers", "at most 256".into());
    }
    if config.media.silence_s != 0 && !(5..=3600).contains(&config.media.silence_s) {
        wrong("media", "silence_s", format!("{} is not 0 or within 5-3600", config.media.silence_s));
    }
    if config.api.listen.parse::<SocketAddr>().is_err() {
        wrong("api", "listen", format!("`{}` is not an address with a port, e.g. \"127.0.0.1:8080\"", config.api.listen));
    }
    if config.api.tls && !config.tls.is_set() {
        wrong("api", "tls", "needs tls.cert and tls.key".into());
    }
    callers::check(&config.api, &mut wrong);
    if !(1..=MAX_MEMBERS).contains(&config.api.group_members) {
        wrong("api", "group_members", format!("{} is not within 1-{MAX_MEMBERS}", config.api.group_members));
    }
    if !(1..=180).contains(&config.ring.timeout_s) {
        wrong("ring", "timeout_s", format!("{} is not within 1-180", config.ring.timeout_s));
    }
    if !["ringback", "none"].contains(&config.ring.tone.as_str()) {
        wrong("ring", "tone", format!("`{}` is not ringback or none", config.ring.tone));
    }
    if !(10..=3600).contains(&config.talk.limit_s) {
        wrong("talk", "limit_s", format!("{} is not within 10-3600", config.talk.limit_s));
    }
    if !(500..=10_000).contains(&config.unlock.timeout_ms) {
        wrong("unlock", "timeout_ms", format!("{} is not within 500-10000", config.unlock.timeout_ms));
    }
    if !(1..=60).contains(&config.unlock.hold_s) {
        wrong("unlock", "hold_s", format!("{} is not within 1-60", config.unlock.hold_s));
    }
    if !(-840..=840).contains(&config.unlock.utc_offset_minutes) {
        wrong("unlock", "utc_offset_minutes", format!("{} is not within -840-840", config.unlock.utc_offset_minutes));
    }
    if !(1..=3650).contains(&config.records.keep_days) {
        wrong("records", "keep_days", format!("{} is not within 1-3650", config.records.keep_days));
    }
    if !(10..=10_000_000).contains(&config.records.snapshots_mb) {
        wrong("records", "snapshots_mb", format!("{} is not within 10-10000000", config.records.snapshots_mb));
    }
    for (key, text) in [("key", &config.store.key), ("new_key", &config.store.new_key)] {
        if !text.is_empty() && keyfile::parse(text.reveal()).is_none() {
            wrong("store", key, "is not 64 hex digits, e.g. of `openssl rand -hex 32`".into());
        }
    }
    events::check(config, &mut wrong);
    if config.top.drain_s > 3600 {
        wrong("", "drain_s", format!("{} is more than an hour", config.top.drain_s));
    }
    if config.top.data_dir.as_os_str().is_empty() {
        wrong("", "data_dir", "must not be empty".into());
    }
}

impl Sip {
    /// Key and addresses of every transport.
    pub fn listeners(&self) -> [(&'static str, &[String]); 5] {
        [("udp", &self.udp), ("tcp", &self.tcp), ("tls", &self.tls), ("ws", &self.ws), ("wss", &self.wss)]
    }
}

impl Tls {
    /// Is a certificate named at all?
    pub fn is_set(&self) -> bool {
        !self.cert.as_os_str().is_empty() || !self.key.as_os_str().is_empty()
    }
}

impl Media {
    /// `from-to`, both included.
    pub fn port_range(&self) -> Option<(u16, u16)> {
        let (from, to) = self.ports.split_once('-')?;
        let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (from <= to).then_some((from, to))
    }

    /// As set, or one less than cores (D-22).
    pub fn worker_count(&self) -> u16 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if self.workers > 0 { self.workers } else { u16::try_from(cores.saturating_sub(1)).unwrap_or(256).clamp(1, 256) }
    }
}

impl Config {
    /// Commented TOML that [`load`] reads again; secrets are masked.
    pub fn to_toml(&self) -> String {
        let table = Table::try_from(self).unwrap_or_default();
        let mut text = String::from("# Doorline. Each key is also an environment variable, e.g. DOORLINE_RING__TIMEOUT_S=45.\n");
        let mut inside = "";
        for (section, key, what) in keys() {
            if *section != inside {
                let _ = write!(text, "\n[{section}]\n");
                inside = section;
            }
            let value = if section.is_empty() { table.get(*key) } else { table.get(*section).and_then(|s| s.get(key)) };
            let shown = value.and_then(|value| events::masked(section, key, value)).or(value.cloned());
            let value = shown.map(|value| value.to_string()).unwrap_or_default();
            let _ = write!(text, "# {what}\n{key} = {value}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests;
