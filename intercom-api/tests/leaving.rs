//! Who is deleted, or leaves a house, while it rings or somebody talks: his phone falls silent at once and the rest goes on
//! (spec admin-api.md §5.2, §11). And who is of another application is out of reach (§2.1). On the virtual network.

mod world;

use intercom_api::control::Order;
use intercom_api::model::{Account, AccountType, DirectoryChange, Group, Number, Secret};
use intercom_api::turn::Settings;
use std::time::Duration;
use world::World;
use world::house::house;

fn soon(world: &mut World) {
    world.run(Duration::from_millis(100));
}

fn apply(world: &mut World, changes: Vec<DirectoryChange>) {
    world.order(Order::Apply(changes));
    soon(world);
}

/// The room with these members from now on.
fn room(members: &[&str]) -> DirectoryChange {
    group("room", members, "")
}

fn group(id: &str, members: &[&str], app: &str) -> DirectoryChange {
    let members = members.iter().map(|name| Number::new(name)).collect();
    DirectoryChange::PutGroup(Group { id: Number::new(id), members, name: None, created_ms: 0, app: app.into() })
}

fn gone(name: &str) -> DirectoryChange {
    DirectoryChange::RemoveAccount(Number::new(name))
}

fn last<'a>(world: &'a World, name: &str) -> &'a str {
    world.devices[name].story.last().map(String::as_str).unwrap_or_default()
}

/// Why each leg of the only call has ended, `-` for one that has not; and the call.
fn ends(world: &World) -> (Vec<String>, Option<&str>) {
    let call = world.calls.values().next().expect("a call");
    let legs = call.legs.iter().filter(|leg| leg.role == "member");
    (legs.map(|leg| leg.end_reason.clone().unwrap_or("-".into())).collect(), call.end_reason.as_deref())
}

#[test]
fn a_phone_that_leaves_the_group_stops_ringing_at_once_and_the_other_may_answer() {
    let mut world = house(1, Settings::default());
    world.ring(false);
    apply(&mut world, vec![room(&["p2"])]);
    assert_eq!((last(&world, "p1"), last(&world, "p2")), ("cancelled", "rings"));
    assert_eq!(ends(&world), (vec!["left the group".into(), "-".into()], None));
    // It registers anew and still is not called.
    world.act("p1", |phone, now| phone.register(now));
    soon(&mut world);
    assert_eq!(last(&world, "p1"), "registered");
    world.act("p2", |phone, now| phone.answer(now, 200));
    soon(&mut world);
    assert_eq!(last(&world, "d1"), "answered");
    world.act("d1", |door, now| door.hang_up(now));
    world.settle().unwrap();
}

#[test]
fn a_phone_that_leaves_while_it_talks_is_hung_up() {
    let mut world = house(2, Settings::default());
    world.ring(true);
    assert_eq!(last(&world, "d1"), "answered");
    // Somebody else's leaving is nothing to it.
    apply(&mut world, vec![room(&["p1"]), group("house", &[], "")]);
    assert_eq!((last(&world, "p1"), world.board.running_calls()), ("rings", 1), "and never said that it is over");
    apply(&mut world, vec![room(&["p2"])]);
    assert_eq!((last(&world, "p1"), last(&world, "d1")), ("ended", "ended"));
    assert_eq!(ends(&world).1, Some("left the group"));
    world.settle().unwrap();
}

#[test]
fn when_the_last_one_leaves_the_door_is_told_at_once() {
    let mut world = house(3, Settings::default());
    world.ring(false);
    apply(&mut world, vec![room(&[])]);
    assert_eq!((last(&world, "p1"), last(&world, "p2"), last(&world, "d1")), ("cancelled", "cancelled", "refused 480"));
    world.settle().unwrap();
}

#[test]
fn an_answer_that_crosses_the_leaving_gets_no_talk() {
    let mut world = house(4, Settings::default());
    world.ring(false);
    // His 200 is on its way when he leaves.
    world.act("p1", |phone, now| phone.answer(now, 200));
    apply(&mut world, vec![room(&["p2"])]);
    assert_eq!((last(&world, "p1"), last(&world, "d1")), ("ended", "180"));
    world.act("p2", |phone, now| phone.answer(now, 200));
    soon(&mut world);
    assert_eq!(last(&world, "d1"), "answered");
    assert!(world.wrongs.is_empty(), "{:?}", world.wrongs);
    world.act("d1", |door, now| door.hang_up(now));
    world.settle().unwrap();
}

