//! Audio of one stream to others: forwarded to those that have its codec, converted for those that share none with it (D-04),
//! telephone-events in each sink's own numbers.

use crate::audio::Converter;
use crate::command::{Codec, Event, LegId, SessionId};
use crate::drop::Drop;
use crate::dtmf::Report;
use crate::engine::Out;
use crate::rtp::Rtp;
use crate::stream::Stream;
use std::time::Instant;

/// One packet of `source` and what it is.
pub(crate) struct Sound<'a> {
    pub packet: &'a Rtp<'a>,
    pub codec: Codec,
    /// Of the datagram.
    pub length: usize,
}

/// One packet to all these sinks.
pub(crate) fn audio<'a>(
    now: Instant,
    source: &mut Stream,
    sinks: impl Iterator<Item = &'a mut Stream>,
    sound: &Sound<'_>,
    out: &mut Out,
) {
    let mut heard = None;
    for sink in sinks {
        let put = match sink.put(now, sound.packet, sound.length, sound.codec, out) {
            Err(Drop::NoCodec) => convert(now, source, sink, sound, &mut heard, out),
            put => put,
        };
        if let Err(drop) = put {
            sink.drops.count(drop);
        }
    }
}

/// `heard`: whether this packet has been decoded yet, and could be.
fn convert(
    now: Instant,
    source: &mut Stream,
    sink: &mut Stream,
    sound: &Sound<'_>,
    heard: &mut Option<bool>,
    out: &mut Out,
) -> Result<(), Drop> {
    let target = sink.spoken().ok_or(Drop::NoCodec)?;
    if source.converter.is_none() {
        source.converter = Some(Box::new(Converter::new(sound.codec).ok_or(Drop::NoCodec)?));
    }
    let Some(converter) = source.converter.as_mut() else { return Err(Drop::NoCodec) };
    let usable = match heard {
        Some(usable) => *usable,
        None => {
            let done = converter.hear(sound.packet, sound.codec);
            done.err().into_iter().for_each(|drop| source.drops.count(drop));
            *heard.insert(done.is_ok())
        }
    };
    if usable {
        for frame in converter.speak(target.codec)? {
            sink.speak(now, sound.packet.ssrc(), frame, target, out)?;
        }
    }
    Ok(())
}

/// One packet of a telephone-event to all these sinks.
pub(crate) fn event<'a>(
    now: Instant,
    source: &mut Stream,
    sinks: impl Iterator<Item = &'a mut Stream>,
    sound: &Sound<'_>,
    report: Report,
    out: &mut Out,
) {
    if let Some(converter) = source.converter.as_mut() {
        converter.skip(sound.packet);
    }
    for sink in sinks {
        let forwarded = source.plan.payloads.iter().any(|p| p.codec.is_sound() && sink.pt(p.codec).is_some());
        if let Err(drop) = sink.event(now, sound, report, forwarded, out) {
            sink.drops.count(drop);
        }
    }
}

/// A telephone-event that stays here.
pub(crate) fn hold_back(source: &mut Stream, sound: &Sound<'_>) {
    if let Some(converter) = source.converter.as_mut() {
        converter.skip(sound.packet);
    }
    source.drops.count(Drop::KeyHeldBack);
}

/// Reads a telephone-event of `source`; a press is told with its first packet.
pub(crate) fn read(
    now: Instant,
    (session, leg): (SessionId, LegId),
    source: &mut Stream,
    sound: &Sound<'_>,
    out: &mut Out,
) -> Result<Report, Drop> {
    let (report, new) = source.presses.read(now, sound.packet, sound.codec.clock_rate())?;
    if let (true, Some(digit)) = (new, crate::dtmf::signal(report.event)) {
        out.events.push(Event::Digit { session, leg, digit });
    }
    Ok(report)
}
