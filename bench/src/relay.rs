//! What forwarding a packet costs, and how long it takes: the server and rtpengine in turns, each alone on one core, fed by
//! one generator on another core ([`crate::wire`]). A packet received and sent counts once.
//!
//! The server is the real one: its calls are set up over SIP ([`crate::house`]). CPU is of its whole process. Figures that
//! are repeated are medians. Both deliver to sockets of this machine, so a packet's cost includes its way through the
//! loopback into the generator's socket, where a network card would have taken it over.

use crate::house::{House, Media};
use crate::meter::Meter;
use crate::ring;
use crate::rtpengine::Rtpengine;
use crate::stats::{Reach, Row};
use crate::wire::{Content, GROUP_PACKETS, Outcome, SOCKETS, WINDOW, Wire};
use anyhow::{Context, bail, ensure};
use fixtures::server::Server;
use std::path::Path;
use std::time::Duration;

/// Packets a second of one audio stream, and of one door's video at 30 frames a second.
const AUDIO_RATE: f64 = 50.0;
const VIDEO_RATE: f64 = 30.0 * GROUP_PACKETS as f64 / 60.0;
/// Phones that ring in the row of the door's video.
const FAN: usize = 5;
/// What can be measured, in this order.
pub const PARTS: [&str; 7] = ["generator", "audio", "video", "bursts", "fan", "memory", "picture"];
const PORTS: &str = "20000-29999";
/// Rates of the search grow by this factor.
const STEP: f64 = 1.12;
/// How long a rate must be carried, and how often a slip is forgiven: the machine may be doing something else.
const TRIES: usize = 2;

pub struct Settings {
    /// Calls of the rows with two parties.
    pub calls: usize,
    /// Doors that ring [`FAN`] phones.
    pub doors: usize,
    /// How long each measurement takes, and how often it is made.
    pub seconds: u64,
    pub rounds: usize,
    /// Rings at the same time for the first picture.
    pub rings: usize,
    /// Steps of a search at most.
    pub steps: usize,
    /// Beside rtpengine.
    pub rtpengine: bool,
    /// Which of [`PARTS`].
    pub only: Vec<String>,
}

/// A server with its calls.
struct Side {
    name: &'static str,
    meter: Meter,
    wire: Wire,
    /// Ends with the side.
    _server: Box<dyn std::any::Any>,
}

pub fn run(binary: &Path, settings: &Settings) -> anyhow::Result<Vec<Row>> {
    ensure!(binary.exists(), "no server at {}: cargo build --release", binary.display());
    let mut rows = Vec::new();
    for part in &settings.only {
        match part.as_str() {
            "generator" => baseline(&mut rows, settings)?,
            "audio" => audio(&mut rows, binary, settings)?,
            "video" => video(&mut rows, binary, settings, false)?,
            "bursts" => video(&mut rows, binary, settings, true)?,
            "fan" => fan(&mut rows, binary, settings)?,
            "memory" => memory(&mut rows, binary, settings)?,
            "picture" => picture(&mut rows, binary, settings)?,
            _ => bail!("there is no {part}, only {PARTS:?}"),
        }
    }
    Ok(rows)
}

/// Doors ring and are seen by the server; then all phones want the picture, in the middle of a group of pictures: how long
/// each waits for the first packet of a key frame (D-20). The doors do not hear requests for another one.
fn picture(rows: &mut Vec<Row>, binary: &Path, settings: &Settings) -> anyhow::Result<()> {
    let mut side = set_up(binary, Content::Video, false, settings.rings, 2, true)?;
    // A third of the usual rate: a key frame every six seconds.
    let rate = VIDEO_RATE * settings.rings as f64 / 3.0;
    side.wire.run(rate, Duration::from_secs(1), 1);
    let (server, mut house) = (side.server, side.house);
    let showing = std::thread::spawn(move || house.show().map(|()| house));
    side.wire.run(rate, Duration::from_secs(8), 1);
    // The phones stay until the server has told what they saw.
    let _house = showing.join().map_err(|_| anyhow::anyhow!("a phone panicked"))??;
    let pictures = ring::first_video(&server, 2 * settings.rings)?;
    let name = format!("{} rings × 2 phones join a picture: first_video_ms (D-20)", settings.rings);
    rows.push(Row::of(name, "ms", pictures, Some(100.0))?);
    Ok(())
}

