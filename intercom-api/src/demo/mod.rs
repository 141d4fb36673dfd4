//! `doorline demo`: the real server, a simulated door and three simulated phones, over UDP and HTTP on loopback. It prints
//! what happens as it happens, and checks all of it.

mod picture;
mod server;
mod stage;

use anyhow::Context;
use serde_json::{Value, json};
use server::Server;
use stage::{Expectation, Stage, hex, say};
use std::process::ExitCode;
use std::time::Duration;

use crate::softphone::{Clip, Happened, Order, Role};

const ROOM: &str = "1202";
/// How long the phones ring, and how long the two talk.
const LOOK: Duration = Duration::from_millis(1500);
const TALK: Duration = Duration::from_millis(1200);

/// Runs it. The exit code is 0 only if everything worked.
pub fn run() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(play()));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("doorline demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the HTTP API made for us.
struct Building {
    /// (number, password) of the door and the phones.
    door: (String, String),
    phones: Vec<(String, String)>,
    group: String,
}

async fn play() -> anyhow::Result<bool> {
    let bearer = hex()?;
    say(&format!("Doorline demo: a visitor calls room {ROOM}, three phones are at home.\n"));
    let server = Server::start(bearer).await?;
    say(&format!("server     the real one: SIP udp {}, HTTP API http://{}", server.sip, server.api));
    let building = provision(&server).await?;
    say(&format!(
        "building   made over the HTTP API: door {}, room {ROOM} = group {} of phones",
        building.door.0, building.group
    ));
    let numbers: Vec<&str> = building.phones.iter().map(|(number, _)| number.as_str()).collect();
    say(&format!("           {}\n", numbers.join(", ")));

    let mut stage = Stage::new(&server);
    stage.enter("door", &building.door, Role::Door(Clip::test_picture())).await?;
    for phone in &building.phones {
        stage.enter(&phone.0, phone, Role::Phone { early: true }).await?;
    }
    let ring = ring(&mut stage, &building).await;
    let failed = match &ring {
        Ok(expectations) => report(expectations),
        Err(error) => {
            say(&format!("\nIt did not work: {error:#}"));
            true
        }
    };
    if failed {
        say(&format!("\nThe server's log:\n{}", server.log()));
    }
    drop(stage);
    let clean = server.stop().await.context("the server did not stop")?;
    if failed || !clean {
        return Ok(false);
    }
    say(NEXT);
    Ok(true)
}

const NEXT: &str = "
Try next
  your own phones  ./dev serve   starts a server with one room and prints what to enter in Linphone, baresip or a door unit
  a server         doorline serve --data-dir /var/lib/doorline      (settings: doorline config)
  its HTTP API     curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8080/v1/calls
                   the same with /v1/registrations, /v1/records; TOKEN is the setting api.bearer";

async fn provision(server: &Server) -> anyhow::Result<Building> {
    const SERVICE: &str = "/entrance/paas/sipservice";
    let account = |value: &Value| -> anyhow::Result<(String, String)> {
        let text = |name: &str| value[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {value}"));
        Ok((text("sipNumber")?, text("sipPassword")?))
    };
    let door = server.post(&format!("{SERVICE}/sip/add"), &json!({"count": 1, "type": 1})).await?;
    let phones = server.post(&format!("{SERVICE}/sip/add"), &json!({"count": 3, "type": 0})).await?;
    let group = server.post(&format!("{SERVICE}/group/add"), &json!({"count": 1})).await?;
    let group = group["data"][0]["groupID"].as_str().context("no groupID")?.to_owned();
    let door_account = account(&door["data"][0])?;
    let phones =
        phones["data"].as_array().context("no data")?.iter().map(account).collect::<anyhow::Result<Vec<(String, String)>>>()?;
    let numbers: Vec<&String> = phones.iter().map(|(number, _)| number).collect();
    server.post(&format!("{SERVICE}/group/sip/add"), &json!({"groupID": group, "sipNumberList": numbers})).await?;
    const VIDEO: &str = "/entrance/paas/videointercom";
    let sync = json!({
        "iotId": "demo-door", "sipNumber": door_account.0, "password": door_account.1,
        "host": server.sip.ip().to_string(), "port": server.sip.port().to_string(),
    });
    server.post(&format!("{VIDEO}/sipnumber/sync"), &sync).await?;
    let map = json!({"iotId": "demo-door", "maps": [{"roomId": ROOM, "groupId": group}]});
    server.post(&format!("{VIDEO}/map/add"), &map).await?;
    Ok(Building { door: door_account, phones, group })
}

/// The play itself; what it shows is checked at the end.
async fn ring(stage: &mut Stage<'_>, building: &Building) -> anyhow::Result<Vec<Expectation>> {
    let mut checks = Vec::new();
    let phones: Vec<&str> = building.phones.iter().map(|(number, _)| number.as_str()).collect();
    let winner = phones[1];
    for phone in &phones {
        stage.order(phone, Order::Register)?;
        stage.wait(phone, "registration", |event| matches!(event, Happened::Registered)).await?;
    }
    stage.order("door", Order::Call(ROOM.to_owned()))?;
    for phone in &phones {
        stage.wait(phone, "picture", |event| matches!(event, Happened::FirstPicture)).await?;
    }
    stage.pass(LOOK).await?;
    for phone in &phones {
        let tally = stage.tally(phone).await?;
        let view = stage.leg(phone);
        let server_ms = view["first_video_ms"].as_u64().map_or("?".to_owned(), |ms| ms.to_string());
        let what = format!(
            "{phone} sees the visitor before anyone answers: first picture {} ms after the button ({server_ms} ms after the server had one), \
             {} pictures decoded, frame {} read from the last",
            stage.since_button(phone, "picture").map_or("?".to_owned(), |ms| format!("{ms:.0}")),
            tally.pictures,
            tally.counter.map_or("?".to_owned(), |frame| frame.to_string()),
        );
        checks.push(Expectation { what, met: tally.pictures > 10 && tally.counter.is_some_and(|frame| frame < 50) });
    }
    let door = stage.tally("door").await?;
    let hears = |tone: Option<(u16, u64)>, hz: u16, least: u64| tone.is_some_and(|(heard, times)| heard == hz && times >= least);
    checks.push(Expectation { what: "the visitor hears that it rings".into(), met: hears(door.tone, 425, 20) });

    stage.order(winner, Order::Answer)?;
    stage.wait("door", "answer", |event| matches!(event, Happened::Answered)).await?;
    for phone in phones.iter().filter(|phone| **phone != winner) {
        stage.wait(phone, "end of the ring", |event| matches!(event, Happened::Cancelled)).await?;
    }
    checks.push(Expectation { what: format!("{winner} answers, the other phones stop ringing"), met: true });
    stage.pass(TALK).await?;
    let (door, phone) = (stage.tally("door").await?, stage.tally(winner).await?);
    let met = hears(door.tone, 600, 20) && hears(phone.tone, 1000, 20);
    checks.push(Expectation {
        what: "both hear each other: the phone's 600 Hz at the door, the door's 1000 Hz at the phone".into(),
        met,
    });

    stage.order(winner, Order::Unlock(1))?;
    let opened = stage.wait("door", "unlock", |event| matches!(event, Happened::Opened(_))).await?;
    let by_winner = matches!(&opened, Happened::Opened(account) if account == winner);
    let result = stage.wait(winner, "result of the unlock", |event| matches!(event, Happened::UnlockResult(_))).await?;
    stage.pass(Duration::from_millis(200)).await?;
    let once = stage.count("door", "unlock") == 1;
    let took = stage.between((winner, "wish"), (winner, "result of the unlock"));
    let what = format!(
        "{winner} opens the door, once: result at the phone after {}",
        took.map_or("?".into(), |ms| format!("{ms:.1} ms"))
    );
    checks.push(Expectation { what, met: by_winner && once && matches!(result, Happened::UnlockResult(200)) });
    let records = stage.records().await?;
    let entry = records.as_array().and_then(|list| list.first()).cloned().unwrap_or_default();
    let met = records.as_array().is_some_and(|list| list.len() == 1)
        && entry["outcome"] == "opened"
        && entry["account"] == winner
        && entry["door"] == building.door.0.as_str();
    let text = |name: &str| entry[name].as_str().unwrap_or("?").to_owned();
    let what = format!("on record: {} asked door {} by {}, {}", text("account"), text("door"), text("road"), text("outcome"));
    checks.push(Expectation { what, met });
    let jpeg = stage.picture_of_record().await?.unwrap_or_default();
    checks.push(match picture::keep(&jpeg) {
        Ok(kept) => Expectation { what: format!("with a picture of that moment: {kept}"), met: true },
        Err(error) => Expectation { what: format!("with a picture of that moment: {error:#}"), met: false },
    });

    stage.order(winner, Order::HangUp)?;
    stage.wait("door", "hang-up", |event| matches!(event, Happened::Ended(_))).await?;
    let ended = stage.until_ended().await?;
    checks.push(Expectation { what: "the phone hangs up and nothing is left".into(), met: ended });
    Ok(checks)
}

/// Prints the checks; `true` when one failed.
fn report(checks: &[Expectation]) -> bool {
    say("");
    for Expectation { what, met } in checks {
        say(&format!("{} {what}", if *met { " ok " } else { "FAIL" }));
    }
    checks.iter().any(|check| !check.met)
}
