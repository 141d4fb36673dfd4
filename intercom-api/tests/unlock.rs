//! Who may open a door by which road (D-23), what reaches it, and what everybody is told: on the virtual network.

mod world;

use intercom_api::control::{Answer, Order};
use intercom_api::model::{Access, DirectoryChange, DoorWays, Number};
use intercom_api::profile::{Profile, Star};
use intercom_api::turn::Settings;
use std::time::Duration;
use world::World;
use world::house::house;

/// A road, as one would take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Road {
    Info,
    Message,
    LoneInfo,
    Key,
    Http,
}

/// What stands against it, or for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// Rung at; the room is not in the door's map.
    Rung,
    /// The same with `unlock.while_ringing` off.
    RungButMayNot,
    Talks,
    /// In the door's map, no party of its call.
    InMap,
    /// Neither.
    Nobody,
    /// Talks, but the account may open nothing.
    AccountDisabled,
    /// Talks, and may open on other days.
    AccountHours,
    DoorDisabled,
    DoorHours,
}

const RIGHTS: [Right; 9] = [
    Right::Rung,
    Right::RungButMayNot,
    Right::Talks,
    Right::InMap,
    Right::Nobody,
    Right::AccountDisabled,
    Right::AccountHours,
    Right::DoorDisabled,
    Right::DoorHours,
];

impl Right {
    fn who(self) -> &'static str {
        match self {
            Right::InMap => "p3",
            Right::Nobody => "p4",
            _ => "p1",
        }
    }

    /// What D-23 says.
    fn may(self, road: Road) -> bool {
        match (road, self) {
            // The owner's key stands for the owner, whoever stands at the door; only what is set for the door binds it.
            (Road::Http, Right::DoorDisabled | Right::DoorHours) => false,
            (Road::Http, _) => true,
            (_, Right::Rung | Right::Talks | Right::InMap) => true,
            (_, _) => false,
        }
    }
}

fn access(number: &str, access: Access) -> Order {
    Order::Apply(vec![DirectoryChange::PutAccess(Number::new(number), access)])
}