/// The generator with nothing between its two sides.
fn baseline(rows: &mut Vec<Row>, settings: &Settings) -> anyhow::Result<()> {
    on(Core::Generator)?;
    let mut wire = Wire::new(Content::Audio, false)?;
    for call in 0..settings.calls {
        let to = (crate::house::IP, wire.port(1, call * SOCKETS / settings.calls)).into();
        wire.add(0, call * SOCKETS / settings.calls, to);
    }
    for rate in [100.0 * settings.calls as f64, 200_000.0] {
        let outcome = wire.run(rate, Duration::from_secs(settings.seconds.min(3)), 1);
        let name = format!("generator alone, {:.0}/s", rate);
        rows.push(Row::figure(format!("{name}: reached"), "1/s", outcome.sent as f64 / outcome.took.as_secs_f64()));
        rows.push(Row::figure(format!("{name}: lost"), "share", lost(&outcome)));
        rows.push(Row::figure(format!("{name}: p99 delay"), "ms", outcome.delay(99.0)));
    }
    Ok(())
}

fn audio(rows: &mut Vec<Row>, binary: &Path, settings: &Settings) -> anyhow::Result<()> {
    let rate = 2.0 * AUDIO_RATE * settings.calls as f64;
    let mut sides = vec![doorline(binary, Content::Audio, false, settings.calls, 1)?];
    if settings.rtpengine {
        sides.push(rtpengine(Content::Audio, false, settings.calls, 0)?);
        sides.push(rtpengine(Content::Audio, false, settings.calls, 1)?);
    }
    let name = format!("audio, {} calls, {rate:.0}/s", settings.calls);
    cost(rows, &name, &mut sides, rate, 1, settings, 130_000.0, Some(2.0))?;
    let mut most = Vec::new();
    for side in &mut sides {
        let best = search(side, 60_000.0, 1, 20.0, settings);
        rows.push(Row::figure(format!("audio, most without loss, p99 ≤ 20 ms: {}", side.name), "1/s", best));
        most.push(best);
    }
    ratios(rows, "audio, most without loss", &sides, &most, 150_000.0);
    for (side, most) in sides.iter_mut().zip(&most) {
        // If no rate was carried, at least three times the usual one: an overload of nothing would look like a good one.
        overload(rows, side, 3.0 * most.max(rate), rate, settings);
    }
    Ok(())
}

fn video(rows: &mut Vec<Row>, binary: &Path, settings: &Settings, bursts: bool) -> anyhow::Result<()> {
    let mut sides = vec![doorline(binary, Content::Video, bursts, settings.calls, 1)?];
    if settings.rtpengine {
        sides.push(rtpengine(Content::Video, bursts, settings.calls, 0)?);
        sides.push(rtpengine(Content::Video, bursts, settings.calls, 1)?);
    }
    let how = if bursts { "UDP_SEGMENT" } else { "single packets" };
    let name = format!("video 1→1, {} streams, {how}", settings.calls);
    let target = if bursts { 300_000.0 } else { 140_000.0 };
    cost(rows, &name, &mut sides, VIDEO_RATE * settings.calls as f64, 1, settings, target, None)
}

fn fan(rows: &mut Vec<Row>, binary: &Path, settings: &Settings) -> anyhow::Result<()> {
    let mut sides = vec![doorline(binary, Content::Video, false, settings.doors, FAN)?];
    let rate = VIDEO_RATE * settings.doors as f64;
    let name = format!("door video → {FAN} phones, {} doors", settings.doors);
    cost(rows, &name, &mut sides, rate, FAN as u64, settings, 300_000.0, None)?;
    let most = search(&mut sides[0], rate / 2.0, FAN as u64, f64::INFINITY, settings) / VIDEO_RATE;
    let name = format!("door video → {FAN} phones: such doors on one core without loss");
    rows.push(Row::figure(name, "doors", most).reach(Reach::AtLeast(200.0)));
    Ok(())
}

/// User memory of a call of three phones with audio and video that rings, nothing of it seen yet: what the last calls of many
/// have added, because the first fill what all calls share (the flight recorder, buffers, tables).
fn memory(rows: &mut Vec<Row>, binary: &Path, settings: &Settings) -> anyhow::Result<()> {
    let (first, all) = (settings.doors, 3 * settings.doors);
    let (server, mut house) = start(binary, all, 3, |_, _| Media { audio: 9000, video: Some(9002) })?;
    let meter = Meter::new(server.pid());
    house.ring(0..first)?;
    let before = meter.resident()?;
    house.ring(first..all)?;
    let each = (meter.resident()? - before) / (all - first) as f64;
    let name = format!("memory of a ringing call, 3 phones, {} after {first}", all - first);
    rows.push(Row::figure(name, "KiB", each).reach(Reach::AtMost(40.0)));
    Ok(())
}

