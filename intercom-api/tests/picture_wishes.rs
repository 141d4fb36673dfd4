//! Who gets which picture of a call, on a bare Switchboard: wishes share questions to media, and nothing of a call waits for one.

mod board;

use board::{Board, DOOR, OFFER, PHONE, status};
use bytes::Bytes;
use intercom_api::control::{Answer, Order};
use intercom_api::live::CallId;
use intercom_api::pictures::job::{Job, Why};
use intercom_api::turn::{Effect, Publication};
use media::command::{Command, Event, Picture, SessionId};
use media::snapshot::Preset;
use std::time::Duration;

struct Scene {
    b: Board,
    call: CallId,
    session: SessionId,
}

impl Scene {
    /// The door rings, with video or without.
    fn ringing(video: bool) -> Scene {
        let mut b = Board::new();
        b.register(PHONE, "p1");
        let request = b.signed_ring("");
        let (offer, length) = (format!("{OFFER}m=video 4002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"), OFFER.len());
        let with_video =
            request.replace(OFFER, &offer).replace(&format!("Length: {length}"), &format!("Length: {}", offer.len()));
        let effects = b.receive(DOOR, if video { &with_video } else { &request });
        assert_eq!(status(&effects, DOOR), 183);
        let call = effects
            .iter()
            .find_map(|e| if let Effect::Publish(Publication::Call(view)) = e { Some(view.id.clone()) } else { None });
        let open = |effect: &Effect| match effect {
            Effect::Media { command, .. } => match &**command {
                Command::Open { session, .. } => Some(*session),
                _ => None,
            },
            _ => None,
        };
        let session = effects.iter().find_map(open);
        Scene { b, call: call.unwrap(), session: session.unwrap() }
    }

    fn ask(&mut self, preset: Preset, ticket: u64) -> (Answer, usize) {
        let mut effects = Vec::new();
        let order = Order::Picture { call: self.call.clone(), preset, ticket };
        let answer = self.b.board.command(self.b.now, order, &mut effects);
        (answer, questions(&effects))
    }

    fn media(&mut self, event: Event) -> (Vec<Job>, usize) {
        let mut effects = Vec::new();
        self.b.board.media(self.b.now, event, &mut effects);
        let asked = questions(&effects);
        let job = |e| if let Effect::Publish(Publication::Picture(job)) = e { Some(*job) } else { None };
        (effects.into_iter().filter_map(job).collect(), asked)
    }

    fn shows(&mut self, age: u64) -> Vec<Job> {
        let at = self.b.now - Duration::from_millis(age);
        let picture = Some(Picture { at, annex_b: Bytes::from_static(b"key frame") });
        self.media(Event::Picture { session: self.session, picture }).0
    }
}

/// How often media is asked.
fn questions(effects: &[Effect]) -> usize {
    let asks =
        |effect: &&Effect| matches!(effect, Effect::Media { command, .. } if matches!(**command, Command::TakePicture { .. }));
    effects.iter().filter(asks).count()
}

#[test]
fn a_ring_takes_a_picture_when_the_door_is_seen() {
    let mut s = Scene::ringing(true);
    s.b.now += Duration::from_millis(500);
    let (jobs, asked) = s.media(Event::FirstKeyFrame { session: s.session, at: s.b.now });
    assert_eq!((jobs, asked), (vec![], 1));
    let jobs = s.shows(100);
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((job.why, job.preset, &job.call, job.door.as_str()), (Why::Ring, Preset::Large, &s.call, "d1"));
    assert_eq!(job.shown.as_ref().unwrap().taken_ms, 1_790_000_000_400, "when the door showed it, not when we asked");
    assert!(s.shows(0).is_empty(), "nobody waits");
}

#[test]
fn all_who_ask_at_once_share_one_question() {
    let mut s = Scene::ringing(true);
    assert_eq!(s.ask(Preset::Large, 1), (Answer::Done, 1));
    assert_eq!(s.ask(Preset::Small, 2), (Answer::Done, 0));
    assert_eq!(s.ask(Preset::Large, 3), (Answer::Done, 0));
    let jobs = s.shows(0);
    let tickets: Vec<_> = jobs.iter().map(|job| (job.preset, job.tickets.clone())).collect();
    assert_eq!(tickets, [(Preset::Large, vec![1, 3]), (Preset::Small, vec![2])]);
    assert_ne!(jobs[0].id, jobs[1].id);
    assert!(jobs.iter().all(|job| job.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')));
    assert_eq!(s.ask(Preset::Large, 4), (Answer::Done, 1), "the next one is a new one");
    let (jobs, _) = s.media(Event::Picture { session: s.session, picture: None });
    assert_eq!(jobs.iter().map(|job| (&job.tickets[..], job.shown.is_none())).collect::<Vec<_>>(), [(&[4][..], true)]);
}

#[test]
fn a_question_that_media_has_lost_is_asked_again() {
    let mut s = Scene::ringing(true);
    assert_eq!(s.ask(Preset::Large, 1).1, 1);
    s.b.now += Duration::from_secs(2);
    assert_eq!(s.ask(Preset::Small, 2).1, 1);
    assert_eq!(s.shows(0).len(), 2);
}

#[test]
fn no_picture_where_none_can_be() {
    let mut s = Scene::ringing(false);
    assert_eq!(s.ask(Preset::Large, 1), (Answer::NoPicture("the door sends no video in this call"), 0));
    s.call = CallId("nobody".into());
    assert_eq!(s.ask(Preset::Large, 1), (Answer::NotFound, 0));
    let mut s = Scene::ringing(true);
    s.b.board.command(s.b.now, Order::HangUp(s.call.clone()), &mut Vec::new());
    assert_eq!(s.ask(Preset::Large, 1), (Answer::NoPicture("the call has ended"), 0));
}

#[test]
fn one_call_does_not_fill_the_disk() {
    let mut s = Scene::ringing(true);
    for ticket in 0..200 {
        assert_eq!(s.ask(Preset::Large, ticket).0, Answer::Done);
        assert_eq!(s.shows(0).len(), 1);
    }
    assert!(matches!(s.ask(Preset::Large, 200), (Answer::NoPicture(_), 0)));
    assert_eq!(s.b.count("call_too_many_pictures"), 1);
}
