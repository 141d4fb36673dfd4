//! One API write (D-30): into the directory, and what it means for who is registered, rings or talks now.

use super::*;

impl Switchboard {
    pub(super) fn apply(&mut self, now: Instant, changes: Vec<DirectoryChange>, out: &mut Vec<Effect>) {
        self.expect_doors(now, &changes);
        for applied in self.directory.apply(changes) {
            match applied {
                // Bindings made with the old one are void at once (spec sip.md §1.2); a talk goes on.
                Applied::PasswordChanged(account) => self.unbind(now, &account, Unbound::PasswordChanged, out),
                Applied::AccountRemoved(account) => {
                    self.remove_gate(now, &account, out);
                    if let Some(&session) = self.callers.get(&account) {
                        self.with_call(now, session, out, |call, turn| call.end(turn, "account removed", Some(480)));
                    }
                    self.expel(now, &account, None, "account removed", out);
                    self.unbind(now, &account, Unbound::AccountRemoved, out);
                }
                Applied::MembersRemoved { group, members } => {
                    for member in members {
                        self.expel(now, &member, Some(&group), "left the group", out);
                    }
                }
                Applied::GroupRemoved(group) => {
                    for session in self.sessions_of(|call| call.is_for(&group)) {
                        self.with_call(now, session, out, |call, turn| call.end(turn, "group removed", Some(480)));
                    }
                }
            }
        }
        self.pump(now, out);
    }

    fn unbind(&mut self, now: Instant, account: &Number, why: Unbound, out: &mut Vec<Effect>) {
        self.change_location(now, Change::Unbind { account: account.shared(), why }, out);
    }

    /// Takes an account out of the calls it is called by: those of one group, or all.
    fn expel(&mut self, now: Instant, account: &Number, group: Option<&Number>, why: &'static str, out: &mut Vec<Effect>) {
        for session in self.sessions_of(|call| call.calls(account) && group.is_none_or(|group| call.is_for(group))) {
            self.with_call(now, session, out, |call, turn| call.expel(turn, account, why));
        }
    }

    fn sessions_of(&self, which: impl Fn(&Call) -> bool) -> Vec<SessionId> {
        self.calls.values().filter(|call| !call.is_ended() && which(call)).map(Call::session).collect()
    }
}
