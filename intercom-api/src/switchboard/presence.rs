//! Who comes and who leaves, as others are told it (spec events.md §2, codes from 105 on); and door units that stay away: a door
//! that is not registered for a while, also after a start, is an alarm, once until it is back. Phones sleep; a door should not.

use super::*;
use crate::events::event::{self, Kind, Target};
use crate::model::{Account, AccountType};
use std::time::Duration;

/// When each door that is away is an alarm.
#[derive(Default)]
pub(super) struct Absence {
    after: Option<Duration>,
    away: Timers<Number>,
}

impl Absence {
    /// Whoever is a door and is not there yet has as long as one that leaves now.
    pub fn new(after: Option<Duration>, now: Instant, directory: &Directory) -> Absence {
        let mut absence = Absence { after, away: Timers::default() };
        directory.doors().iter().for_each(|door| absence.leaves(now, door));
        absence
    }

    pub fn leaves(&mut self, now: Instant, door: &Number) {
        self.away.set(door.clone(), self.after.map(|after| now + after));
    }

    pub fn comes(&mut self, door: &Number) {
        self.away.set(door.clone(), None);
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.away.next()
    }
}

impl Switchboard {
    /// Before changes are applied: doors that nobody knew are away from now on, those that are taken out are nobody's concern.
    pub(super) fn expect_doors(&mut self, now: Instant, changes: &[DirectoryChange]) {
        for change in changes {
            match change {
                DirectoryChange::PutAccount(Account { number, kind: AccountType::Door, .. })
                    if self.directory.account(number.as_str()).is_none() =>
                {
                    self.absence.leaves(now, number);
                }
                DirectoryChange::RemoveAccount(number) => self.absence.comes(number),
                _ => {}
            }
        }
    }

    /// A new binding; `replaced`: of one that was reachable elsewhere.
    pub(super) fn tell_of_arrival(&mut self, now: Instant, number: &str, replaced: bool, out: &mut Vec<Effect>) {
        let Some(account) = self.directory.account(number).cloned() else { return };
        self.tell(now, Kind::Registered, &account, None, out);
        if account.kind == AccountType::Door {
            self.absence.comes(&account.number);
            if !replaced {
                self.tell(now, Kind::Online, &account, None, out);
            }
        }
    }

    /// A binding is gone. An account that was removed says nothing more.
    pub(super) fn tell_of_leaving(&mut self, now: Instant, number: &str, why: Unbound, out: &mut Vec<Effect>) {
        let Some(account) = self.directory.account(number).cloned() else { return };
        let reason = match why {
            Unbound::Unregistered => "unregistered",
            Unbound::Expired => "expired",
            Unbound::PasswordChanged => "password changed",
            Unbound::AccountRemoved => "account removed",
            Unbound::FlowDead => "connection lost",
        };
        self.tell(now, Kind::Unregistered, &account, Some(reason.to_owned()), out);
        if account.kind == AccountType::Door {
            self.absence.leaves(now, &account.number);
            self.tell(now, Kind::Offline, &account, Some(reason.to_owned()), out);
        }
    }

    /// Doors that have been away for too long.
    pub(super) fn look_for_absent_doors(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some(number) = self.absence.away.pop(now) {
            let Some(account) = self.directory.account(number.as_str()).cloned() else { continue };
            let minutes = self.absence.after.map_or(0, |after| after.as_secs() / 60);
            self.tell(now, Kind::Alarm, &account, Some(format!("not registered for {minutes} minutes")), out);
        }
    }

    fn tell(&mut self, now: Instant, kind: Kind, account: &Account, reason: Option<String>, out: &mut Vec<Effect>) {
        out.push(Effect::Publish(Publication::Event(Box::new(event::Event {
            kind,
            at_ms: self.unix_ms(now),
            source: account.number.to_string(),
            target: Target::Number(account.number.to_string()),
            call: None,
            reason,
            app: account.app.clone(),
        }))));
    }
}
