//! Who may open (D-23). One table for all roads; the body of a request has no say in it.

use super::hours::LocalMinute;
use crate::model::Access;

/// What the one who asks is to the door at this moment. Found by whose dialog, whose digest or whose token it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The door's call rings at this account.
    Rung,
    /// It has the door's call.
    Talks,
    /// Neither: it may if its group is in the door's map.
    Account { in_map: bool },
    /// The owner's key of the HTTP API.
    Owner,
}

/// Why not. Each has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `unlock.while_ringing` is off.
    WhileRinging,
    /// Neither a party of the door's call nor in its map.
    NoRight,
    AccountDisabled,
    DoorDisabled,
    /// Outside the hours of the account.
    AccountHours,
    /// Outside the hours of the door.
    DoorHours,
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Refusal::WhileRinging => "unlock_while_ringing",
            Refusal::NoRight => "unlock_without_right",
            Refusal::AccountDisabled => "unlock_account_disabled",
            Refusal::DoorDisabled => "unlock_door_disabled",
            Refusal::AccountHours => "unlock_outside_account_hours",
            Refusal::DoorHours => "unlock_outside_door_hours",
        }
    }
}

/// `account`: nothing is known to be held against the owner's key.
pub fn check(
    claim: Claim,
    while_ringing: bool,
    account: Option<&Access>,
    door: Option<&Access>,
    at: LocalMinute,
) -> Result<(), Refusal> {
    match claim {
        Claim::Rung if !while_ringing => return Err(Refusal::WhileRinging),
        Claim::Account { in_map: false } => return Err(Refusal::NoRight),
        Claim::Rung | Claim::Talks | Claim::Account { in_map: true } | Claim::Owner => {}
    }
    if door.is_some_and(|door| door.disabled) {
        return Err(Refusal::DoorDisabled);
    }
    if door.is_some_and(|door| !door.hours.hold(at)) {
        return Err(Refusal::DoorHours);
    }
    if account.is_some_and(|account| account.disabled) {
        return Err(Refusal::AccountDisabled);
    }
    if account.is_some_and(|account| !account.hours.hold(at)) {
        return Err(Refusal::AccountHours);
    }
    Ok(())
}
