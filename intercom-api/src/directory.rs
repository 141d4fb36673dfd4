//! [`Directory`]: accounts, groups, rooms and doors in memory, owned by the Switchboard and changed only by
//! [`Directory::apply`], one batch per API call (D-30). No rebuild: a change costs what it changes.

use crate::model::{Access, Account, AccountType, DirectoryChange, Group, Number};
use crate::room;
use std::collections::{BTreeMap, HashMap};

/// What a change means for who is registered, rings or talks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Bindings made with the former password are void (spec sip.md §1.2).
    PasswordChanged(Number),
    AccountRemoved(Number),
    /// They are not called any more with this group.
    MembersRemoved {
        group: Number,
        members: Vec<Number>,
    },
    GroupRemoved(Number),
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Directory {
    accounts: HashMap<Number, Account>,
    /// Of accounts and doors for which anything is set.
    access: HashMap<Number, Access>,
    groups: HashMap<Number, Group>,
    /// `iotId` → the account the unit was issued.
    doors: BTreeMap<String, Number>,
    /// Account → the units it was issued to.
    units: HashMap<Number, Vec<String>>,
    /// `iotId` → room in canonical form (OPEN-24) → group.
    rooms: BTreeMap<String, BTreeMap<String, Number>>,
}

impl Directory {
    pub fn apply(&mut self, changes: Vec<DirectoryChange>) -> Vec<Applied> {
        changes.into_iter().filter_map(|change| self.apply_one(change)).collect()
    }

    fn apply_one(&mut self, change: DirectoryChange) -> Option<Applied> {
        match change {
            DirectoryChange::PutAccount(account) => {
                let number = account.number.clone();
                let password = account.password.clone();
                let before = self.accounts.insert(number.clone(), account)?;
                return (before.password != password).then_some(Applied::PasswordChanged(number));
            }
            DirectoryChange::PutAccess(number, access) if access == Access::default() => {
                self.access.remove(&number);
            }
            DirectoryChange::PutAccess(number, access) => {
                self.access.insert(number, access);
            }
            DirectoryChange::RemoveAccount(number) => {
                self.access.remove(&number);
                return self.accounts.remove(&number).map(|_| Applied::AccountRemoved(number));
            }
            DirectoryChange::PutGroup(group) => {
                let (id, staying) = (group.id.clone(), group.members.clone());
                let before = self.groups.insert(id.clone(), group)?;
                let gone = before.members.into_iter().filter(|member| !staying.contains(member));
                let members: Vec<Number> = gone.collect();
                return (!members.is_empty()).then_some(Applied::MembersRemoved { group: id, members });
            }
            DirectoryChange::RemoveGroup(id) => return self.groups.remove(&id).map(|_| Applied::GroupRemoved(id)),
            DirectoryChange::PutDoor { iot_id, number } => {
                self.forget_unit(&iot_id);
                self.units.entry(number.clone()).or_default().push(iot_id.clone());
                self.doors.insert(iot_id, number);
            }
            DirectoryChange::RemoveDoor { iot_id } => {
                self.forget_unit(&iot_id);
                self.rooms.remove(&iot_id);
            }
            DirectoryChange::PutRoom { iot_id, room, group } => {
                self.rooms.entry(iot_id).or_default().insert(room, group);
            }
            DirectoryChange::RemoveRoom { iot_id, room } => {
                if let Some(map) = self.rooms.get_mut(&iot_id) {
                    map.remove(&room);
                }
            }
        }
        None
    }

    fn forget_unit(&mut self, iot_id: &str) {
        if let Some(number) = self.doors.remove(iot_id)
            && let Some(units) = self.units.get_mut(&number)
        {
            units.retain(|unit| unit != iot_id);
        }
    }

    pub fn account(&self, number: &str) -> Option<&Account> {
        self.accounts.get(number)
    }

    /// All door units, by number.
    #[allow(clippy::disallowed_methods)] // sorted
    pub fn doors(&self) -> Vec<Number> {
        let doors = self.accounts.values().filter(|account| account.kind == AccountType::Door);
        let mut doors: Vec<Number> = doors.map(|account| account.number.clone()).collect();
        doors.sort_unstable();
        doors
    }

    pub fn access(&self, number: &str) -> Option<&Access> {
        self.access.get(number)
    }

    /// Is this account in a group of the door's map (D-23)?
    pub fn is_in_map(&self, door: &Number, account: &Number) -> bool {
        let maps = self.units.get(door).into_iter().flatten().filter_map(|unit| self.rooms.get(unit));
        let mut groups = maps.flat_map(BTreeMap::values).filter_map(|group| self.groups.get(group));
        groups.any(|group| group.members.contains(account))
    }