/// Packets per CPU second, delay and loss of each side, in turns.
#[allow(clippy::too_many_arguments)]
fn cost(
    rows: &mut Vec<Row>,
    name: &str,
    sides: &mut [Side],
    rate: f64,
    fan: u64,
    settings: &Settings,
    target: f64,
    delay: Option<f64>,
) -> anyhow::Result<()> {
    let mut all: Vec<Vec<(f64, f64, f64)>> = sides.iter().map(|_| Vec::new()).collect();
    for side in sides.iter_mut() {
        // Everybody is known, every stream has begun.
        side.wire.run(rate, Duration::from_secs(settings.seconds.min(3)), fan);
    }
    for _ in 0..settings.rounds {
        for (side, all) in sides.iter_mut().zip(&mut all) {
            let before = side.meter.cpu()?;
            let outcome = side.wire.run(rate, Duration::from_secs(settings.seconds), fan);
            let cpu = side.meter.cpu()? - before;
            all.push((outcome.received as f64 / cpu, outcome.delay(99.0), lost(&outcome)));
        }
    }
    let median = |all: &[(f64, f64, f64)], of: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut costs = Vec::new();
    for (side, all) in sides.iter().zip(&all) {
        let who = side.name;
        costs.push(median(all, |m| m.0));
        rows.push(Row::figure(format!("{name}: {who}"), "packets/CPU-s", median(all, |m| m.0)));
        let row = Row::figure(format!("{name}: {who} p99 added delay"), "ms", median(all, |m| m.1));
        rows.push(match delay.filter(|_| who == DOORLINE) {
            Some(most) => row.reach(Reach::AtMost(most)),
            None => row,
        });
        rows.push(Row::figure(format!("{name}: {who} lost"), "share", median(all, |m| m.2)));
    }
    ratios(rows, name, sides, &costs, target);
    Ok(())
}

/// Our figure against its target, and against each of the others'.
fn ratios(rows: &mut Vec<Row>, name: &str, sides: &[Side], figures: &[f64], target: f64) {
    let Some((ours, theirs)) = figures.split_first() else { return };
    rows.push(Row::figure(format!("{name}: to reach"), "figure", *ours).reach(Reach::AtLeast(target)));
    for (side, figure) in sides[1..].iter().zip(theirs).filter(|(_, figure)| **figure > 0.0) {
        rows.push(Row::figure(format!("{name}: Doorline / {}", side.name), "ratio", ours / figure));
    }
}

/// The highest rate without loss and with a p99 of at most so many milliseconds, by steps upward; 0 if not even the first.
fn search(side: &mut Side, from: f64, fan: u64, p99: f64, settings: &Settings) -> f64 {
    let (mut rate, mut best) = (from, 0.0);
    for _ in 0..settings.steps {
        let carried = (0..TRIES).any(|_| {
            let outcome = side.wire.run(rate, Duration::from_secs(settings.seconds.min(3)), fan);
            let reached = outcome.sent as f64 / (outcome.took.as_secs_f64() * fan as f64);
            outcome.received == outcome.sent && outcome.delay(99.0) <= p99 && reached > 0.97 * rate
        });
        if !carried {
            break;
        }
        best = rate;
        rate *= STEP;
    }
    best
}

/// Three seconds of too much, then as before: until when packets are lost after it.
fn overload(rows: &mut Vec<Row>, side: &mut Side, much: f64, rate: f64, settings: &Settings) {
    let flood = side.wire.run(much, Duration::from_secs(3), 1);
    let after = side.wire.run(rate, Duration::from_secs(settings.seconds.clamp(3, 6)), 1);
    let reached = flood.sent as f64 / flood.took.as_secs_f64();
    let last = after.windows.iter().rposition(|(sent, received)| sent != received).map_or(0, |at| at + 1);
    let name = format!("after 3 s at {reached:.0}/s: {}", side.name);
    let row = Row::figure(format!("{name}: seconds until zero loss"), "s", last as f64 * WINDOW.as_secs_f64());
    rows.push(if side.name == DOORLINE { row.reach(Reach::AtMost(1.0)) } else { row });
    let (sent, received) = after.windows.iter().rev().take(5).fold((0, 0), |sum, w| (sum.0 + w.0, sum.1 + w.1));
    rows.push(Row::figure(format!("{name}: still lost at the end"), "share", 1.0 - received as f64 / sent.max(1) as f64));
}

fn lost(outcome: &Outcome) -> f64 {
    1.0 - outcome.received as f64 / outcome.sent.max(1) as f64
}

const DOORLINE: &str = "Doorline";

