//! Random walks: people press by every road, packets are lost, doubled, replayed and overtaken, the door answers late, never,
//! twice or not as wished. Whatever happens: one pulse per hold window, one opening per pulse, one result per wish, and nobody is
//! told 200 unless the door said so.

mod world;

use fixtures::net::{Random, Weather};
use intercom_api::control::{Answer, Order};
use intercom_api::turn::Settings;
use intercom_api::unlock::Outcome;
use std::collections::BTreeMap;
use std::time::Duration;
use world::World;
use world::device::Mood;
use world::house::house;

/// Walks; `DOORLINE_SEEDS=100000` for the long run.
fn seeds() -> u64 {
    std::env::var("DOORLINE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

const HOLD: Duration = Duration::from_secs(3);
const HEAVY: Weather = Weather { loss: 400, duplication: 400, losses_per_message: None, ..Weather::STORMY };

/// One walk of some fifteen seconds, to its end.
fn walk(seed: u64) -> (World, Vec<u64>, bool) {
    let mut random = Random(seed ^ 0xd00d);
    let mut world = house(seed, Settings::default());
    let refuses_info = random.below(6) == 0;
    if random.below(4) > 0 {
        world.act("d1", |door, now| door.call(now, "room"));
        world.run(Duration::from_millis(100));
        if random.below(3) > 0 {
            world.act("p1", |phone, now| phone.answer(now, 200));
            world.run(Duration::from_millis(100));
        }
    }
    world.act("d1", |door, _| {
        door.moods = Some(Random(seed ^ 0xbad));
        door.agent.info_code = if refuses_info { 488 } else { 200 };
    });
    world.net.change([Weather::FAIR, Weather::STORMY, HEAVY][random.below(3) as usize]);
    // Both phones begin with the same number, as phones do.
    let mut next = BTreeMap::from([("p1", 1u16), ("p2", 1), ("p3", 1), ("p4", 1)]);
    let mut tickets = Vec::new();
    for _ in 0..4 + random.below(12) {
        // Some press at once, some after everything is over.
        let pause = [0, 40, 700, 2600, 3100][random.below(5) as usize];
        world.run(Duration::from_millis(pause + u64::from(random.below(60))));
        let mut number = |who: &str| {
            let next = next.get_mut(who).expect("a phone");
            *next += 1;
            *next - 1
        };
        match random.below(9) {
            0 | 1 => world.act("p1", |phone, now| phone.unlock(now, number("p1"))),
            2 => world.act("p2", |phone, now| phone.unlock(now, number("p2"))),
            3 => world.act("p3", |phone, now| phone.unlock_by_message(now, "d1", number("p3"))),
            4 => match world.order(Order::Unlock { door: "d1".into(), asker: "owner".into() }) {
                Answer::Later { ticket } => tickets.push(ticket),
                other => panic!("{other:?}"),
            },
            5 => world.act("p1", |phone, now| phone.info(now, "application/dtmf", "*")),
            6 => world.act("p4", |phone, now| phone.unlock_by_message(now, "d1", number("p4"))),
            7 => world.replay(random.below(50) as usize),
            // The last number once more, within the window or long after it.
            _ => world.act("p1", |phone, now| phone.unlock(now, number("p1").saturating_sub(1).max(1))),
        }
        if random.below(20) == 0 {
            world.act("d1", |door, now| door.hang_up(now));
        }
    }
    world.run(Duration::from_secs(40));
    (world, tickets, refuses_info)
}

fn check(world: &World, tickets: &[u64], refuses_info: bool) -> Result<(), String> {
    let door = &world.devices["d1"];
    let order = |number: Option<u64>| door.orders.iter().find(|order| Some(order.reqsn) == number);
    // One pulse per window, counted from its first packet, unless the door said no to the one before.
    for pair in world.pulses.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let said_no = before.2.is_some() && (refuses_info || order(before.2).is_some_and(|order| order.mood == Mood::Refuses));
        if after.0 < before.0 + HOLD && !said_no {
            return Err(format!("two pulses in {:?}: {before:?} {after:?}", after.0 - before.0));
        }
    }
    // Whatever was repeated, doubled or overtaken: a pulse opens once.
    for (index, order) in door.orders.iter().enumerate() {
        if door.orders[..index].iter().any(|other| other.reqsn == order.reqsn) {
            return Err(format!("order {} was taken twice: {:?}", order.reqsn, door.orders));
        }
    }
    // One result per wish.
    for ticket in tickets {
        if world.told.get(ticket).map(Vec::len) != Some(1) {
            return Err(format!("ticket {ticket} was told {:?}", world.told.get(ticket)));
        }
    }
    for phone in world.devices.values() {
        for (number, status) in &phone.told {
            // The number may come again after its window, as another wish of its own.
            let wishes = world.records.iter().filter(|r| r.account == phone.name && u64::from(r.reqsn) == *number);
            if wishes.clone().all(|record| u64::from(record.status) != *status) {
                return Err(format!("{} was told {status} for {number}, which no record says", phone.name));
            }
        }
    }
    let first_asks = world.records.iter().map(|r| (&r.account, &r.road, r.reqsn, r.asked_ms, &r.call, &r.outcome));
    let mut seen = std::collections::BTreeSet::new();
    for ask in first_asks.filter(|(.., reqsn, _, _, _)| *reqsn > 0) {
        if !seen.insert((ask.0, ask.1, ask.2, ask.3)) {
            return Err(format!("two entries for one wish: {ask:?}"));
        }
    }
    // 200 is the door's word, for the pulse that this person shares.
    for record in world.records.iter().filter(|record| record.status == 200) {
        let Some(sent) = record.sent_ms else { return Err(format!("opened, and nothing was sent: {record:?}")) };
        let of = |at: std::time::Instant| 1_790_000_000_000 + (at - world.start).as_millis() as i64;
        // Milliseconds of two clocks, and a refused pulse may be followed at once.
        let mut pulses = world.pulses.iter().filter(|(at, ..)| (of(*at) - sent).abs() <= 2).filter_map(|pulse| order(pulse.2));
        let said = pulses.find(|order| !matches!(order.mood, Mood::Refuses | Mood::Silent));
        if said.is_none() {
            return Err(format!("opened, and the door never said so: {record:?} {:?} {:?}", world.pulses, door.orders));
        }
    }
    if world
        .records
        .iter()
        .any(|record| record.road == "key" && record.status == 200 && record.outcome == Outcome::Relayed.name())
    {
        return Err("a relayed key is never 200 (D-27)".into());
    }
    Ok(())
}

#[test]
fn any_walk_opens_once_per_window_and_tells_each_wish_one_result() {
    let mut outcomes = BTreeMap::<String, u64>::new();
    for seed in 0..seeds() {
        let (world, tickets, refuses_info) = walk(seed);
        check(&world, &tickets, refuses_info).unwrap_or_else(|error| {
            let told: Vec<_> =
                world.records.iter().map(|r| (&r.account, &r.road, r.reqsn, r.asked_ms, &r.outcome, r.status)).collect();
            panic!("seed {seed}: {error}\n{told:#?}\n{:?}", world.devices["d1"].orders)
        });
        for record in &world.records {
            *outcomes.entry(format!("{} {}", record.road, record.outcome)).or_default() += 1;
        }
    }
    // The walks go everywhere.
    for met in
        ["info opened", "info unknown", "info refused", "info relayed", "message forbidden", "message opened", "http opened"]
    {
        assert!(outcomes.contains_key(met), "no walk met `{met}`: {outcomes:?}");
    }
    println!("{outcomes:?}");
}