    pub fn group(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    /// The group a room means at this door. A bare room also finds the one entry of a four-part map that ends in it, because
    /// nothing here knows where the door stands; two such entries are ambiguous and mean nothing.
    pub fn room(&self, door: &Number, dialled: &str) -> Option<&Number> {
        let room = room::canonical(dialled)?;
        let maps = || self.units.get(door).into_iter().flatten().filter_map(|unit| self.rooms.get(unit));
        if let Some(group) = maps().find_map(|map| map.get(&room)) {
            return Some(group);
        }
        if room.contains('-') {
            return None;
        }
        let mut ends = maps().flatten().filter(|(id, _)| room::last_part(id) == room).map(|(_, group)| group);
        let first = ends.next()?;
        ends.all(|other| other == first).then_some(first)
    }

    /// How many accounts, groups and rooms there are.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.accounts.len(), self.groups.len(), self.rooms.values().map(BTreeMap::len).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn account(number: &str, password: &str) -> DirectoryChange {
        DirectoryChange::PutAccount(Account {
            number: Number::new(number),
            password: Secret::new(password),
            kind: AccountType::App,
            name: None,
            created_ms: 0,
            app: Default::default(),
        })
    }

    #[test]
    fn a_new_password_is_told_and_the_same_one_is_not() {
        let mut directory = Directory::default();
        assert!(directory.apply(vec![account("a", "1"), account("b", "1")]).is_empty());
        assert!(directory.apply(vec![account("a", "1")]).is_empty());
        assert_eq!(directory.apply(vec![account("a", "2")]), [Applied::PasswordChanged(Number::new("a"))]);
        let gone = DirectoryChange::RemoveAccount(Number::new("a"));
        assert_eq!(directory.apply(vec![gone.clone()]), [Applied::AccountRemoved(Number::new("a"))]);
        assert!(directory.apply(vec![gone]).is_empty());
    }

    #[test]
    fn who_leaves_a_group_is_told_and_who_comes_is_not() {
        let mut directory = Directory::default();
        let number = Number::new;
        let group = |members: &[&str]| {
            let members = members.iter().map(|member| Number::new(member)).collect();
            let (id, app) = (number("g"), Default::default());
            DirectoryChange::PutGroup(Group { id, members, name: None, created_ms: 0, app })
        };
        assert!(directory.apply(vec![group(&["a", "b"]), group(&["b", "a", "c"])]).is_empty());
        let gone = Applied::MembersRemoved { group: number("g"), members: vec![number("a"), number("c")] };
        assert_eq!(directory.apply(vec![group(&["b"])]), [gone]);
        let remove = DirectoryChange::RemoveGroup(number("g"));
        assert_eq!(directory.apply(vec![remove.clone(), remove]), [Applied::GroupRemoved(number("g"))]);
    }

    #[test]
    fn rooms_are_found_by_the_map_of_the_door_that_asks() {
        let mut directory = Directory::default();
        let (door, other) = (Number::new("d1"), Number::new("d2"));
        let room = |iot: &str, room: &str, group: &str| DirectoryChange::PutRoom {
            iot_id: iot.into(),
            room: room.into(),
            group: Number::new(group),
        };
        let unit = |iot: &str, number: &Number| DirectoryChange::PutDoor { iot_id: iot.into(), number: number.clone() };
        directory.apply(vec![
            unit("iot-1", &door),
            room("iot-1", "1-9-3-1202", "g1"),
            room("iot-1", "1-9-3-1203", "g2"),
            room("iot-1", "1-9-4-1203", "g3"),
        ]);
        let found = |directory: &Directory, door: &Number, dialled: &str| directory.room(door, dialled).map(ToString::to_string);
        assert_eq!(found(&directory, &door, "1-9-3-1202").as_deref(), Some("g1"));
        assert_eq!(found(&directory, &door, "9-3-1202").as_deref(), Some("g1"), "phase 1 is the default");
        assert_eq!(found(&directory, &door, "1202").as_deref(), Some("g1"));
        assert_eq!(found(&directory, &door, "1203"), None, "two rooms end so");
        assert_eq!(found(&directory, &other, "1202"), None);
        directory.apply(vec![unit("iot-1", &other)]);
        assert_eq!(found(&directory, &door, "1202"), None, "the unit was issued another account");
        assert_eq!(found(&directory, &other, "1202").as_deref(), Some("g1"));
    }
}
