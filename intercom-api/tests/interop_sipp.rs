//! Ladders played by SIPp: registration, a group of three, and every way a ring ends.

mod world;

use fixtures::process::wait_until;
use fixtures::server::{Server, password};
use fixtures::sipp::Scenario;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use world::flight::Flight;

const PHONES: [&str; 3] = ["p1", "p2", "p3"];

/// A server with a door and a room of three; every test has a loopback block of its own: server .1, door .9, phones .11 on.
struct House {
    server: Server,
    block: u8,
}

impl House {
    fn new(block: u8, settings: &[(&str, &str)]) -> House {
        let server =
            Server::start(Path::new(env!("CARGO_BIN_EXE_doorline")), &format!("127.0.{block}.1"), "10000-10099", settings);
        server.provision(&[("door", 1), ("p1", 0), ("p2", 0), ("p3", 0)], "room", &PHONES);
        House { server, block }
    }

    fn address(&self, host: u8) -> SocketAddr {
        ([127, 0, self.block, host], 5070).into()
    }

    fn auth(number: &str) -> String {
        format!("[authentication username={number} password={}]", password(number))
    }

    fn register(&self, host: u8, number: &str, seconds: &str) {
        Scenario::start("register", self.server.sip, self.address(host), &[number, &House::auth(number), seconds]).succeed();
    }

    /// Registers the room's phones and lets them play these scenarios.
    fn phones(&self, scenarios: [&str; 3]) -> Vec<Scenario> {
        let phone = |(index, scenario): (usize, &str)| {
            let host = 11 + index as u8;
            self.register(host, PHONES[index], "300");
            Scenario::start(scenario, self.server.sip, self.address(host), &[PHONES[index]])
        };
        let phones = scenarios.into_iter().enumerate().map(phone).collect();
        assert_eq!(self.server.api("GET", "/v1/registrations", None).as_array().map(Vec::len), Some(3));
        phones
    }

    fn door(&self, scenario: &str, dialled: &str) -> Scenario {
        Scenario::start(scenario, self.server.sip, self.address(9), &["door", &House::auth("door"), dialled])
    }

    /// The one call, when it has ended.
    fn call(&self) -> Value {
        let mut call = Value::Null;
        let ended = wait_until(Duration::from_secs(10), || {
            call = self.server.api("GET", "/v1/calls", None)[0].clone();
            call["state"] == "ended"
        });
        assert!(ended, "{call:#}");
        call
    }
}

#[test]
fn a_phone_registers_with_digest_and_leaves() {
    let house = House::new(81, &[]);
    house.register(11, "p1", "300");
    let registered = house.server.api("GET", "/v1/registrations", None);
    assert_eq!((&registered[0]["account"], &registered[0]["contact"]), (&"p1".into(), &"sip:p1@127.0.81.11:5070".into()));
    house.register(11, "p1", "0");
    assert_eq!(house.server.api("GET", "/v1/registrations", None).as_array().map(Vec::len), Some(0));
}

#[test]
fn door_rings_three_phones_one_answers_the_others_are_cancelled() {
    let house = House::new(82, &[]);
    let phones = house.phones(["phone_loses", "phone_answers", "phone_loses"]);
    house.door("door_talks", "room").succeed();
    let logs: Vec<String> = phones.into_iter().map(Scenario::succeed).collect();
    for loser in [&logs[0], &logs[2]] {
        assert!(loser.contains("SIP;cause=200;text=\"Call completed elsewhere\""), "{loser}");
    }
    let call = house.call();
    assert_eq!((&call["answered_by"], &call["end_reason"]), (&"p2".into(), &"caller hung up".into()));
}

