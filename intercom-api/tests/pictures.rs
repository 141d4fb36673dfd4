//! Pictures of visitors by the real binary: with a ring, with an unlock, on demand; and what becomes of calls when the process
//! that decodes them is killed, hangs, or gets what no camera sends.

#![allow(clippy::disallowed_methods)] // real sockets, in real time

use fixtures::http;
use fixtures::picture;
use fixtures::process::wait_until;
use fixtures::server::{BEARER, Server, password};
use intercom_api::pictures::helper::parse_answer;
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Role, Tally};
use media::snapshot::{Preset, SnapshotError, nal_units};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(15);

struct Handle {
    orders: UnboundedSender<Order>,
    events: UnboundedReceiver<(Instant, Happened)>,
}

impl Handle {
    async fn start(server: &Server, number: &str, role: Role) -> Handle {
        let decode = matches!(role, Role::Phone { .. });
        let (ip, seed) = (server.sip.ip(), [number.len() as u8; 32]);
        let (number, password, domain) = (number.to_owned(), password(number), ip.to_string());
        let config = DeviceConfig { number, password, domain, server: server.sip, ip, role, decode, lose: 0, seed };
        let (orders, events) = Device::start(config).await.unwrap();
        Handle { orders, events }
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    async fn wait(&mut self, what: &str, wanted: impl Fn(&Happened) -> bool) -> Happened {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await;
            let (_, event) = event.unwrap_or_else(|_| panic!("no {what}")).unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }

    async fn tally(&mut self) -> Tally {
        self.order(Order::Report);
        match self.wait("report", |event| matches!(event, Happened::Report(_))).await {
            Happened::Report(tally) => tally,
            _ => unreachable!(),
        }
    }
}

/// A door that rings a phone.
struct Scene {
    server: Server,
    door: Handle,
    phone: Handle,
    /// Of the call.
    id: String,
}

impl Scene {
    async fn ringing(ip: &str, clip: Clip) -> Scene {
        let server = Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, "10000-10099", &[]);
        server.provision(&[("door", 1), ("101", 0)], "room", &["101"]);
        let mut phone = Handle::start(&server, "101", Role::Phone { early: true }).await;
        let door = Handle::start(&server, "door", Role::Door(clip)).await;
        phone.order(Order::Register);
        phone.wait("registration", |event| matches!(event, Happened::Registered)).await;
        door.order(Order::Call("room".into()));
        phone.wait("ring", |event| matches!(event, Happened::Incoming)).await;
        let id = server.api("GET", "/v1/calls", None)[0]["id"].as_str().unwrap().to_owned();
        Scene { server, door, phone, id }
    }

    fn call(&self) -> Value {
        self.server.api("GET", &format!("/v1/calls/{}", self.id), None)
    }

    fn take(&self, query: &str) -> (u16, Value) {
        self.server.try_api("POST", &format!("/v1/calls/{}/snapshot{query}", self.id), None).unwrap()
    }

    fn get(&self, path: &str) -> (u16, String, Vec<u8>) {
        http::bytes(self.server.api, BEARER, path).unwrap()
    }

    /// What was counted under a name.
    fn count(&self, name: &str) -> u64 {
        let text = http::text(self.server.api, "/metrics").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("doorline_sip_events_total{{name=\"{name}\"}} ")));
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// The phone sees more and more pictures, none of them broken.
    async fn goes_on(&mut self) {
        let before = self.phone.tally().await.pictures;
        let end = Instant::now() + PATIENCE;
        while self.phone.tally().await.pictures < before + 10 {
            assert!(Instant::now() < end, "the phone's picture stands still: {:#}", self.call());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_ne!(self.call()["state"], "ended");
    }
}

/// The helpers of a server: children with that subcommand.
fn helpers(server: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_helper = |pid: &u32| {
        let text = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text("status").lines().any(|line| line == format!("PPid:\t{server}")) && text("cmdline").contains("picture-helper")
    };
    numbers.filter(is_helper).collect()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// Gone, or a zombie that its parent has yet to look at.
fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| status.contains("State:\tZ"))
}

