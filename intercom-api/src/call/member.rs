//! One phone of a call: its leg, its offer, and what it answered.

use super::Ring;
use super::plan::{self, LegPorts};
use crate::model::Number;
use crate::turn::Turn;
use crate::unlock::twins::Twins;
use bytes::Bytes;
use media::command::{LegPlan, StreamReport, WorkerId};
use sip_core::endpoint::{Headers, Invite, LegId};
use sip_core::flow::Flow;
use sip_core::location::Binding;
use sip_core::message::Message;
use sip_core::sdp::{self, Door, Local, Sdp};
use std::net::IpAddr;
use std::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MemberState {
    /// INVITE sent.
    Inviting,
    /// 180 without SDP: it rings and sees nothing yet.
    Ringing,
    /// 18x with SDP: it sees the visitor.
    Early,
    Answered,
    /// Why.
    Ended(String),
}

pub(super) struct Member {
    pub account: Number,
    pub state: MemberState,
    pub ports: LegPorts,
    /// When it was invited, its phone might not have known yet that an earlier ring of ours is over.
    pub invited_amid_ending: bool,
    /// Media knows this leg.
    pub in_media: bool,
    pub sip_call_id: String,
    contact: Box<str>,
    flow: Flow,
    ip: IpAddr,
    session_id: u64,
    version: u64,
    /// Our last description, as it was sent: its text is a third of what reading it makes.
    offer: Bytes,
    negotiated: Option<sdp::Member>,
    /// When it became early, and when it answered (D-20).
    pub early_at: Option<Instant>,
    pub answered_at: Option<Instant>,
    pub first_video: Option<Instant>,
    pub report: (StreamReport, StreamReport),
    /// Tells pairs of unlock requests from new ones.
    pub twins: Twins,
}

impl Member {
    /// Sends the INVITE with an offer of this leg's own (D-04). `None` when there are no ports for it.
    pub fn invite(
        turn: &mut Turn<'_>,
        ring: &Ring,
        worker: WorkerId,
        door: &Door,
        binding: &Binding,
        account: Number,
    ) -> Option<(LegId, Member)> {
        let flow = binding.flow;
        let ip = turn.settings.media_ip.unwrap_or(flow.local.ip());
        // The leg's number is only known after the INVITE, its ports before.
        let mut ports = LegPorts::take(turn, worker, LegId(0), flow.remote.ip(), door.audio.is_some(), door.video.is_some())?;
        let session_id = u64::from(turn.endpoint.tokens().random_u32());
        let offer = sdp::offer_member(door, &ports.local(ip, session_id, 1), &plan::converted());
        let offer = Bytes::from(offer.to_string());
        let name: String = ring.caller_name.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
        let invite = Invite {
            flow,
            target: binding.contact_uri.to_string(),
            routes: binding.routes(),
            from: format!("\"{name}\" <sip:{}@{}>", ring.caller, ring.domain),
            to: format!("<sip:{account}@{}>", ring.domain),
            headers: Headers::new(),
            content_type: "application/sdp",
            body: offer.clone(),
        };
        let leg = turn.endpoint.invite(turn.now, invite, turn.sip);
        ports.belong_to(leg);
        let invited_amid_ending = turn.amid_ending(&account);
        let member = Member {
            account,
            invited_amid_ending,
            state: MemberState::Inviting,
            ports,
            in_media: false,
            sip_call_id: turn.endpoint.leg_call_id(leg).unwrap_or_default().to_owned(),
            contact: binding.contact_uri.clone(),
            flow,
            ip,
            session_id,
            version: 1,
            offer,
            negotiated: None,
            early_at: None,
            answered_at: None,
            first_video: None,
            report: Default::default(),
            twins: Twins::default(),
        };
        Some((leg, member))
    }

    pub fn is_live(&self) -> bool {
        !matches!(self.state, MemberState::Ended(_))
    }

    /// Rings, and may still answer.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, MemberState::Inviting | MemberState::Ringing | MemberState::Early)
    }

    /// The same phone the same way (D-06).
    pub fn same_contact(&self, binding: &Binding) -> bool {
        self.contact == binding.contact_uri && self.flow == binding.flow
    }

    /// A provisional response. A plan for media when it brought a (new) session description.
    pub fn early(&mut self, now: Instant, response: &Message) -> Option<LegPlan> {
        let plan = self.read(response);
        if plan.is_some() {
            self.early_at.get_or_insert(now);
            self.state = MemberState::Early;
        } else if self.state == MemberState::Inviting {
            self.state = MemberState::Ringing;
        }
        plan
    }

    /// The 200. It may repeat, change or leave out the description of the early dialog.
    pub fn answer(&mut self, now: Instant, response: &Message) -> Option<LegPlan> {
        let plan = self.read(response).or_else(|| self.plan())?;
        self.answered_at = Some(now);
        self.state = MemberState::Answered;
        Some(plan)
    }

    fn read(&mut self, response: &Message) -> Option<LegPlan> {
        if response.body().is_empty() {
            return None;
        }
        self.take_answer(&Sdp::parse(response.body()).ok()?)
    }

    /// An answer to our last description.
    pub fn take_answer(&mut self, answer: &Sdp) -> Option<LegPlan> {
        self.negotiated = Some(sdp::read_answer(&self.said()?, answer).ok()?);
        self.plan()
    }

    /// Its leg has another flow now, or the same.
    pub fn follow(&mut self, flow: Flow) {
        self.flow = flow;
        self.ports.reached_from(flow.remote.ip());
    }

    /// What our last description says.
    fn said(&self) -> Option<Sdp> {
        Sdp::parse(&self.offer).ok()
    }

    fn plan(&mut self) -> Option<LegPlan> {
        let negotiated = self.negotiated.as_ref()?;
        self.in_media = true;
        Some(self.ports.plan(negotiated.audio.as_ref(), negotiated.video.as_ref()))
    }

    /// It named an address that we cannot reach, as far as we know, and none that we can.
    pub fn hidden(&self) -> bool {
        let mut streams = self.negotiated.iter().flat_map(|n| n.audio.iter().chain(&n.video)).peekable();
        streams.peek().is_some() && streams.all(|stream| self.ports.hidden(stream))
    }

    /// Our present description, for a re-INVITE without one.
    pub fn description(&self) -> String {
        String::from_utf8_lossy(&self.offer).into_owned()
    }

    /// A new offer of the phone: the answer, and what changes for media.
    pub fn renegotiate(&mut self, offer: &Sdp, door: &Door) -> Option<(String, LegPlan)> {
        let local: Local = self.ports.local(self.ip, self.session_id, self.version + 1);
        let (answer, member) = sdp::answer_member(offer, door, &local, &plan::converted()).ok()?;
        self.negotiated = Some(member);
        if self.said().is_none_or(|said| !answer.says_the_same(&said)) {
            self.version += 1;
            self.offer = answer.to_string().into();
        }
        let plan = self.plan()?;
        Some((self.description(), plan))
    }

    /// Negotiated codecs by name, audio first.
    pub fn codecs(&self) -> Vec<String> {
        self.negotiated.iter().flat_map(|n| n.audio.iter().chain(&n.video)).flat_map(super::record::codec_names).collect()
    }
}