#[test]
fn a_phone_registers_and_a_door_rings_over_tcp() {
    let house = House::new(88, &[]);
    let tcp = house.server.sip_of("tcp");
    Scenario::start_over_tcp("register", tcp, house.address(14), &["p1", &House::auth("p1"), "300"]).succeed();
    // That connection is over, so p1 is not reachable any more; here it is over UDP again.
    let phones = house.phones(["phone_loses", "phone_answers", "phone_loses"]);
    Scenario::start_over_tcp("door_talks", tcp, house.address(9), &["door", &House::auth("door"), "room"]).succeed();
    phones.into_iter().for_each(|phone| drop(phone.succeed()));
    let call = house.call();
    assert_eq!((&call["answered_by"], &call["end_reason"]), (&"p2".into(), &"caller hung up".into()));
}

#[test]
fn visitor_leaves_and_every_phone_stops_ringing() {
    let house = House::new(83, &[]);
    let phones = house.phones(["phone_loses"; 3]);
    house.door("door_gives_up", "room").succeed();
    for phone in phones {
        assert!(!phone.succeed().contains("cause=200"), "nobody answered elsewhere");
    }
    assert_eq!(house.call()["end_reason"], "caller gave up");
}

#[test]
fn everybody_declines_and_the_door_is_told_once() {
    let house = House::new(84, &[]);
    let phones = house.phones(["phone_declines", "phone_is_busy", "phone_declines"]);
    house.door("door_is_told_once", "room").succeed();
    phones.into_iter().for_each(|phone| drop(phone.succeed()));
    let call = house.call();
    assert_eq!(call["end_reason"], "all declined");
    let call = house.server.api("GET", &format!("/v1/calls/{}", call["id"].as_str().unwrap_or_default()), None);
    let finals = call["ladder"].as_array().cloned().unwrap_or_default();
    let finals: Vec<&Value> = finals.iter().filter(|step| step["to"] == "door").map(|step| &step["what"]).collect();
    assert_eq!(finals.last(), Some(&&Value::from("603 Decline")), "{finals:?}");
}

#[test]
fn nobody_answers_in_time() {
    let house = House::new(85, &[("RING__TIMEOUT_S", "1")]);
    let phones = house.phones(["phone_loses"; 3]);
    house.door("door_is_told_once", "room").succeed();
    phones.into_iter().for_each(|phone| drop(phone.succeed()));
    assert_eq!(house.call()["end_reason"], "not answered");
}

