//! Session timers (RFC 4028): a dialog whose peer is silently gone ends. Agreed in every INVITE and UPDATE of a leg;
//! whoever refreshes does it at half the interval, both give up a little before its end.

use super::*;
use crate::message::Name;
use std::time::Duration;

/// Smallest interval we accept (§4 asks for 90 s at least).
pub const MIN_SE: u32 = 90;
/// Longest: a day. A larger number means no more and must not overflow a clock.
const MAX_SE: u32 = 86_400;

/// What was agreed for a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    seconds: u32,
    /// We refresh, then; `None` while the peer does, or our refresh is under way.
    refresh_at: Option<Instant>,
    ours: bool,
    expires_at: Instant,
}

impl Session {
    fn new(now: Instant, seconds: u32, ours: bool) -> Session {
        let seconds = seconds.clamp(MIN_SE, MAX_SE);
        let interval = Duration::from_secs(u64::from(seconds));
        // §10: whoever gives up does so min(32 s, a third) before the end.
        let early = Duration::from_secs(32).min(interval / 3);
        Session { seconds, ours, refresh_at: ours.then(|| now + interval / 2), expires_at: now + interval - early }
    }

    fn deadline(&self) -> Instant {
        self.refresh_at.map_or(self.expires_at, |at| at.min(self.expires_at))
    }
}

/// Seconds and refresher (`uac`, `uas`) of a message; `x` is the compact form (§4).
fn session_expires(message: &Message) -> Option<(u32, Option<&str>)> {
    let value = message.other_header("Session-Expires").or_else(|| message.other_header("x"))?;
    reliable::number_with_param(value, "refresher")
}

/// An interval that is refused with 422 (§8); only a peer that knows timers understands that.
pub fn is_too_brief(request: &Message) -> bool {
    request.has_option(Name::Supported, "timer") && session_expires(request).is_some_and(|(seconds, _)| seconds < MIN_SE)
}

impl Endpoint {
    /// The peer asked, or we want to and it can: our 2xx says what holds (§9, table 2). Without either no timer runs.
    pub(super) fn agree_session(&mut self, now: Instant, id: LegId, tx: TxId) -> Headers {
        let Some((_, server, _)) = self.servers.get(&tx) else { return Headers::new() };
        let request = &server.request;
        let knows = request.has_option(Name::Supported, "timer") || request.has_option(Name::Require, "timer");
        let session = match session_expires(request) {
            // Only a peer that knows timers can refresh; it does, unless it wants us to.
            Some((seconds, refresher)) => Some(Session::new(now, seconds, !knows || refresher == Some("uas"))),
            None => self.identity.session_expires.filter(|_| knows).map(|seconds| Session::new(now, seconds, false)),
        };
        self.set_session(id, session);
        let Some(session) = session else { return Headers::new() };
        let refresher = if session.ours { "uas" } else { "uac" };
        let mut headers = vec![("Session-Expires", format!("{};refresher={refresher}", session.seconds))];
        if !session.ours {
            headers.push(("Require", "timer".to_owned()));
        }
        headers
    }

    /// What an INVITE or UPDATE of ours says of timers.
    pub(super) fn session_headers(&self, session: Option<Session>) -> Headers {
        match (session, self.identity.session_expires) {
            (Some(session), _) => {
                let refresher = if session.ours { "uac" } else { "uas" };
                vec![("Session-Expires", format!("{};refresher={refresher}", session.seconds))]
            }
            (None, Some(seconds)) => vec![("Session-Expires", seconds.to_string())],
            (None, None) => Headers::new(),
        }
    }

    /// A 2xx to our INVITE or UPDATE says what holds (§7.2).
    pub(super) fn learn_session(&mut self, now: Instant, id: LegId, response: &Message) {
        let session = session_expires(response);
        let session = session.map(|(seconds, refresher)| Session::new(now, seconds, refresher != Some("uas")));
        self.set_session(id, session);
    }

    fn set_session(&mut self, id: LegId, session: Option<Session>) {
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.session = session;
            self.timers.set(Timer::Session(id), session.map(|session| session.deadline()));
        }
    }

    /// Refreshes, or gives up.
    pub(super) fn session_timeout(&mut self, now: Instant, id: LegId, out: &mut Out) {
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| !leg.forgotten) else { return };
        let Some(session) = leg.session else { return };
        if session.expires_at <= now {
            return self.expire(now, id, out);
        }
        leg.session = Some(Session { refresh_at: None, ..session });
        self.timers.set(Timer::Session(id), Some(session.expires_at));
        if leg.reinvite.is_some() {
            // An INVITE of ours is a refresh as well.
            return;
        }
        if leg.updates {
            let headers = self.session_headers(Some(session));
            self.send_in_dialog(now, id, &Method::Update, &headers, None, Purpose::Refresh { leg: id }, out);
        } else if let Some(description) = leg.description.clone() {
            // The same description, so the same version in its `o=` (§7.4).
            self.reinvite(now, id, Headers::new(), &description, out);
        }
    }

    /// The outcome of a refresh of ours, by UPDATE or INVITE.
    pub(super) fn refreshed(&mut self, now: Instant, id: LegId, response: Option<&Message>, out: &mut Out) {
        let session = self.legs.get(&id).and_then(|leg| leg.session);
        match response.and_then(Message::code) {
            Some(200..300) => {
                if let (Some(response), Some(leg)) = (response, self.legs.get_mut(&id)) {
                    leg.dialog.refresh_target(response);
                    self.learn_session(now, id, response);
                }
            }
            // §10, RFC 3261 §14.1: the dialog is no more.
            None | Some(408 | 481) if session.is_some() => self.expire(now, id, out),
            // Glare: again after a while, the caller later than the called (RFC 3261 §14.1).
            Some(491) => {
                let random = u64::from(self.tokens.random_u32());
                let Some(leg) = self.legs.get_mut(&id) else { return };
                let wait = if leg.ours { 2100 + random % 1900 } else { random % 2000 };
                if let Some(session) = leg.session.as_mut().filter(|session| session.ours) {
                    session.refresh_at = Some(now + Duration::from_millis(wait));
                    let deadline = session.deadline();
                    self.timers.set(Timer::Session(id), Some(deadline));
                }
            }
            // Anything else changes nothing; without a refresh the session ends in time.
            _ => {}
        }
    }

    fn expire(&mut self, now: Instant, id: LegId, out: &mut Out) {
        self.count("session_expired");
        let reason = "SIP;cause=408;text=\"Session expired\"".to_owned();
        self.end(now, id, vec![("Reason", reason)], out);
        out.events.push(Event::Expired { leg: id });
    }
}
