//! What phones see of doors that pack and time their pictures in all the ways they do, through the real server: the pictures are
//! decoded, and the frame number in them is read.

#![allow(clippy::disallowed_methods)] // sockets and the clock

use fixtures::process::{Folder, run};
use fixtures::server::{Server, password};
use intercom_api::softphone::{Clip, Device, DeviceConfig, Happened, Order, Packing, Role, Tally};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);
/// Frames of a group of pictures: ten seconds.
const GROUP: u8 = 250;

/// The test picture (`fixtures/media/README.md`) with a group of ten seconds; `slices`: none longer than a packet.
fn encoded(slices: bool) -> Clip {
    let folder = Folder::new("clip");
    let file = folder.path().join("clip.h264");
    let picture = "color=s=640x160:r=25:d=10,format=yuv420p,geq=lum='if(lt(Y,64),16+219*mod(floor(N/pow(2,floor(X/80))),2),\
                   90+60*sin(X*Y/40+N/9))':cb=128:cr=128";
    let x264 = format!("slices=1:repeat-headers=1:scenecut=0:aud=0{}", if slices { ":slice-max-size=1100" } else { "" });
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args([
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        picture,
        "-c:v",
        "libx264",
        "-profile:v",
        "baseline",
        "-preset",
        "ultrafast",
    ]);
    ffmpeg.args(["-crf", "30", "-g", "250", "-bf", "0", "-x264-params", &x264, "-f", "h264"]).arg(&file);
    run(&mut ffmpeg).unwrap();
    let clip = Clip::from_bytes(std::fs::read(&file).unwrap());
    assert_eq!((clip.frames.len(), clip.frames.iter().filter(|frame| frame.key).count()), (usize::from(GROUP), 1));
    clip
}

struct Phone {
    orders: mpsc::UnboundedSender<Order>,
    events: mpsc::UnboundedReceiver<(Instant, Happened)>,
}

impl Phone {
    async fn start(server: &Server, number: &str, host: u8, role: Role, lose: u8) -> Phone {
        let config = DeviceConfig {
            number: number.to_owned(),
            password: password(number),
            domain: server.sip.ip().to_string(),
            server: server.sip,
            ip: Ipv4Addr::new(127, 0, 3, host).into(),
            role,
            decode: true,
            lose,
            seed: [host; 32],
        };
        let (orders, events) = Device::start(config).await.unwrap();
        let mut phone = Phone { orders, events };
        phone.order(Order::Register);
        phone.wait(|happened| matches!(happened, Happened::Registered)).await;
        phone
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    async fn wait(&mut self, mut wanted: impl FnMut(&Happened) -> bool) -> (Instant, Happened) {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the device lives");
                if wanted(&event.1) {
                    return event;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it happens")
    }

    async fn tally(&mut self) -> Tally {
        self.order(Order::Report);
        let (_, report) = self.wait(|happened| matches!(happened, Happened::Report(_))).await;
        let Happened::Report(tally) = report else { unreachable!() };
        tally
    }

    /// Waits until so many pictures were decoded.
    async fn sees(&mut self, pictures: u64) -> Tally {
        let end = Instant::now() + PATIENCE + Duration::from_secs(2);
        loop {
            let tally = self.tally().await;
            if tally.pictures >= pictures {
                return tally;
            }
            assert!(Instant::now() < end, "{pictures} pictures wanted: {tally:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn house(ip: &str) -> Server {
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, "10000-10099", &[]);
    server.provision(&[("door", 1), ("app1", 0), ("app2", 0)], "room", &["app1", "app2"]);
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_that_pack_in_every_way_are_seen() {
    let server = house("127.0.0.101").await;
    let whole = encoded(false);
    assert!(whole.frames[0].nals.iter().any(|nal| nal.len() > 4000), "the key frame takes several packets");
    let (mut app1, mut app2) = (
        Phone::start(&server, "app1", 1, Role::Phone { early: true }, 0).await,
        Phone::start(&server, "app2", 2, Role::Phone { early: true }, 0).await,
    );
    let clips = [
        Clip { packing: Packing::Fragments, ..whole.clone() },
        Clip { packing: Packing::Aggregates, ..whole },
        Clip { packing: Packing::Single, ..encoded(true) },
    ];
    for (host, clip) in (10..).zip(clips) {
        let packing = clip.packing;
        let door = Phone::start(&server, "door", host, Role::Door(clip), 0).await;
        door.order(Order::Call("room".into()));
        for app in [&mut app1, &mut app2] {
            app.wait(|happened| matches!(happened, Happened::FirstPicture)).await;
            let tally = app.sees(20).await;
            assert_eq!(tally.first, Some(0), "{packing:?}: the picture begins with the key frame");
            // A machine too busy to send loses a packet; then the door is asked, and begins anew.
            let shown = u64::from(tally.counter.unwrap_or(255)) + 1;
            assert!(shown <= tally.pictures && shown > 1, "{packing:?}: frame by frame: {tally:?}");
        }
        door.order(Order::HangUp);
        for app in [&mut app1, &mut app2] {
            app.wait(|happened| matches!(happened, Happened::Cancelled)).await;
        }
    }
}

/// Half a group after its key frame a phone comes home. What it sees, and how soon.
async fn joins_in_the_middle(ip: &str, deaf: bool) {
    let server = house(ip).await;
    let clip = Clip { deaf, ..encoded(false) };
    let mut app1 = Phone::start(&server, "app1", 1, Role::Phone { early: true }, 0).await;
    let door = Phone::start(&server, "door", 10, Role::Door(clip), 0).await;
    door.order(Order::Call("room".into()));
    app1.sees(60).await;
    // Its REGISTER is what brings its leg.
    let mut app2 = Phone::start(&server, "app2", 2, Role::Phone { early: true }, 0).await;
    let (rings, _) = app2.wait(|happened| matches!(happened, Happened::Incoming)).await;
    let (sees, _) = app2.wait(|happened| matches!(happened, Happened::FirstPicture)).await;
    assert!(sees - rings < Duration::from_millis(500), "{:?} to the first picture", sees - rings);
    let at_first = app2.tally().await;
    assert_eq!(at_first.first, Some(0), "the last key frame, whole");
    if deaf {
        // The still stays until the door's own next key frame, seconds later.
        let others = app1.sees(120).await;
        let still = app2.tally().await;
        assert_eq!((still.pictures, still.counter), (1, Some(0)), "nothing broken comes after it, while others see {others:?}");
    }
    let live = app2.sees(20).await;
    let of_others = app1.tally().await;
    let behind = of_others.counter.unwrap_or(0).wrapping_sub(live.counter.unwrap_or(255));
    assert!(behind <= 3, "as live as the others: {live:?} {of_others:?}");
    assert!(app1.tally().await.pictures >= 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_in_the_middle_of_ten_seconds_at_a_door_that_hears_requests() {
    joins_in_the_middle("127.0.0.102", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_in_the_middle_of_ten_seconds_at_a_door_that_hears_none() {
    joins_in_the_middle("127.0.0.103", true).await;
}