/// The simulation begins on a Monday; nothing is open on Sundays alone.
fn sundays() -> Access {
    let hours = serde_json::from_str(r#"[{"days":[7],"from":"00:00","to":"24:00"}]"#).expect("hours");
    Access { hours, ..Access::default() }
}

fn disabled() -> Access {
    Access { disabled: true, ..Access::default() }
}

fn profile(name: &str) -> Access {
    Access { door: DoorWays { profile: Profile::named(name), ..DoorWays::default() }, ..Access::default() }
}

fn stage(right: Right) -> World {
    let while_ringing = right != Right::RungButMayNot;
    let mut world = house(7, Settings { unlock_while_ringing: while_ringing, unlock_out_of_dialog: true, ..Settings::default() });
    match right {
        Right::AccountDisabled => drop(world.order(access("p1", disabled()))),
        Right::AccountHours => drop(world.order(access("p1", sundays()))),
        Right::DoorDisabled => drop(world.order(access("d1", disabled()))),
        Right::DoorHours => drop(world.order(access("d1", sundays()))),
        Right::Rung | Right::RungButMayNot | Right::Talks | Right::InMap | Right::Nobody => {}
    }
    world.ring(!matches!(right, Right::Rung | Right::RungButMayNot));
    world
}

/// Takes a road; `false`: there is no such road for this person.
fn take(world: &mut World, road: Road, who: &'static str, right: Right) -> bool {
    let party = !matches!(right, Right::InMap | Right::Nobody);
    match road {
        Road::Info | Road::Key if !party => return false,
        // Before the answer a key is worth nothing (D-05).
        Road::Key if matches!(right, Right::Rung | Right::RungButMayNot) => return false,
        Road::Info => world.act(who, |phone, now| phone.unlock(now, 5)),
        Road::Key => world.act(who, |phone, now| phone.info(now, "application/dtmf", "*")),
        Road::Message => world.act(who, |phone, now| phone.unlock_by_message(now, "d1", 5)),
        Road::LoneInfo => world.act(who, |phone, now| phone.unlock_by_lone_info(now, "d1", 5)),
        Road::Http => {
            assert!(matches!(world.order(Order::Unlock { door: "d1".into(), asker: "owner".into() }), Answer::Later { .. }))
        }
    }
    true
}

#[test]
fn road_by_right_the_table_of_d_23() {
    for road in [Road::Info, Road::Message, Road::LoneInfo, Road::Key, Road::Http] {
        for right in RIGHTS {
            let mut world = stage(right);
            if !take(&mut world, road, right.who(), right) {
                continue;
            }
            world.run(Duration::from_secs(4));
            let case = format!("{road:?} {right:?}");
            let may = right.may(road);
            assert_eq!(world.pulses.len(), usize::from(may), "{case}: what reaches the door");
            let [record] = &world.records[..] else { panic!("{case}: {:?}", world.records) };
            let status = match (may, road) {
                (false, _) => 403,
                (true, Road::Key) => 408,
                (true, _) => 200,
            };
            assert_eq!(record.status, status, "{case}: {record:?}");
            assert_eq!(record.account, if road == Road::Http { "api:owner" } else { right.who() }, "{case}");
            if matches!(road, Road::Info | Road::Message | Road::LoneInfo) {
                let told = &world.devices[right.who()].told;
                assert!(!told.is_empty() && told.iter().all(|told| *told == (5, u64::from(status))), "{case}: {told:?}");
            }
        }
    }
}

/// The matched dialog of a phone is what counts: another `sip` in the body is nobody's order (D-23).
#[test]
fn the_body_does_not_say_who_asks() {
    let mut world = stage(Right::AccountDisabled);
    world.act("p1", |phone, now| phone.info(now, "application/json", r#"{"req":"unlock","reqsn":5,"sip":"p3"}"#));
    world.run(Duration::from_secs(4));
    assert!(world.pulses.is_empty() && world.records[0].account == "p1" && world.records[0].status == 403, "{:?}", world.records);
    let mut world = stage(Right::Talks);
    world.act("p1", |phone, now| phone.info(now, "application/json", r#"{"req":"unlock","reqsn":5,"sip":"p3"}"#));
    world.run(Duration::from_secs(4));
    assert_eq!((world.records[0].account.as_str(), world.records[0].status), ("p1", 200));
}

/// OPEN-11: with and without `sip`, and as a form; nonsense opens nothing.
#[test]
fn bodies_are_read_as_both_versions_write_them() {
    for (kind, body, opens) in [
        ("application/json", r#"{"req":"unlock","reqsn":100,"sip":"p1"}"#, true),
        ("application/json", r#"{"req":"unlock","reqsn":100}"#, true),
        ("application/json; charset=utf-8", r#"{"req":"unlock","reqsn":100}"#, true),
        ("application/x-www-form-urlencoded", "req=unlock&reqsn=100", true),
        ("application/json", r#"{"req":"unlock","reqsn":0}"#, false),
        ("application/json", r#"{"req":"unlock","reqsn":1000}"#, false),
        ("application/json", r#"{"req":"unlock"}"#, false),
        ("text/plain", r#"{"req":"unlock","reqsn":100}"#, false),
    ] {
        let mut world = stage(Right::Talks);
        world.act("p1", |phone, now| phone.info(now, kind, body));
        world.run(Duration::from_secs(4));
        assert_eq!(world.devices["d1"].openings, u32::from(opens), "{kind} {body}");
    }
}

#[test]
fn a_hundred_replays_and_duplicates_are_one_opening() {
    let mut world = stage(Right::Talks);
    world.act("p1", |phone, now| phone.unlock(now, 5));
    for _ in 0..100 {
        world.replay(0);
        world.replay(1);
        world.run(Duration::from_millis(97));
    }
    world.run(Duration::from_secs(5));
    assert_eq!((world.devices["d1"].openings, world.pulses.len(), world.records.len()), (1, 1, 1));
    let mut world = stage(Right::InMap);
    world.act("p3", |phone, now| phone.unlock_by_message(now, "d1", 5));
    world.run(Duration::from_millis(50));
    for _ in 0..100 {
        world.replay(0);
        world.run(Duration::from_millis(397));
    }
    assert_eq!((world.devices["d1"].openings, world.records.len()), (1, 1), "signed once, opened once");
}

#[test]
fn without_a_call_the_order_goes_to_where_the_door_is_registered() {
    let mut world = house(7, Settings::default());
    world.act("p3", |phone, now| phone.unlock_by_message(now, "d1", 8));
    world.run(Duration::from_secs(1));
    assert_eq!(world.devices["p3"].told, [(8, 200), (8, 200)]);
    assert_eq!(world.devices["d1"].openings, 1);
    // The owner inside the window shares it.
    world.order(Order::Unlock { door: "d1".into(), asker: "owner".into() });
    world.run(Duration::from_secs(4));
    assert_eq!((world.devices["d1"].openings, world.told.len()), (1, 1));
    // A door that is registered nowhere, and one that there is not.
    world.order(Order::Apply(vec![DirectoryChange::RemoveAccount(Number::new("d1"))]));
    assert_eq!(world.order(Order::Unlock { door: "d1".into(), asker: "owner".into() }), Answer::NotFound);
    assert_eq!(world.order(Order::Unlock { door: "p1".into(), asker: "owner".into() }), Answer::NotFound, "a phone is no door");
    let mut world = house(8, Settings::default());
    world.act("d1", |door, now| door.unregister(now));
    world.run(Duration::from_secs(1));
    world.order(Order::Unlock { door: "d1".into(), asker: "owner".into() });
    assert_eq!((world.records[0].outcome.as_str(), world.records[0].status), ("offline", 480));
}

#[test]
fn an_info_without_a_dialog_is_481_unless_it_is_switched_on() {
    let mut world = house(7, Settings::default());
    world.act("p3", |phone, now| phone.unlock_by_lone_info(now, "d1", 5));
    world.run(Duration::from_secs(4));
    assert!(world.records.is_empty() && world.pulses.is_empty());
    assert_eq!(world.board.counters().get("no_dialog"), Some(&1));
}

/// D-27: a door is one or the other.
#[test]
fn a_star_is_relayed_or_becomes_an_order_as_the_profile_says() {
    let mut world = stage(Right::Talks);
    world.record();
    world.act("p1", |phone, now| phone.info(now, "application/dtmf", "*"));
    world.run(Duration::from_secs(1));
    assert!(world.ladder.contains(&"media press * of p1".to_owned()), "{:#?}", world.ladder);
    let said = |world: &World| world.records.iter().map(|r| format!("{} {} {}", r.road, r.outcome, r.status)).collect::<Vec<_>>();
    assert_eq!(said(&world), ["key relayed 408"]);
    // Inside the window another road is the same opening.
    world.order(Order::Unlock { door: "d1".into(), asker: "owner".into() });
    world.run(Duration::from_secs(1));
    assert_eq!((world.pulses.len(), said(&world).pop().as_deref()), (1, Some("http relayed 408")));

    // The same door with `translate`: an order like any other, and the door's word counts.
    let mut world = house(7, Settings::default());
    let door = DoorWays { star: Some(Star::AkuvoxTranslate), ..DoorWays::default() };
    world.order(access("d1", Access { door, ..Access::default() }));
    world.ring(true);
    world.act("p1", |phone, now| phone.info(now, "application/dtmf", "*"));
    world.run(Duration::from_secs(1));
    assert_eq!((world.devices["d1"].openings, said(&world)), (1, vec!["key opened 200".to_owned()]));

    // An Akuvox opens by its own code, whatever the person pressed.
    let mut world = house(7, Settings::default());
    let mut akuvox = profile("akuvox");
    akuvox.door.keys = Some("7#".into());
    world.order(access("d1", akuvox));
    world.ring(true);
    world.record();
    world.act("p1", |phone, now| phone.info(now, "application/dtmf", "*"));
    world.run(Duration::from_secs(1));
    let pressed: Vec<_> = world.ladder.iter().filter(|line| line.starts_with("media press")).collect();
    assert_eq!(pressed, ["media press 7 of p1", "media press # of p1"]);
    assert_eq!(said(&world), ["key relayed 408"]);
}

/// D-26: a second road only after an explicit no to both packets, or when nothing was sent.
#[test]
fn a_door_that_knows_no_order_gets_keys_and_one_that_is_silent_does_not() {
    let mut world = stage(Right::Talks);
    world.act("d1", |door, _| door.agent.info_code = 488);
    world.act("p1", |phone, now| phone.unlock(now, 5));
    world.run(Duration::from_secs(4));
    assert_eq!(world.pulses.iter().map(|pulse| pulse.2.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(world.devices["p1"].told[0], (5, 408));
    assert_eq!(world.records[0].outcome, "relayed");
    let mut world = stage(Right::Talks);
    world.act("d1", |door, _| door.silent = true);
    world.act("p1", |phone, now| phone.unlock(now, 5));
    world.run(Duration::from_secs(4));
    assert_eq!((world.pulses.len(), world.records[0].outcome.as_str(), world.records[0].status), (1, "unknown", 408));
    // While it rings there is nobody whose key it could be.
    let mut world = stage(Right::Rung);
    world.act("d1", |door, _| door.agent.info_code = 488);
    world.act("p1", |phone, now| phone.unlock(now, 5));
    world.run(Duration::from_secs(4));
    assert_eq!((world.pulses.len(), world.records[0].status), (1, 488));
}

/// Both phones count from one; the door sees numbers of ours.
#[test]
fn two_phones_with_the_same_number_are_two_askers_of_one_pulse() {
    let mut world = stage(Right::Rung);
    for phone in ["p1", "p2"] {
        world.act(phone, |phone, now| phone.unlock(now, 1));
    }
    world.run(Duration::from_secs(4));
    assert_eq!((world.devices["d1"].openings, world.records.len()), (1, 2));
    for phone in ["p1", "p2"] {
        assert_eq!(world.devices[phone].told, [(1, 200), (1, 200)], "{phone}");
    }
    world.act("p2", |phone, now| phone.unlock(now, 1));
    world.run(Duration::from_secs(4));
    assert_eq!(world.devices["d1"].openings, 2, "the same number after the window is a new wish");
}

/// D-27: keys of one who may not open do not reach the door, also when that changes in mid-call.
#[test]
fn keys_of_one_who_may_not_open_stay_here() {
    let mut world = stage(Right::AccountDisabled);
    world.record();
    world.act("p1", |phone, now| phone.info(now, "application/dtmf", "5"));
    world.run(Duration::from_secs(3));
    assert!(world.ladder.iter().all(|line| !line.starts_with("media press")), "{:#?}", world.ladder);
    world.order(access("p1", Access::default()));
    world.run(Duration::from_secs(3));
    assert!(world.ladder.contains(&"media keys pass".to_owned()), "{:#?}", world.ladder);
    world.act("p1", |phone, now| phone.info(now, "application/dtmf", "5"));
    world.run(Duration::from_secs(1));
    assert!(world.ladder.contains(&"media press 5 of p1".to_owned()));
}
