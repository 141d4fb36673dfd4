//! What others are told of a call: that it rings, that somebody took it, that it is over (spec events.md §2, D-31). Each once.

use super::Call;
use crate::events::event::{Event, Kind, Target};
use crate::model::Number;
use crate::turn::{Publication, Turn};

impl Call {
    /// The call event: the INVITE is accepted, and nobody has been told yet.
    pub(super) fn tell_of_ring(&self, turn: &mut Turn<'_>) {
        self.tell(turn, Kind::Call, &self.ring.caller, self.called(), None);
    }

    pub(super) fn tell_of_answer(&self, turn: &mut Turn<'_>, account: &Number) {
        self.tell(turn, Kind::Answered, account, Target::Number(self.ring.caller.to_string()), None);
    }

    pub(super) fn tell_of_end(&self, turn: &mut Turn<'_>, reason: &str) {
        let kind = if self.answered.is_some() { Kind::Ended } else { Kind::Unanswered };
        self.tell(turn, kind, &self.ring.caller, self.called(), Some(reason));
    }

    fn called(&self) -> Target {
        match (&self.ring.group, self.ring.accounts.first()) {
            (Some(group), _) => Target::Group(group.to_string()),
            (None, Some(account)) => Target::Number(account.to_string()),
            (None, None) => Target::Number(self.ring.dialled.clone()),
        }
    }

    fn tell(&self, turn: &mut Turn<'_>, kind: Kind, source: &Number, target: Target, reason: Option<&str>) {
        turn.publish(Publication::Event(Box::new(Event {
            kind,
            at_ms: turn.unix_ms,
            source: source.to_string(),
            target,
            call: Some(self.ring.id.to_string()),
            reason: reason.map(str::to_owned),
            app: self.ring.app.clone(),
        })));
    }
}
