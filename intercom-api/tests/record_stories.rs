//! What signalling says for the record, in simulated time (D-29): a wish before its order, the good news after its entry, and who
//! watched.

mod world;

use fixtures::net::Weather;
use intercom_api::held::PATIENCE;
use intercom_api::model::AccountType;
use std::time::Duration;
use world::World;
use world::device::{Device, Habit};

const MOMENT: Duration = Duration::from_millis(1);

/// A door rings three phones; two show the visitor, one only rings.
fn ringing() -> World {
    let cast = [("d1", Habit::Door), ("p1", Habit::Early), ("p2", Habit::Early), ("p3", Habit::Ring)];
    let kind = |habit| if habit == Habit::Door { AccountType::Door } else { AccountType::App };
    let mut world = World::new(Weather::FAIR, 1, &cast.map(|(name, habit)| (name, kind(habit))));
    for (index, (name, habit)) in cast.into_iter().enumerate() {
        world.add(Device::new(name, 11 + index as u8, habit, index as u64));
        if habit != Habit::Door {
            world.act(name, |device, now| device.register(now));
        }
    }
    world.run(Duration::from_secs(1));
    world.act("d1", |door, now| door.call(now, "room"));
    world.run(Duration::from_secs(5));
    world
}

fn results(world: &World, name: &str) -> usize {
    world.devices[name].story.iter().filter(|line| *line == "unlock 7 200").count()
}

/// Runs until the outcome is announced to be written.
fn until_written(world: &mut World) {
    for _ in 0..2000 {
        if !world.records.is_empty() {
            return;
        }
        world.run(MOMENT);
    }
    panic!("no record");
}

#[test]
fn the_wish_is_announced_before_anything_of_it_leaves() {
    let mut world = ringing();
    world.act("p1", |phone, now| phone.unlock(now, 7));
    for _ in 0..2000 {
        if !world.asked.is_empty() {
            break;
        }
        assert_eq!(world.devices["d1"].openings, 0);
        world.run(MOMENT);
    }
    world.run(Duration::from_secs(1));
    let (asked, ended) = (world.asked.clone(), world.records.clone());
    assert_eq!((asked.len(), ended.len(), results(&world, "p1")), (1, 1, 1));
    let names =
        |r: &intercom_api::record::Record| (r.account.clone(), r.door.clone(), r.room.clone(), r.call.clone(), r.asked_ms);
    assert_eq!(names(&asked[0]), names(&ended[0]));
    assert_eq!((asked[0].outcome.as_str(), ended[0].outcome.as_str()), ("asked", "opened"));
    assert_eq!((ended[0].room.as_str(), ended[0].awaited.is_some()), ("room", true));
}

#[test]
fn a_sick_disk_delays_the_good_news_by_fifty_milliseconds_and_no_more() {
    let mut world = ringing();
    world.sick_disk = true;
    world.act("p1", |phone, now| phone.unlock(now, 7));
    until_written(&mut world);
    world.run(PATIENCE - 10 * MOMENT);
    assert_eq!((results(&world, "p1"), world.devices["d1"].openings), (0, 1), "the pulse did not wait");
    world.run(Duration::from_secs(1));
    assert_eq!(results(&world, "p1"), 1);
    assert_eq!(world.board.counters()["unlock_told_before_written"], 1);
    // One that has recovered does not tell twice.
    let numbers: Vec<u64> = world.records.iter().filter_map(|record| record.awaited).collect();
    let mut effects = Vec::new();
    world.board.committed(world.now, &numbers, &mut effects);
    assert!(effects.is_empty());
}

#[test]
fn a_visitor_who_leaves_meanwhile_takes_nobodys_result_with_him() {
    let mut world = ringing();
    world.sick_disk = true;
    world.act("p1", |phone, now| phone.unlock(now, 7));
    until_written(&mut world);
    world.act("d1", |door, now| door.hang_up(now));
    world.run(Duration::from_secs(10));
    assert_eq!(results(&world, "p1"), 1);
    assert!(!world.board.counters().contains_key("unlock_told_before_written"), "told when the call ended");
}

#[test]
fn whoever_saw_the_visitor_is_on_record_with_from_and_to() {
    let mut world = ringing();
    world.act("p1", |phone, now| phone.decide(now, 200));
    world.run(Duration::from_secs(20));
    world.act("d1", |door, now| door.hang_up(now));
    world.run(Duration::from_secs(10));
    let told: Vec<_> = world.watched.iter().map(|w| (w.account.as_str(), w.talked)).collect();
    assert_eq!(told, [("p2", false), ("p1", true)], "p3 has rung and shown nothing");
    for watched in &world.watched {
        assert_eq!((watched.door.as_str(), watched.room.as_str()), ("d1", "room"));
        let span = watched.to_ms - watched.from_ms;
        assert!(if watched.talked { span > 20_000 } else { (1..20_000).contains(&span) }, "{watched:?}");
    }
}