fn is_the_clip(jpeg: &[u8], snapshot: &Value) {
    let size = |name: &str| snapshot[name].as_u64().unwrap() as usize;
    let luma = picture::still(jpeg, size("width"), size("height"));
    assert_eq!(picture::clip_frame(&luma, size("width")), (0, true), "the clip's key frame");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_and_an_unlock_have_their_picture_and_the_record_names_it() {
    let mut scene = Scene::ringing("127.0.0.110", Clip::test_picture()).await;
    scene.phone.wait("picture", |event| matches!(event, Happened::FirstPicture)).await;
    let mut shots = Value::Null;
    wait_until(PATIENCE, || {
        shots = scene.call()["snapshots"].clone();
        shots[0].is_object()
    });
    assert_eq!((&shots[0]["why"], &shots[0]["door"], &shots[0]["width"]), (&json!("ring"), &json!("door"), &json!(640)));
    let (status, kind, jpeg) = scene.get(&format!("/v1/calls/{}/snapshot", scene.id));
    assert_eq!((status, kind.as_str()), (200, "image/jpeg"));
    is_the_clip(&jpeg, &shots[0]);

    scene.phone.order(Order::Unlock(7));
    scene.phone.wait("result", |event| matches!(event, Happened::UnlockResult(200))).await;
    let mut record = Value::Null;
    wait_until(PATIENCE, || {
        record = scene.server.api("GET", "/v1/records", None)[0].clone();
        record["snapshot_sha256"].is_string()
    });
    assert_eq!((&record["outcome"], &record["account"]), (&json!("opened"), &json!("101")));
    let path = format!("/v1/records/{}/snapshot", record["id"]);
    let (status, kind, jpeg) = scene.get(&path);
    assert_eq!((status, kind.as_str()), (200, "image/jpeg"));
    let hash: String = Sha256::digest(&jpeg).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(record["snapshot_sha256"], json!(hash));
    let of_call = scene.call()["snapshots"].as_array().unwrap().clone();
    let named = of_call.iter().find(|shot| shot["id"] == record["snapshot"]).unwrap();
    assert_eq!((&named["why"], named["bytes"].as_u64()), (&json!("unlock"), Some(jpeg.len() as u64)));
    is_the_clip(&jpeg, named);

    // On disk, for nobody else.
    let root = scene.server.data().join("snapshots");
    let day = fs::read_dir(&root).unwrap().next().unwrap().unwrap().path();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = day.join(format!("{}.jpg", record["snapshot"].as_str().unwrap()));
    assert_eq!((mode(&root), mode(&day), mode(&file)), (0o700, 0o700, 0o600));

    // Deleted: the file is gone, the entry is not.
    let delete = || scene.server.try_api("DELETE", &path, None).unwrap().0;
    assert_eq!((delete(), delete(), scene.get(&path).0), (204, 404, 404));
    assert!(!file.exists());
    let after = scene.server.api("GET", "/v1/records", None)[0].clone();
    assert_eq!(after, record, "the entry keeps the hash");
    let mut check = Command::new(env!("CARGO_BIN_EXE_doorline"));
    let check = check.args(["verify-records", "--data-dir"]).arg(scene.server.data()).output().unwrap();
    let (found, complaints) = (String::from_utf8_lossy(&check.stdout), String::from_utf8_lossy(&check.stderr));
    assert!(check.status.success() && found.starts_with("1 records, ") && complaints.is_empty(), "{found}{complaints}");
    assert_eq!(scene.get("/v1/records/99/snapshot").0, 404);
    assert_eq!(scene.get("/v1/records/..%2f..%2fnonce.key/snapshot").0, 400);
    drop((scene.door, scene.phone));
    assert!(scene.server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_taken_on_demand_in_two_sizes() {
    let mut scene = Scene::ringing("127.0.0.111", Clip::test_picture()).await;
    scene.phone.wait("picture", |event| matches!(event, Happened::FirstPicture)).await;
    let limits = [("", 200_000), ("?preset=large", 200_000), ("?preset=small", 100_000)];
    for (query, most) in limits {
        let (status, shot) = scene.take(query);
        assert_eq!(status, 201, "{shot}");
        assert!(shot["bytes"].as_u64() <= Some(most) && shot["age_ms"].as_u64() < Some(60_000), "{shot}");
        let (status, kind, jpeg) = scene.get(shot["url"].as_str().unwrap());
        assert_eq!((status, kind.as_str(), Some(jpeg.len() as u64)), (200, "image/jpeg", shot["bytes"].as_u64()));
        is_the_clip(&jpeg, &shot);
    }
    let path = format!("/v1/calls/{}/snapshot", scene.id);
    let (status, shot) = scene.server.try_api("POST", &path, Some(&json!({"preset": "small"}))).unwrap();
    assert_eq!((status, &shot["preset"]), (201, &json!("small")));
    assert_eq!(scene.server.try_api("POST", &path, Some(&json!({"preset": "huge"}))).unwrap().0, 400);
    assert_eq!(scene.server.try_api("POST", &path, Some(&json!({"colour": 1}))).unwrap().0, 400);
    assert_eq!(scene.take("?preset=huge").0, 400);
    assert_eq!(scene.server.try_api("POST", "/v1/calls/nobody/snapshot", None).unwrap().0, 404);
    assert_eq!(scene.server.try_api("DELETE", shot["url"].as_str().unwrap(), None).unwrap().0, 204);
    assert_eq!(scene.get(shot["url"].as_str().unwrap()).0, 404);
    assert_eq!(helpers(scene.server.pid()).len(), 1, "one helper, used again");
    assert!(scene.count("pictures_taken") >= 5 && scene.count("picture_helper_restarts") == 0);
    scene.door.order(Order::HangUp);
    assert!(wait_until(PATIENCE, || scene.call()["state"] == "ended"));
    assert_eq!(scene.take("").0, 409);
    assert_eq!(scene.get(&path).0, 200, "the last one is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_has_shown_nothing_or_nonsense_has_no_picture() {
    let mut no_key_frame = Clip::test_picture();
    no_key_frame.frames.retain(|frame| !frame.key);
    let scene = Scene::ringing("127.0.0.112", no_key_frame).await;
    assert!(wait_until(PATIENCE, || scene.call()["legs"][0]["video"]["packets_in"].as_u64() > Some(0)));
    let (status, problem) = scene.take("");
    assert_eq!(status, 409, "{problem}");
    assert!(problem["error"].as_str().unwrap().starts_with("picture_nothing_shown"), "{problem}");
    drop(scene);

    let scene = Scene::ringing("127.0.0.113", Clip::synthetic(25)).await;
    assert!(wait_until(PATIENCE, || !scene.call()["door_first_frame_ms"].is_null()));
    let (status, problem) = scene.take("");
    assert_eq!(status, 503, "{problem}");
    assert!(problem["error"].as_str().unwrap().starts_with("picture_"), "{problem}");
    assert_ne!(scene.call()["state"], "ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helper_may_be_killed_or_hang_and_no_call_is_hurt() {
    let mut scene = Scene::ringing("127.0.0.114", Clip::test_picture()).await;
    scene.phone.wait("picture", |event| matches!(event, Happened::FirstPicture)).await;
    scene.phone.order(Order::Answer);
    scene.door.wait("answer", |event| matches!(event, Happened::Answered)).await;
    assert_eq!(scene.take("").0, 201);
    let first = helpers(scene.server.pid());
    assert_eq!(first.len(), 1);

    signal("-KILL", first[0]);
    let (status, shot) = scene.take("");
    assert_eq!(status, 201, "{shot}");
    let second = helpers(scene.server.pid());
    assert!(second.len() == 1 && second != first, "a new one");
    assert_eq!(scene.count("picture_helper_restarts"), 1);
    scene.goes_on().await;

    signal("-STOP", second[0]);
    let began = Instant::now();
    // Off this task: the phone plays on meanwhile.
    let (api, path) = (scene.server.api, format!("/v1/calls/{}/snapshot", scene.id));
    let asked = tokio::task::spawn_blocking(move || http::request(api, BEARER, "POST", &path, None).unwrap());
    scene.goes_on().await;
    let (status, problem) = asked.await.unwrap();
    assert_eq!(status, 503, "{problem}");
    assert!(problem["error"].as_str().unwrap().starts_with("picture_helper_hung"), "{problem}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(wait_until(PATIENCE, || is_gone(second[0])), "it is ended");
    assert_eq!(scene.take("").0, 201, "the next one is made");
    scene.goes_on().await;
    assert_eq!(scene.count("picture_helper_hung"), 1);

    // Unlocking goes on as well while it hangs: the pulse does not wait.
    signal("-STOP", helpers(scene.server.pid())[0]);
    let began = Instant::now();
    scene.phone.order(Order::Unlock(9));
    scene.phone.wait("result", |event| matches!(event, Happened::UnlockResult(200))).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let record = |name: &str| scene.server.api("GET", "/v1/records", None)[0][name].clone();
    assert!(wait_until(PATIENCE, || record("outcome") == "opened"));
    assert_eq!(record("snapshot"), Value::Null, "it has no picture, which is no reason not to open");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helper_has_little_to_work_with_and_goes_with_its_server() {
    let mut scene = Scene::ringing("127.0.0.115", Clip::test_picture()).await;
    scene.phone.wait("picture", |event| matches!(event, Happened::FirstPicture)).await;
    assert_eq!(scene.take("").0, 201);
    let [helper] = helpers(scene.server.pid())[..] else { panic!("one helper") };
    let text = |file: &str| fs::read_to_string(format!("/proc/{helper}/{file}")).unwrap();
    let limits = text("limits");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().nth_back(2).unwrap();
    assert_eq!((limit("Max address space"), limit("Max open files")), ("268435456", "3"));
    assert_eq!((limit("Max core file size"), limit("Max file size")), ("0", "0"));
    assert_eq!(text("environ"), "", "no token of ours");
    assert!(text("status").contains("NoNewPrivs:\t1\n"));
    let nice = text("stat").rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned();
    assert_eq!(nice, "10");

    // Even one that hangs.
    signal("-STOP", helper);
    scene.server.kill();
    assert!(wait_until(PATIENCE, || is_gone(helper)), "nothing is left over");
}

/// SplitMix64, as in `corpus.rs`.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

struct Raw {
    child: std::process::Child,
}

impl Raw {
    fn start() -> Raw {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorline"));
        command.arg("picture-helper").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Raw { child: command.spawn().unwrap() }
    }

    /// `None`: it died of it.
    fn ask(&mut self, key_frame: &[u8]) -> Option<Result<usize, SnapshotError>> {
        let mut request = (key_frame.len() as u32 + 1).to_be_bytes().to_vec();
        request.push(1);
        request.extend_from_slice(key_frame);
        self.child.stdin.as_mut().unwrap().write_all(&request).ok()?;
        let out = self.child.stdout.as_mut().unwrap();
        let mut length = [0; 4];
        out.read_exact(&mut length).ok()?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        out.read_exact(&mut answer).ok()?;
        let answer = parse_answer(&answer, Preset::Small).expect("an answer that can be read");
        Some(answer.map(|jpeg| jpeg.bytes.len()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_camera_fits_into_the_memory_it_may_use() {
    let sizes = [("320x240", "baseline"), ("1280x720", "main"), ("1920x1080", "high"), ("3840x2160", "high")];
    let mut helper = Raw::start();
    for (size, profile) in sizes {
        let source = format!("testsrc2=size={size}:rate=1:duration=1,format=yuv420p");
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-f", "lavfi", "-i", &source, "-frames:v", "1", "-c:v", "libx264", "-profile:v", profile]);
        let key_frame = fixtures::process::run(command.args(["-x264-params", "slices=4", "-f", "h264", "-"])).unwrap();
        let began = Instant::now();
        let answer = helper.ask(&key_frame);
        println!("{size}: {} bytes, {answer:?} in {:?}", key_frame.len(), began.elapsed());
        assert!(matches!(answer, Some(Ok(10_000..=100_000))), "{size}: {answer:?}");
        // The decoder has that picture in it now: a slice that is missing must not be taken from there.
        let slices = nal_units(&key_frame).filter(|unit| unit[0] & 0x1f == 5).count();
        assert_eq!(slices, 4);
        for missing in 1..slices {
            let mut seen = 0;
            let kept = nal_units(&key_frame).filter(|unit| {
                seen += usize::from(unit[0] & 0x1f == 5);
                unit[0] & 0x1f != 5 || seen != missing + 1
            });
            let holed: Vec<u8> = kept.flat_map(|unit| [&[0, 0, 0, 1], unit].concat()).collect();
            assert_eq!(helper.ask(&holed), Some(Err(SnapshotError::Undecodable)), "{size} without slice {missing}");
            assert!(matches!(helper.ask(&key_frame), Some(Ok(_))));
        }
    }
}

/// `DOORLINE_FUZZ=…` for more of it.
#[test]
fn whatever_a_camera_sends_is_answered_or_ends_the_helper_alone() {
    let clip = Clip::test_picture();
    let key: Vec<u8> = clip.frames[0].nals.iter().flat_map(|nal| [&[0, 0, 0, 1], &nal[..]].concat()).collect();
    let head = clip.frames[0].nals[..2].iter().map(|nal| nal.len() + 4).sum::<usize>();
    let rounds = std::env::var("DOORLINE_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    let (mut dice, mut helper, mut died, mut made, mut refused) = (Dice(1), Raw::start(), 0, 0, 0);
    for _ in 0..rounds {
        let mut bytes = key.clone();
        // Every second one is hurt where sizes and tools are agreed.
        let reach = if dice.roll(2) == 0 { head } else { bytes.len() };
        for _ in 0..=dice.roll(6) {
            let at = 4 + dice.roll(reach.min(bytes.len()) - 4);
            match dice.roll(4) {
                0 => bytes[at] ^= 1 << dice.roll(8),
                1 => bytes[at] = dice.roll(256) as u8,
                2 => bytes.insert(at, dice.roll(256) as u8),
                _ => drop(bytes.remove(at)),
            }
        }
        match helper.ask(&bytes) {
            Some(Ok(length)) => {
                assert!(length <= Preset::Small.max_bytes());
                made += 1;
            }
            Some(Err(_)) => refused += 1,
            None => {
                died += 1;
                helper = Raw::start();
            }
        }
    }
    println!("{made} pictures, {refused} refused, {died} helpers died");
    assert!(matches!(helper.ask(&key), Some(Ok(_))), "and an honest one is made as ever");
    assert!(refused > rounds / 10, "the hurt ones are told apart");
    // It ends when its input does.
    drop(helper.child.stdin.take());
    assert!(helper.child.wait().unwrap().success());
}
