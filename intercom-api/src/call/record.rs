//! What a call shows of itself: its ladder and its [`CallView`].

use super::member::{Member, MemberState};
use super::{Call, State};
use crate::live::{CallView, LegView, Step, StreamView};
use media::command::StreamReport;
use sip_core::sdp::Stream;
use std::time::Instant;

/// Steps kept of one call; a storm of requests inside a call must not grow it without end.
const MAX_STEPS: usize = 200;

/// The messages of a call, as a person would draw them.
#[derive(Debug)]
pub(super) struct Ladder {
    began: Instant,
    steps: Vec<Step>,
}

impl Ladder {
    pub fn new(began: Instant) -> Ladder {
        Ladder { began, steps: Vec::new() }
    }

    pub fn step(&mut self, now: Instant, from: &str, to: &str, what: &str) {
        if self.steps.len() < MAX_STEPS {
            let ms = millis(self.began, now);
            self.steps.push(Step { ms, from: from.to_owned(), to: to.to_owned(), what: what.to_owned() });
        }
    }
}

pub(super) fn view(call: &Call) -> CallView {
    let door = LegView {
        account: call.ring.caller.to_string(),
        role: "door",
        state: match call.state {
            State::Ringing => "early",
            State::Answered { .. } => "answered",
            State::Ended => "ended",
        },
        end_reason: call.end_reason.clone(),
        sip_call_id: call.sip_call_id.clone(),
        note: (call.state != State::Ended && !heard(&call.door_report)).then_some("nothing heard"),
        codecs: [&call.door.audio, &call.door.video].into_iter().flatten().flat_map(codec_names).collect(),
        first_video_ms: None,
        audio: stream(&call.door_report.0),
        video: stream(&call.door_report.1),
    };
    let members = call.members.values().map(|member| leg(call, member));
    CallView {
        id: call.ring.id.clone(),
        app: call.ring.app.clone(),
        kind: "call",
        state: match call.state {
            State::Ringing => "ringing",
            State::Answered { .. } => "answered",
            State::Ended => "ended",
        },
        end_reason: call.end_reason.clone(),
        from: call.ring.caller.to_string(),
        to: call.ring.dialled.clone(),
        group: call.ring.group.as_ref().map(ToString::to_string),
        answered_by: call.answered.as_ref().map(|(account, _)| account.to_string()),
        started_ms: call.started_ms,
        answered_ms: call.answered.as_ref().map(|(_, ms)| *ms),
        ended_ms: call.ended_ms,
        // The 183 leaves in the turn of the INVITE.
        door_first_frame_ms: call.first_key_frame.map(|at| millis(call.started, at)),
        legs: std::iter::once(door).chain(members).collect(),
        ladder: call.ladder.steps.clone(),
    }
}

fn leg(call: &Call, member: &Member) -> LegView {
    // D-20: from the later of (early or answered) and (first complete key frame of the door).
    let ready = member.early_at.or(member.answered_at);
    let first_video_ms = match (ready, call.first_key_frame, member.first_video) {
        (Some(ready), Some(key_frame), Some(first)) => Some(millis(ready.max(key_frame), first)),
        (Some(ready), None, Some(first)) => Some(millis(ready, first)),
        _ => None,
    };
    LegView {
        account: member.account.to_string(),
        role: "member",
        state: match member.state {
            MemberState::Inviting => "inviting",
            MemberState::Ringing => "ringing",
            MemberState::Early => "early",
            MemberState::Answered => "answered",
            MemberState::Ended(_) => "ended",
        },
        end_reason: if let MemberState::Ended(why) = &member.state { Some(why.clone()) } else { None },
        sip_call_id: member.sip_call_id.clone(),
        codecs: member.codecs(),
        note: (member.state == MemberState::Early && member.hidden() && !heard(&member.report)).then_some("no early path (NAT)"),
        first_video_ms,
        audio: stream(&member.report.0),
        video: stream(&member.report.1),
    }
}

fn heard((audio, video): &(StreamReport, StreamReport)) -> bool {
    audio.alive || video.alive
}

/// Each codec once, however many payload types it has.
pub(super) fn codec_names(stream: &Stream) -> Vec<String> {
    let mut names: Vec<String> = stream.payloads.iter().map(|p| p.codec.to_string()).collect();
    names.dedup();
    names
}

fn stream(report: &StreamReport) -> StreamView {
    StreamView {
        packets_in: report.packets_in,
        bytes_in: report.bytes_in,
        packets_out: report.packets_out,
        bytes_out: report.bytes_out,
        sends_to: report.sends_to.map(|to| to.to_string()),
        lost_in: report.lost_in,
        loss_out_percent: report.heard.map(|heard| f32::from(heard.fraction_lost) * 100.0 / 256.0),
        rtt_ms: report.heard.and_then(|heard| heard.round_trip).map(|span| span.as_secs_f32() * 1000.0),
        key_frames: report.key_frames,
        key_frames_broken: report.key_frames_broken,
        drops: report.drops.iter().copied().collect(),
    }
}

fn millis(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}
