//! Every behaviour of a ring as a trace on a virtual network: exact in fair weather, with the same end in storms, and never
//! against the invariants even when the network is as bad as it can be.

mod world;

use fixtures::net::Weather;
use intercom_api::events::event::Kind;
use std::path::Path;
use world::World;
use world::flight::Flight;
use world::trace::Trace;

/// Storms per trace; `DOORLINE_SEEDS=1000` for the long run.
fn seeds() -> u64 {
    std::env::var("DOORLINE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// What must hold in any weather: one winner at most, nobody talks who did not win.
fn check_invariants(world: &World) -> Result<(), String> {
    if let Some(wrong) = world.wrongs.first() {
        return Err(wrong.clone());
    }
    for call in world.calls.values() {
        let winners =
            call.legs.iter().filter(|leg| leg.role == "member" && leg.end_reason.as_deref() != Some("answered too late"));
        let talked = winners.filter(|leg| leg.state == "answered" || Some(&leg.account) == call.answered_by.as_ref()).count();
        if call.answered_by.is_some() && talked == 0 {
            return Err(format!("answered by nobody: {call:?}"));
        }
        if call.state != "ended" {
            return Err(format!("call {} goes on: {}", call.id, call.state));
        }
    }
    check_events(world)?;
    let heard: u32 = world.devices.values().filter(|d| d.name.starts_with('d')).map(|d| d.audio_in).sum();
    if heard > 0 && world.calls.values().all(|call| call.answered_by.is_none()) {
        return Err("the door heard somebody before anybody answered (D-05)".into());
    }
    Ok(())
}

/// Others are told of each call what became of it, each thing once and in order, whatever was lost or doubled (D-31).
fn check_events(world: &World) -> Result<(), String> {
    for call in world.calls.values() {
        let id = call.id.to_string();
        let told = world.events.iter().filter(|event| event.call.as_ref() == Some(&id) && event.kind != Kind::Unlocked);
        let told: Vec<_> =
            told.map(|event| (event.kind, event.source.as_str(), event.target.text(), event.reason.as_deref())).collect();
        let (door, group) = (call.from.as_str(), call.group.as_deref().unwrap_or(&call.to));
        let reason = call.end_reason.as_deref();
        let wanted = match call.answered_by.as_deref() {
            Some(who) => {
                vec![(Kind::Call, door, group, None), (Kind::Answered, who, door, None), (Kind::Ended, door, group, reason)]
            }
            None => vec![(Kind::Call, door, group, None), (Kind::Unanswered, door, group, reason)],
        };
        if told != wanted {
            return Err(format!("call {id}: others were told {told:?} instead of {wanted:?}"));
        }
    }
    let opened = world.records.iter().filter(|record| record.outcome.ends_with("opened")).count();
    let told = world.events.iter().filter(|event| event.kind == Kind::Unlocked).count();
    if (told, world.passages.len()) != (opened, opened) {
        return Err(format!("{opened} openings on record, {told} told, {} passages", world.passages.len()));
    }
    Ok(())
}

/// What others are told of calls in this world, without ids and moments. Two phones that answer at once may win either.
fn story(world: &World) -> Vec<(Kind, String, Option<String>)> {
    let of_calls = world.events.iter().filter(|event| event.call.is_some());
    let mut all: Vec<_> = of_calls.map(|event| (event.kind, event.target.text().to_owned(), event.reason.clone())).collect();
    all.sort();
    all
}

#[test]
fn in_fair_weather_every_ladder_is_exact() {
    for trace in Trace::all() {
        let mut world = trace.play(Weather::FAIR, 1);
        let result =
            trace.check_ladder(&world).and_then(|()| trace.check_end(&mut world)).and_then(|()| check_invariants(&world));
        result.unwrap_or_else(|error| panic!("{}: {error}\n{}", trace.path.display(), world.ladder.join("\n")));
    }
}

#[test]
fn in_storms_every_trace_ends_the_same_and_others_are_told_the_same() {
    for trace in Trace::all() {
        let mut calm = trace.play(Weather::FAIR, 1);
        calm.settle().unwrap();
        let fair = story(&calm);
        for seed in 1..=seeds() {
            let mut world = trace.play(Weather::STORMY, seed);
            let result = trace.check_end(&mut world).and_then(|()| check_invariants(&world));
            let told = story(&world);
            let result = result.and_then(|()| {
                if trace.has_choices() || told == fair { Ok(()) } else { Err(format!("told {told:?} instead of {fair:?}")) }
            });
            result.unwrap_or_else(|error| {
                panic!("{} with seed {seed}: {error}\n{}", trace.path.display(), world.ladder.join("\n"))
            });
        }
    }
}

#[test]
fn in_storms_100rel_changes_no_end() {
    for trace in Trace::all().into_iter().filter_map(Trace::with_100rel) {
        for seed in 1..=seeds() / 4 {
            let mut world = trace.play(Weather::STORMY, seed);
            let result = trace.check_end(&mut world).and_then(|()| check_invariants(&world));
            result.unwrap_or_else(|error| {
                panic!("{} with 100rel and seed {seed}: {error}\n{}", trace.path.display(), world.ladder.join("\n"))
            });
        }
    }
}

#[test]
fn in_any_weather_the_invariants_hold() {
    // Half of everything lost without bound, a third doubled.
    let weather = Weather { loss: 500, duplication: 300, losses_per_message: None, ..Weather::STORMY };
    for trace in Trace::all() {
        for seed in 1..=seeds() / 2 {
            let mut world = trace.play(weather, seed);
            let result = world.settle_server().and_then(|()| check_invariants(&world));
            result.unwrap_or_else(|error| {
                panic!("{} with seed {seed}: {error}\n{}", trace.path.display(), world.ladder.join("\n"))
            });
        }
    }
}

#[test]
fn recorded_flights_end_as_they_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/flights");
    let flights = std::fs::read_dir(folder).expect("flights").map(|entry| entry.expect("a flight").path());
    for path in flights {
        let flight = Flight::read(&std::fs::read_to_string(&path).expect("a flight"));
        assert_eq!(flight.replay(), flight.end, "{}", path.display());
    }
}

/// Ten thousand of each race, with the two sides within a few milliseconds of each other: nobody keeps ringing who has no
/// call, and no dialog outlives it.
mod races {
    use super::*;
    use fixtures::net::Random;
    use intercom_api::model::AccountType;
    use std::time::Duration;
    use world::device::{Device, Habit, Traits};

    const RUNS: u64 = 10_000;
    const WEATHER: Weather = Weather { jitter: Duration::from_millis(4), ..Weather::FAIR };

    /// A door and two phones, the second one registered or not.
    fn house(seed: u64, both: bool) -> World {
        ringing(seed, both, Traits::default(), 0)
    }

    /// All of them know 100rel, and the door's PRACK is lost: a 200 has to wait until it comes again.
    fn reliable_house(seed: u64) -> World {
        ringing(seed, true, Traits { reliable: true, ..Traits::default() }, 1)
    }

    fn ringing(seed: u64, both: bool, traits: Traits, lost_pracks: u32) -> World {
        let mut world =
            World::new(WEATHER, seed, &[("d1", AccountType::Door), ("p1", AccountType::App), ("p2", AccountType::App)]);
        for (index, (name, habit)) in [("d1", Habit::Door), ("p1", Habit::Early), ("p2", Habit::Early)].into_iter().enumerate() {
            world.add(Device::that(name, 11 + index as u8, habit, seed * 3 + index as u64, traits));
            if name == "p1" || (name == "p2" && both) {
                world.act(name, |device, now| device.register(now));
            }
        }
        world.run(Duration::from_millis(100));
        world.losses.push(("server".into(), "PRACK".into(), lost_pracks));
        world.act("d1", |door, now| door.call(now, "room"));
        world.run(Duration::from_millis(100));
        world
    }

    /// Two things within six milliseconds, in either order; then the visitor leaves and all must be over.
    fn race(name: &str, house: impl Fn(u64) -> World, first: fn(&mut World), second: fn(&mut World)) {
        for seed in 0..RUNS {
            let mut world = house(seed);
            let mut random = Random(seed ^ 0x5eed);
            let (a, b) = (random.below(6000), random.below(6000));
            let begin = world.now;
            let mut acts = [(a, first), (b, second)];
            acts.sort_by_key(|(at, _)| *at);
            for (at, act) in acts {
                world.run_until(begin + Duration::from_micros(u64::from(at)));
                act(&mut world);
            }
            world.run(Duration::from_secs(2));
            world.act("d1", |door, now| door.hang_up(now));
            let settled = world.settle().and_then(|()| check_invariants(&world));
            let told = |device: &Device| {
                let rings = device.story.iter().filter(|s| *s == "rings").count();
                let ends = device
                    .story
                    .iter()
                    .filter(|s| ["cancelled", "ended", "hung up"].contains(&s.as_str()) || s.starts_with("said"))
                    .count();
                rings == ends
            };
            let ghost =
                world.devices.values().find(|d| d.habit != Habit::Door && !told(d)).map(|d| (d.name.clone(), d.story.clone()));
            assert!(settled.is_ok() && ghost.is_none(), "{name} with seed {seed}: {settled:?}, ghost ring {ghost:?}");
        }
    }

    #[test]
    fn two_phones_answer_at_once() {
        race(
            "double answer",
            |seed| house(seed, true),
            |w| w.act("p1", |p, now| p.answer(now, 200)),
            |w| w.act("p2", |p, now| p.answer(now, 200)),
        );
    }

    #[test]
    fn the_answer_crosses_the_visitor_leaving() {
        race(
            "answer and cancel",
            |seed| house(seed, true),
            |w| w.act("p1", |p, now| p.answer(now, 200)),
            |w| w.act("d1", |d, now| d.hang_up(now)),
        );
    }

    #[test]
    fn a_phone_registers_while_another_answers() {
        race(
            "late registrant",
            |seed| house(seed, false),
            |w| w.act("p1", |p, now| p.answer(now, 200)),
            |w| w.act("p2", |p, now| p.register(now)),
        );
    }

    #[test]
    fn the_answer_waits_for_a_prack_and_crosses_the_visitor_leaving() {
        race(
            "held answer and cancel",
            reliable_house,
            |w| w.act("p1", |p, now| p.answer(now, 200)),
            |w| w.act("d1", |d, now| d.hang_up(now)),
        );
    }

    #[test]
    fn two_phones_answer_while_a_prack_is_missing() {
        race(
            "held double answer",
            reliable_house,
            |w| w.act("p1", |p, now| p.answer(now, 200)),
            |w| w.act("p2", |p, now| p.answer(now, 200)),
        );
    }
}