#[test]
fn a_deleted_group_ends_its_calls_ringing_or_answered() {
    for answered in [false, true] {
        let mut world = house(5, Settings::default());
        world.ring(answered);
        apply(&mut world, vec![DirectoryChange::RemoveGroup(Number::new("house"))]);
        assert_eq!(world.board.running_calls(), 1, "another group's end is nothing to it");
        apply(&mut world, vec![DirectoryChange::RemoveGroup(Number::new("room"))]);
        let (phone, door) = if answered { ("ended", "ended") } else { ("cancelled", "refused 480") };
        assert_eq!((last(&world, "p1"), last(&world, "d1")), (phone, door));
        assert_eq!(ends(&world).1, Some("group removed"));
        world.settle().unwrap();
    }
}

#[test]
fn a_deleted_account_is_out_of_everything() {
    // A phone while it rings: as the store tells it, the account first and the group after it.
    let mut world = house(6, Settings::default());
    world.ring(false);
    apply(&mut world, vec![gone("p1"), room(&["p2"])]);
    assert_eq!((last(&world, "p1"), last(&world, "p2")), ("cancelled", "rings"));
    assert_eq!(ends(&world).0, ["account removed", "-"]);
    assert!(!world.registered.contains_key("p1"));
    world.act("p1", |phone, now| phone.register(now));
    soon(&mut world);
    assert_eq!(last(&world, "p1"), "not registered 403");

    // While it talks.
    let mut world = house(7, Settings::default());
    world.ring(true);
    apply(&mut world, vec![gone("p1"), room(&["p2"])]);
    assert_eq!((last(&world, "p1"), last(&world, "d1")), ("ended", "ended"));
    world.settle().unwrap();

    // The door, while it rings and while it talks.
    for answered in [false, true] {
        let mut world = house(8, Settings::default());
        world.ring(answered);
        apply(&mut world, vec![gone("d1")]);
        let (phone, door) = if answered { ("ended", "ended") } else { ("cancelled", "refused 480") };
        assert_eq!((last(&world, "p1"), last(&world, "d1")), (phone, door));
        world.settle().unwrap();
    }

    // A phone that is rung and registered nowhere any more: what rings there falls silent all the same.
    let mut world = house(9, Settings::default());
    world.ring(false);
    world.act("p1", |phone, now| phone.unregister(now));
    soon(&mut world);
    apply(&mut world, vec![gone("p1"), room(&["p2"])]);
    assert_eq!(last(&world, "p1"), "cancelled");
}

/// `name` becomes another application's.
fn of(app: &str, name: &str, kind: AccountType) -> DirectoryChange {
    let (number, password) = (Number::new(name), Secret::new(&world::device::password(name)));
    DirectoryChange::PutAccount(Account { number, password, kind, name: None, created_ms: 0, app: app.into() })
}

#[test]
fn nobody_reaches_what_is_another_applications() {
    let mut world = house(10, Settings { unlock_out_of_dialog: true, ..Settings::default() });
    let foreign = |world: &World| world.board.counters().get("foreign_target").copied().unwrap_or_default();
    apply(&mut world, vec![of("b", "p4", AccountType::App), group("theirs", &["p4"], "b")]);

    for (dialled, count) in [("theirs", 1), ("p4", 2)] {
        world.act("d1", |door, now| door.call(now, dialled));
        soon(&mut world);
        assert_eq!((last(&world, "d1"), foreign(&world)), ("refused 404", count), "a door, {dialled}");
    }
    // A room that leads there, as if the store had let it through.
    let there = DirectoryChange::PutRoom { iot_id: "iot".into(), room: "9".into(), group: Number::new("theirs") };
    apply(&mut world, vec![there]);
    world.act("d1", |door, now| door.call(now, "9"));
    soon(&mut world);
    assert_eq!((last(&world, "d1"), foreign(&world)), ("refused 404", 3));

    // A phone: call, letter, and orders to the other's door by both roads.
    world.act("p4", |phone, now| phone.call(now, "p1"));
    soon(&mut world);
    assert_eq!((last(&world, "p4"), foreign(&world)), ("refused 404", 4));
    world.act("p4", |phone, now| phone.tell(now, "p1", "hello"));
    soon(&mut world);
    assert_eq!((last(&world, "p4"), foreign(&world)), ("told 404", 5));
    world.act("p4", |phone, now| phone.unlock_by_message(now, "d1", 1));
    world.run(Duration::from_secs(4));
    let by_message = foreign(&world);
    world.act("p4", |phone, now| phone.unlock_by_lone_info(now, "d1", 2));
    world.run(Duration::from_secs(4));
    assert!(by_message > 5 && foreign(&world) > by_message, "{by_message} {}", foreign(&world));
    assert_eq!(world.devices["d1"].openings, 0);
    assert!(world.calls.is_empty() && world.records.is_empty() && world.devices["p1"].story == ["registered"]);

    // Among themselves nothing changes.
    apply(&mut world, vec![of("b", "p3", AccountType::App)]);
    world.act("p4", |phone, now| phone.call(now, "p3"));
    soon(&mut world);
    assert_eq!(last(&world, "p3"), "rings");
}