#[test]
fn a_call_that_ends_badly_is_written_down_and_replays_in_the_simulator() {
    let house = House::new(86, &[]);
    let phones = house.phones(["phone_answers_nonsense", "phone_declines", "phone_is_busy"]);
    house.door("door_is_told_once", "room").succeed();
    phones.into_iter().for_each(|phone| drop(phone.succeed()));
    assert_eq!(house.call()["end_reason"], "all declined");
    let folder = house.server.data().join("flights");
    let written = || std::fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).next();
    assert!(wait_until(Duration::from_secs(10), || written().is_some()), "no flight in {}", folder.display());
    let text = std::fs::read_to_string(written().unwrap_or_default()).unwrap_or_default();
    assert!(text.contains("p1: no common codec") && text.contains("response=\"masked\""), "{text}");
    let flight = Flight::read(&text);
    assert_eq!(flight.replay(), flight.end, "{text}");
    if let Some(path) = std::env::var_os("KEEP_FLIGHT") {
        std::fs::write(path, text).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The record, when it has this many entries.
fn records(server: &Server, count: usize) -> Vec<Value> {
    let mut records = Vec::new();
    let enough = wait_until(Duration::from_secs(5), || {
        records = server.api("GET", "/v1/records", None).as_array().cloned().unwrap_or_default();
        records.len() >= count
    });
    assert!(enough && records.len() == count, "{records:#?}");
    records
}

#[test]
fn a_phone_opens_the_door_once_and_both_hear_twice() {
    let house = House::new(87, &[]);
    let phones = house.phones(["phone_loses", "phone_unlocks", "phone_loses"]);
    let door = house.door("door_opens", "room").succeed();
    let logs: Vec<String> = phones.into_iter().map(Scenario::succeed).collect();
    assert_eq!(logs[1].matches("told 200").count(), 2, "{}", logs[1]);
    // One number of our own on both packets, not the phone's 7.
    let numbers: Vec<&str> = door.lines().filter_map(|line| line.rsplit_once("with ").map(|(_, number)| number)).collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{door}");
    let record = &records(&house.server, 1)[0];
    assert_eq!((&record["account"], &record["outcome"], &record["status"]), (&"p2".into(), &"opened".into(), &200.into()));
    assert_eq!(house.call()["end_reason"], "callee hung up");
}

#[test]
fn door_and_phone_acknowledge_each_183_and_the_phone_holds_and_resumes() {
    let house = House::new(90, &[]);
    let phones = house.phones(["phone_loses", "phone_answers_reliably", "phone_loses"]);
    house.door("door_with_100rel", "room").succeed();
    let logs: Vec<String> = phones.into_iter().map(Scenario::succeed).collect();
    assert_eq!(logs[1].lines().collect::<Vec<_>>(), ["held", "held the old way", "resumed"]);
    let call = house.call();
    assert_eq!((&call["answered_by"], &call["end_reason"]), (&"p2".into(), &"caller hung up".into()));
}

#[test]
fn a_door_without_an_offer_gets_ours_in_the_200() {
    let house = House::new(89, &[]);
    let phones = house.phones(["phone_loses", "phone_answers", "phone_loses"]);
    house.door("door_without_offer", "room").succeed();
    phones.into_iter().for_each(|phone| drop(phone.succeed()));
    let call = house.call();
    assert_eq!((&call["answered_by"], &call["end_reason"]), (&"p2".into(), &"caller hung up".into()));
}

/// The owner opens a door of this kind in its call: what he is told, and the record when the call is over and the door has had
/// its late word.
fn opened_by_owner(block: u8, door: &str, late: bool) -> ((u16, Value), Vec<Value>) {
    let house = House::new(block, &[]);
    let phones = house.phones(["phone_loses", "phone_answers", "phone_loses"]);
    let door = house.door(door, "room");
    let answered = wait_until(Duration::from_secs(10), || house.server.api("GET", "/v1/calls", None)[0]["state"] == "answered");
    assert!(answered, "{}", house.server.log());
    let told = house.server.try_api("POST", "/v1/doors/door/unlock", None).unwrap_or_else(|error| panic!("{error}"));
    door.succeed();
    phones.into_iter().for_each(|phone| drop(phone.succeed()));
    let complete = wait_until(Duration::from_secs(5), || !late || records(&house.server, 1)[0]["late"].is_object());
    let records = records(&house.server, 1);
    assert!(complete, "{records:#?}");
    (told, records)
}

#[test]
fn a_door_that_answers_too_late_has_told_nobody() {
    let ((status, told), records) = opened_by_owner(96, "door_opens_late", true);
    assert_eq!((status, &told["status"], &told["reason"]), (408, &408.into(), &"unknown".into()), "{told}");
    let took = told["took_ms"].as_u64().unwrap_or_default();
    assert!((2600..=2750).contains(&took), "before the asker gives up (D-25): {took}");
    assert_eq!((&records[0]["outcome"], &records[0]["late"]["outcome"]), (&"unknown".into(), &"opened".into()));
}

#[test]
fn a_door_that_never_answers_is_408_and_gets_no_keys() {
    let ((status, told), records) = opened_by_owner(97, "door_opens_never", false);
    assert_eq!((status, &told["reason"], &records[0]["road"]), (408, &"unknown".into(), &"http".into()), "{told}");
}

#[test]
fn a_door_that_answers_twice_has_opened_once() {
    let ((status, told), records) = opened_by_owner(98, "door_opens_twice", false);
    assert_eq!((status, &told["reason"]), (200, &"opened".into()), "{told}");
    assert_eq!((&records[0]["outcome"], &records[0]["account"]), (&"opened".into(), &"api:owner".into()));
}

#[test]
fn a_door_that_refuses_both_packets_is_told_by_keys() {
    let ((status, told), records) = opened_by_owner(99, "door_refuses_info", false);
    assert_eq!((status, &told["reason"]), (408, &"relayed".into()), "{told}");
    assert_eq!(records[0]["outcome"], "relayed");
}
