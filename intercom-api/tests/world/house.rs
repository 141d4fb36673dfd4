//! The house of the unlock tests.

use super::World;
use super::device::{Device, Habit};
use fixtures::net::Weather;
use intercom_api::control::Order;
use intercom_api::model::{AccountType, DirectoryChange, Group, Number};
use intercom_api::turn::Settings;
use std::time::Duration;

/// A door and a room of two; a third account is in the door's map, a fourth is nobody to it.
pub fn house(seed: u64, settings: Settings) -> World {
    let app = AccountType::App;
    let accounts = [("d1", AccountType::Door), ("p1", app), ("p2", app), ("p3", app), ("p4", app)];
    let mut world = World::with(Weather::FAIR, seed, &accounts, settings);
    let group = |id: &str, members: &[&str]| {
        let members = members.iter().map(|name| Number::new(name)).collect();
        DirectoryChange::PutGroup(Group { id: Number::new(id), members, name: None, created_ms: 0, app: Default::default() })
    };
    world.order(Order::Apply(vec![
        group("room", &["p1", "p2"]),
        group("house", &["p3"]),
        DirectoryChange::PutDoor { iot_id: "iot".into(), number: Number::new("d1") },
        DirectoryChange::PutRoom { iot_id: "iot".into(), room: "1-1-1-101".into(), group: Number::new("house") },
    ]));
    for (index, (name, kind)) in accounts.into_iter().enumerate() {
        let habit = if kind == AccountType::Door { Habit::Door } else { Habit::Early };
        world.add(Device::new(name, 11 + index as u8, habit, seed.wrapping_mul(31) + index as u64));
        world.act(name, |device, now| device.register(now));
    }
    world.run(Duration::from_millis(100));
    world
}

impl World {
    /// The door rings its room; `answered`: and `p1` takes it.
    pub fn ring(&mut self, answered: bool) {
        self.act("d1", |door, now| door.call(now, "room"));
        self.run(Duration::from_millis(100));
        if answered {
            self.act("p1", |phone, now| phone.answer(now, 200));
            self.run(Duration::from_millis(100));
        }
    }
}
