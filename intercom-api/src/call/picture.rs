//! Pictures of the visitor: asked of media, and handed on with what they are for. Nothing of a call waits for them.
//!
//! Wishes that come while media is asked share its answer, so a call has one question on its way however many people ask.

use super::{Call, State};
use crate::pictures::job::{Job, Shown, Why};
use crate::turn::{Publication, Turn};
use media::command::{Command, Picture};
use media::snapshot::Preset;
use std::time::{Duration, Instant};

/// Pictures one call may fill the disk with.
const MAX_PICTURES: u32 = 200;
/// Wishes to open the door within it share a picture.
const SAME_MOMENT: Duration = Duration::from_secs(1);
/// Media answers at once; after so long its answer is lost.
const LOST: Duration = Duration::from_secs(2);

/// The pictures of one call.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    count: u32,
    /// When media was asked for what waits.
    asked: Option<Instant>,
    waiting: Vec<Job>,
    /// The last one for an unlock.
    unlock: Option<(Instant, String)>,
}

/// Why a call has no picture to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCamera {
    Ended,
    /// No video was agreed with the door.
    NoVideo,
    TooMany,
}

impl NoCamera {
    pub fn text(self) -> &'static str {
        match self {
            NoCamera::Ended => "the call has ended",
            NoCamera::NoVideo => "the door sends no video in this call",
            NoCamera::TooMany => "this call has taken as many pictures as one may",
        }
    }
}

impl Call {
    /// The operator wants to see the visitor now. `ticket`: who waits for it.
    pub fn show(&mut self, turn: &mut Turn<'_>, preset: Preset, ticket: u64) -> Result<(), NoCamera> {
        self.picture(turn, Why::Asked, preset, Some(ticket)).map(|_| ())
    }

    /// The picture that goes with a wish to open the door: its id.
    pub fn picture_of_unlock(&mut self, turn: &mut Turn<'_>) -> Option<String> {
        if let Some((at, id)) = &self.pictures.unlock
            && turn.now < *at + SAME_MOMENT
        {
            return Some(id.clone());
        }
        let id = self.picture(turn, Why::Unlock, Preset::Large, None).ok()?;
        self.pictures.unlock = Some((turn.now, id.clone()));
        Some(id)
    }

    pub(super) fn picture_of_ring(&mut self, turn: &mut Turn<'_>) {
        let _ = self.picture(turn, Why::Ring, Preset::Large, None);
    }

    fn picture(&mut self, turn: &mut Turn<'_>, why: Why, preset: Preset, ticket: Option<u64>) -> Result<String, NoCamera> {
        if self.state == State::Ended {
            return Err(NoCamera::Ended);
        }
        if self.door.video.is_none() {
            return Err(NoCamera::NoVideo);
        }
        let pictures = &mut self.pictures;
        if let Some(job) = pictures.waiting.iter_mut().find(|job| (job.why, job.preset) == (why, preset)) {
            job.tickets.extend(ticket);
            return Ok(job.id.clone());
        }
        if pictures.count >= MAX_PICTURES {
            turn.count("call_too_many_pictures");
            return Err(NoCamera::TooMany);
        }
        pictures.count += 1;
        let id = format!("{}-{}", self.ring.id, pictures.count);
        pictures.waiting.push(Job {
            id: id.clone(),
            call: self.ring.id.clone(),
            door: self.ring.caller.clone(),
            why,
            preset,
            tickets: Vec::from_iter(ticket),
            shown: None,
        });
        if pictures.asked.is_none_or(|at| turn.now >= at + LOST) {
            pictures.asked = Some(turn.now);
            turn.media(self.worker, Command::TakePicture { session: self.ring.session });
        }
        Ok(id)
    }

    /// What media has, for everybody who waits.
    pub(super) fn pictured(&mut self, turn: &mut Turn<'_>, picture: Option<Picture>) {
        self.pictures.asked = None;
        let shown = picture.map(|Picture { at, annex_b }| {
            let age = i64::try_from(turn.now.saturating_duration_since(at).as_millis()).unwrap_or(0);
            Shown { taken_ms: turn.unix_ms - age, annex_b }
        });
        for job in self.pictures.waiting.drain(..) {
            turn.publish(Publication::Picture(Box::new(Job { shown: shown.clone(), ..job })));
        }
    }
}
