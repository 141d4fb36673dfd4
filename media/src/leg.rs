//! One leg of a session: its audio and its video.

use crate::command::{Kind, LegId, LegPlan, LegReport, PairId, StreamPlan};
use crate::stream::Stream;
use std::time::Instant;

/// See the module text.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub id: LegId,
    pub audio: Option<Stream>,
    pub video: Option<Stream>,
}

impl Leg {
    pub fn new(now: Instant, plan: LegPlan) -> Leg {
        let stream = |plan: Option<StreamPlan>| plan.map(|plan| Stream::new(now, plan));
        Leg { id: plan.leg, audio: stream(plan.audio), video: stream(plan.video) }
    }

    pub fn replan(&mut self, now: Instant, plan: LegPlan) {
        for (stream, plan) in [(&mut self.audio, plan.audio), (&mut self.video, plan.video)] {
            match (stream.as_mut(), plan) {
                (Some(stream), Some(plan)) if stream.plan.pair == plan.pair => {
                    stream.latch.renegotiate(now, plan.remote);
                    // Sending begins (again) at a key frame.
                    stream.sink.started &= stream.plan.send && plan.send;
                    stream.plan = plan;
                }
                (_, plan) => *stream = plan.map(|plan| Stream::new(now, plan)),
            }
        }
    }

    pub fn stream(&mut self, kind: Kind) -> Option<&mut Stream> {
        match kind {
            Kind::Audio => self.audio.as_mut(),
            Kind::Video => self.video.as_mut(),
        }
    }

    /// The pairs this leg uses.
    pub fn pairs(&self) -> impl Iterator<Item = (PairId, Kind)> {
        let audio = self.audio.iter().map(|stream| (stream.plan.pair, Kind::Audio));
        audio.chain(self.video.iter().map(|stream| (stream.plan.pair, Kind::Video)))
    }

    pub fn report(&self) -> LegReport {
        let report = |stream: &Option<Stream>| stream.as_ref().map(Stream::report).unwrap_or_default();
        LegReport { leg: self.id, audio: report(&self.audio), video: report(&self.video) }
    }

    pub fn waits_for_key_frame(&self) -> bool {
        self.video.as_ref().is_some_and(|video| video.plan.send && !video.sink.started)
    }
}
