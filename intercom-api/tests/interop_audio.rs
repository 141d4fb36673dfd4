//! A door that speaks PCMU and phones that do not: what each hears, as its own decoder wrote it down, and the keys it presses.

use fixtures::baresip::{Baresip, Setup};
use fixtures::process::wait_until;
use fixtures::server::{Server, password};
use fixtures::sipp::Scenario;
use fixtures::tone;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(15);

fn server(ip: &str, ports: &str) -> Server {
    // Its calls follow each other: a key of the next one is no repeat of the last.
    let settings = [("UNLOCK__HOLD_S", "1")];
    Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, ports, &settings)
}

fn start(server: &Server, number: &str, ip: &str, rtp: &str, (answer, tone): (&str, u32), codecs: &str) -> Baresip {
    let (password, server) = (&password(number), server.sip);
    let (display, loses) = (None, 0);
    let setup = Setup { number, password, transport: "udp", server, trusts: None, ip, rtp, answer, tone, display, loses };
    Baresip::start_speaking(&setup, codecs)
}

/// The other side's tone is what it decoded.
fn heard(who: &str, peer: &Baresip, hz: f64) {
    let (rate, samples) = peer.heard().unwrap_or_else(|| panic!("{who} has no recording"));
    // The meter counts as if there were 8000 samples in a second.
    let found = tone::dominant(&samples).map(|(found, share)| (found * f64::from(rate) / 8000.0, share));
    let right = found.is_some_and(|(found, share)| (found - hz).abs() <= 40.0 && share > 0.5);
    assert!(right, "{who} should hear {hz} Hz, not {found:?} in {} samples at {rate} Hz", samples.len());
}

/// The newest call, once the member's leg has brought that much audio.
fn talk(server: &Server, account: &str) -> Value {
    let mut call = Value::Null;
    let enough = wait_until(PATIENCE, || {
        call = server.api("GET", "/v1/calls", None)[0].clone();
        let legs = call["legs"].as_array().cloned().unwrap_or_default();
        legs.iter().any(|leg| {
            let count = |way: &str| leg["audio"][way].as_u64().unwrap_or(0);
            leg["account"] == account && count("packets_in") >= 100 && count("packets_out") >= 100
        })
    });
    assert!(enough, "both should talk: {call:#}\n{}", server.log());
    call
}

/// The record, as soon as it has an entry of the newest call.
fn records(server: &Server) -> Value {
    let call = server.api("GET", "/v1/calls", None)[0]["id"].clone();
    let mut records = Value::Null;
    let written = wait_until(PATIENCE, || {
        records = server.api("GET", "/v1/records", None);
        records[0]["call"] == call
    });
    assert!(written, "{records:#}");
    records
}

/// How often the ladder of a call has this key.
fn pressed(server: &Server, id: &Value, from: &str, key: &str) -> usize {
    let call = server.api("GET", &format!("/v1/calls/{}", id.as_str().unwrap_or_default()), None);
    let steps = call["ladder"].as_array().cloned().unwrap_or_default();
    steps.iter().filter(|step| step["from"] == from && step["what"] == format!("DTMF {key}")).count()
}

