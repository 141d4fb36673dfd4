//! One leg of a session: its audio and its video.

use crate::command::{Kind, LegId, LegPlan, LegReport, StreamPlan};
use crate::sink::Picture;
use crate::stream::{SourceTime, Stream};
use std::time::Instant;

/// See the module text.
#[derive(Debug)]
pub(crate) struct Leg {
    pub id: LegId,
    pub audio: Option<Stream>,
    pub video: Option<Stream>,
    /// What turns the NTP time of its sender reports into ours; one for both streams, so they stay in step.
    pub shift: Option<u64>,
}

impl Leg {
    pub fn new(now: Instant, plan: LegPlan) -> Leg {
        let stream = |plan: Option<StreamPlan>| plan.map(|plan| Stream::new(now, plan));
        Leg { id: plan.leg, audio: stream(plan.audio), video: stream(plan.video), shift: None }
    }

    /// Another plan. Returns the streams whose pair is not in it.
    pub fn replan(&mut self, now: Instant, plan: LegPlan) -> Vec<Stream> {
        let mut left = Vec::new();
        for (stream, plan) in [(&mut self.audio, plan.audio), (&mut self.video, plan.video)] {
            match (stream.as_mut(), plan) {
                (Some(stream), Some(plan)) if stream.plan.pair == plan.pair => {
                    stream.latch.renegotiate(now, plan.remote, plan.sip_source);
                    stream.life = now;
                    // Sending begins (again) at a key frame, and so does whoever sits at another address now.
                    if !(stream.plan.send && plan.send) || stream.plan.remote != plan.remote {
                        stream.sink.restart();
                    }
                    stream.plan = plan;
                }
                (_, plan) => {
                    let new = plan.map(|plan| Stream::new(now, plan));
                    left.extend(std::mem::replace(stream, new));
                }
            }
        }
        left
    }

    pub fn into_streams(self) -> impl Iterator<Item = Stream> {
        self.audio.into_iter().chain(self.video)
    }

    pub fn stream(&mut self, kind: Kind) -> Option<&mut Stream> {
        match kind {
            Kind::Audio => self.audio.as_mut(),
            Kind::Video => self.video.as_mut(),
        }
    }

    /// It is expected to send from now on.
    pub fn begin_life(&mut self, now: Instant) {
        self.audio.iter_mut().chain(&mut self.video).for_each(|stream| stream.life = now);
    }

    /// Since when nothing was heard of a leg that should send. `None`: it need not, because it only listens, or because it
    /// holds (its audio takes nothing), and phones that hold send music or nothing.
    pub fn silent_since(&self) -> Option<Instant> {
        if self.audio.as_ref().is_some_and(|audio| !audio.plan.send) {
            return None;
        }
        self.audio.iter().chain(&self.video).filter(|stream| stream.plan.receive).map(|stream| stream.life).max()
    }

    pub fn report(&self) -> LegReport {
        let report = |stream: &Option<Stream>| stream.as_ref().map(Stream::report).unwrap_or_default();
        LegReport { leg: self.id, audio: report(&self.audio), video: report(&self.video) }
    }

    /// Is to see the picture, and does not see it live yet.
    pub fn waits_for_key_frame(&self) -> bool {
        let waits = |video: &Stream| video.plan.send && !matches!(video.sink.picture, Picture::Live { .. });
        self.video.as_ref().is_some_and(waits)
    }

    /// The time line of one of its streams, as its sender reports say.
    pub fn source_time(&self, kind: Kind) -> Option<SourceTime> {
        let stream = match kind {
            Kind::Audio => self.audio.as_ref(),
            Kind::Video => self.video.as_ref(),
        }?;
        let ((ntp, rtp, _), reception) = (stream.sender?, stream.reception?);
        Some(SourceTime { ssrc: reception.ssrc, ntp: ntp.wrapping_add(self.shift?), rtp })
    }
}
