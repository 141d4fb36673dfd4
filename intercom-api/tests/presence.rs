//! Doors that come, leave and stay away, as others are told it (spec events.md §2, codes from 105 on), in simulated time.

mod world;

use fixtures::net::Weather;
use intercom_api::control::Order;
use intercom_api::events::event::Kind;
use intercom_api::model::{AccountType, DirectoryChange, Number};
use intercom_api::turn::Settings;
use std::time::Duration;
use world::World;
use world::device::{Device, Habit};

const MINUTE: Duration = Duration::from_secs(60);

fn house() -> World {
    let settings = Settings { door_alarm: Some(MINUTE * 10), ..Settings::default() };
    let mut world = World::with(Weather::FAIR, 3, &[("d1", AccountType::Door), ("p1", AccountType::App)], settings);
    world.add(Device::new("d1", 11, Habit::Door, 1));
    world.add(Device::new("p1", 12, Habit::Early, 2));
    world
}

/// What was told since the last look.
fn told(world: &mut World) -> Vec<(Kind, String, Option<String>)> {
    world.events.drain(..).map(|event| (event.kind, event.source, event.reason)).collect()
}

fn told_of(who: &str, kinds: &[(Kind, Option<&str>)]) -> Vec<(Kind, String, Option<String>)> {
    kinds.iter().map(|(kind, reason)| (*kind, who.to_owned(), reason.map(str::to_owned))).collect()
}

const AWAY: (Kind, Option<&str>) = (Kind::Alarm, Some("not registered for 10 minutes"));

#[test]
fn a_door_that_never_came_since_the_start_is_an_alarm_once_and_a_phone_is_none() {
    let mut world = house();
    world.run(MINUTE * 10 - Duration::from_secs(1));
    assert_eq!(told(&mut world), []);
    world.run(MINUTE * 120);
    assert_eq!(told(&mut world), told_of("d1", &[AWAY]));
}

#[test]
fn a_door_comes_goes_stays_away_and_comes_back() {
    let mut world = house();
    world.act("d1", |door, now| door.register(now));
    world.run(MINUTE);
    assert_eq!(told(&mut world), told_of("d1", &[(Kind::Registered, None), (Kind::Online, None)]));
    world.run(MINUTE * 60);
    assert_eq!(told(&mut world), [], "a refresh is no news");
    // It falls silent, and its binding runs out.
    world.act("d1", |door, _| door.asleep = true);
    world.devices.get_mut("d1").unwrap().agent.stop_refreshing();
    world.run(MINUTE * 240);
    let reason = Some("expired");
    assert_eq!(told(&mut world), told_of("d1", &[(Kind::Unregistered, reason), (Kind::Offline, reason), AWAY]));
    world.act("d1", |door, now| {
        door.asleep = false;
        door.register(now);
    });
    world.run(MINUTE);
    assert_eq!(told(&mut world), told_of("d1", &[(Kind::Registered, None), (Kind::Online, None)]));
}

#[test]
fn a_door_that_is_taken_out_is_nobodys_concern_and_a_new_one_is() {
    let mut world = house();
    world.run(MINUTE);
    world.order(Order::Apply(vec![DirectoryChange::RemoveAccount(Number::new("d1"))]));
    world.run(MINUTE * 30);
    assert_eq!(told(&mut world), []);
    let account = intercom_api::model::Account {
        number: Number::new("d2"),
        password: intercom_api::model::Secret::new("pw"),
        kind: AccountType::Door,
        name: None,
        created_ms: 0,
        app: "key".into(),
    };
    world.order(Order::Apply(vec![DirectoryChange::PutAccount(account.clone())]));
    world.run(MINUTE * 5);
    // Changed meanwhile: it is the same absence.
    world.order(Order::Apply(vec![DirectoryChange::PutAccount(account)]));
    world.run(MINUTE * 5 - Duration::from_secs(1));
    assert_eq!(told(&mut world), []);
    world.run(Duration::from_secs(2));
    assert!(world.events.iter().all(|event| &*event.app == "key"), "its tenant's");
    assert_eq!(told(&mut world), told_of("d2", &[AWAY]));
}