#[test]
fn phones_with_opus_or_g722_alone_talk_to_a_pcmu_door() {
    let server = server("127.0.0.60", "10400-10499");
    server.provision(&[("door1", 1), ("app1", 0), ("app2", 0)], "101", &["app1", "app2"]);
    let mut opus = start(&server, "app1", "127.0.0.62", "30700-30799", ("manual", 600), "opus/48000/2");
    let mut g722 = start(&server, "app2", "127.0.0.63", "30800-30899", ("manual", 700), "g722/16000/1");
    let mut door = start(&server, "door1", "127.0.0.61", "30600-30699", ("manual", 1000), "pcmu");
    for (who, phone, hz) in [("app1", &mut opus, 600.0), ("app2", &mut g722, 700.0)] {
        door.events.clear();
        door.command("dial", &format!("sip:101@{}", server.sip.ip()));
        phone.wait_event("CALL_INCOMING", PATIENCE);
        phone.command("accept", "");
        phone.wait_event("CALL_ESTABLISHED", PATIENCE);
        door.wait_event("CALL_ESTABLISHED", PATIENCE);
        let call = talk(&server, who);
        let codec = if who == "app1" { "opus/48000" } else { "G722/8000" };
        let leg = call["legs"].as_array().and_then(|legs| legs.iter().find(|leg| leg["account"] == who).cloned());
        let codecs = leg.map(|leg| leg["codecs"].to_string()).unwrap_or_default();
        assert!(codecs.contains(codec) && !codecs.contains("PCM"), "{who}: {codecs}");
        assert!(call["legs"][0]["codecs"].to_string().contains("PCMU"), "{call:#}");
        phone.command("sndcode", "*");
        let told = wait_until(PATIENCE, || door.count("CALL_DTMF_START", "*") > 0 && pressed(&server, &call["id"], who, "*") > 0);
        assert!(told, "the door should hear {who}'s key: {:?}", door.events);
        let records = records(&server);
        let said = (&records[0]["account"], &records[0]["road"], &records[0]["outcome"], &records[0]["status"]);
        assert_eq!(said, (&who.into(), &"key".into(), &"relayed".into(), &408.into()), "never 200 (D-27): {records}");
        phone.command("hangup", "");
        door.wait_event("CALL_CLOSED", PATIENCE);
        phone.wait_event("CALL_CLOSED", PATIENCE);
        assert_eq!((door.count("CALL_DTMF_START", "*"), pressed(&server, &call["id"], who, "*")), (1, 1), "one key");
        heard(who, phone, 1000.0);
        heard("the door", &door, hz);
    }
}

#[test]
fn keys_by_info_reach_the_door_as_events() {
    let server = server("127.0.0.64", "10500-10599");
    server.provision(&[("door1", 1), ("app1", 0)], "101", &["app1"]);
    let phone: std::net::SocketAddr = ([127, 0, 0, 66], 5070).into();
    let auth = format!("[authentication username=app1 password={}]", password("app1"));
    Scenario::start("register", server.sip, phone, &["app1", &auth, "300"]).succeed();
    let phone = Scenario::start("phone_dials_by_info", server.sip, phone, &["app1"]);
    let mut door = start(&server, "door1", "127.0.0.65", "30900-30999", ("manual", 1000), "pcmu");
    door.command("dial", &format!("sip:101@{}", server.sip.ip()));
    phone.succeed();
    door.wait_event("CALL_CLOSED", PATIENCE);
    let call = server.api("GET", "/v1/calls", None)[0].clone();
    for key in ["*", "5"] {
        let seen = (door.count("CALL_DTMF_START", key), pressed(&server, &call["id"], "app1", key));
        assert_eq!(seen, (1, 1), "{key}: {:?}\n{call:#}", door.events);
    }
}

/// D-27, the other mode: the phone's `*` is swallowed, and the door gets the code that opens it.
#[test]
fn a_star_of_a_phone_becomes_the_code_of_the_door() {
    let server = server("127.0.0.67", "10600-10699");
    server.provision(&[("door1", 1), ("app1", 0)], "101", &["app1"]);
    server.api("PATCH", "/v1/doors/door1", Some(&serde_json::json!({"profile": "akuvox", "keys": "7#"})));
    let mut phone = start(&server, "app1", "127.0.0.68", "31000-31099", ("manual", 600), "pcmu");
    let mut door = start(&server, "door1", "127.0.0.69", "31100-31199", ("manual", 1000), "pcmu");
    door.command("dial", &format!("sip:101@{}", server.sip.ip()));
    phone.wait_event("CALL_INCOMING", PATIENCE);
    phone.command("accept", "");
    door.wait_event("CALL_ESTABLISHED", PATIENCE);
    talk(&server, "app1");
    phone.command("sndcode", "*");
    let told = wait_until(PATIENCE, || door.count("CALL_DTMF_START", "#") > 0);
    assert!(told, "{:?}\n{}", door.events, server.log());
    let keys = ["*", "7", "#"].map(|key| door.count("CALL_DTMF_START", key));
    assert_eq!(keys, [0, 1, 1], "{:?}", door.events);
    let records = records(&server);
    assert_eq!((&records[0]["road"], &records[0]["outcome"]), (&"key".into(), &"relayed".into()), "{records}");
    phone.command("hangup", "");
    door.wait_event("CALL_CLOSED", PATIENCE);
}