/// The server, the devices of its calls, and what sends for them.
struct Calls {
    server: Server,
    house: House,
    wire: Wire,
}

/// Two-way audio if that is the content, else a door's video to phones that ring.
fn doorline(binary: &Path, content: Content, bursts: bool, calls: usize, phones: usize) -> anyhow::Result<Side> {
    let Calls { server, house, wire } = set_up(binary, content, bursts, calls, phones, false)?;
    Ok(Side { name: DOORLINE, meter: Meter::new(server.pid()), wire, _server: Box::new((server, house)) })
}

/// `hold`: the phones say nothing yet.
fn set_up(binary: &Path, content: Content, bursts: bool, calls: usize, phones: usize, hold: bool) -> anyhow::Result<Calls> {
    let mut wire = Wire::new(content, bursts)?;
    let ports: Vec<[u16; 2]> = (0..SOCKETS).map(|socket| [wire.port(0, socket), wire.port(1, socket)]).collect();
    let socket = |call: usize| call * SOCKETS / calls;
    let media = |call: usize, device: usize| {
        let port = ports[socket(call)][device.min(1)];
        // Audio and video of a device may not share a port; the one that is not measured goes nowhere.
        match content {
            Content::Audio => Media { audio: port, video: None },
            Content::Video => Media { audio: 9000, video: Some(port) },
        }
    };
    let (server, mut house) = start(binary, calls, phones, media)?;
    if hold {
        house.hold();
    }
    house.ring(0..calls)?;
    if content == Content::Audio {
        house.answer()?;
    }
    for call in 0..calls {
        let remotes = house.remotes(call);
        match content {
            Content::Audio => {
                for (side, remote) in remotes.iter().enumerate() {
                    wire.add(side, socket(call), remote.audio.context("no audio")?);
                }
            }
            Content::Video => wire.add(0, socket(call), remotes[0].video.context("no video")?),
        }
    }
    Ok(Calls { server, house, wire })
}

fn start(binary: &Path, calls: usize, phones: usize, media: impl Fn(usize, usize) -> Media) -> anyhow::Result<(Server, House)> {
    on(Core::Server)?;
    // Calls wait for their turn longer than people are silent and talk: no limit may end them.
    let limits = [("MEDIA__SILENCE_S", "0"), ("TALK__LIMIT_S", "3600"), ("RING__TIMEOUT_S", "180")];
    let settings = [&limits[..], &[("MEDIA__WORKERS", "1"), ("RING__TONE", "none")]].concat();
    let server = Server::start(binary, "127.0.0.63", PORTS, &settings);
    on(Core::Generator)?;
    ring::provision(&server, calls, phones);
    let mut house = House::new(&server, calls, phones, media)?;
    house.register()?;
    Ok((server, house))
}

/// rtpengine with the same streams.
fn rtpengine(content: Content, bursts: bool, calls: usize, threads: u32) -> anyhow::Result<Side> {
    on(Core::Server)?;
    let ip = if threads == 0 { "127.0.0.64" } else { "127.0.0.65" };
    let mut server = Rtpengine::start(ip, PORTS, threads)?;
    on(Core::Generator)?;
    let mut wire = Wire::new(content, bursts)?;
    let medium = match content {
        Content::Audio => "audio PORT RTP/AVP 8\r\na=rtpmap:8 PCMA/8000",
        Content::Video => "video PORT RTP/AVP 96\r\na=rtpmap:96 H264/90000",
    };
    for call in 0..calls {
        let socket = call * SOCKETS / calls;
        let at = |side| (crate::house::IP, wire.port(side, socket)).into();
        let (for_a, for_b) = server.call(&format!("call{call}"), medium, at(0), at(1))?;
        wire.add(0, socket, for_a);
        if content == Content::Audio {
            wire.add(1, socket, for_b);
        }
    }
    let name = if threads == 0 { "rtpengine" } else { "rtpengine, 1 thread" };
    Ok(Side { name, meter: Meter::new(server.pid()), wire, _server: Box::new(server) })
}

pub enum Core {
    Server,
    Generator,
}

/// Moves this thread, and what it starts from now on. With one core there is nothing to choose.
pub fn on(core: Core) -> anyhow::Result<()> {
    let count = std::fs::read_to_string("/proc/cpuinfo")?.lines().filter(|line| line.starts_with("processor")).count();
    let mut set = rustix::thread::CpuSet::new();
    for core in match core {
        Core::Server => count - 1..count,
        Core::Generator => 0..count.saturating_sub(1).clamp(1, 1),
    } {
        set.set(core);
    }
    rustix::thread::sched_setaffinity(None, &set).context("affinity")
}
