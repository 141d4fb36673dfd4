//! RTCP of our own (RFC 3550 §6): every leg gets reports about what we got from it and what we sent to it, and what it reports
//! ends here. Nothing of one leg's RTCP is ever passed on to another. Also: asking for a key frame (RFC 4585 §6.3.1, RFC 5104
//! §4.3.1), and noticing that somebody asks.

use rtc_rtcp::Packet;
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::packet::{marshal, unmarshal};
use rtc_rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::receiver_report::ReceiverReport;
pub use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtcp::sender_report::SenderReport;
use rtc_rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};

/// What a peer's datagram says to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its sender report: SSRC, NTP time, RTP time.
    pub sender: Option<(u32, u64, u32)>,
    /// What it says of the sources it hears.
    pub blocks: Vec<ReceptionReport>,
    pub wants_key_frame: bool,
}

/// Reads a compound packet, or a single one (RFC 5506). `None`: part of it is malformed.
pub fn read(mut datagram: &[u8]) -> Option<Said> {
    let mut said = Said::default();
    for packet in unmarshal(&mut datagram).ok()? {
        let packet = packet.as_any();
        if let Some(report) = packet.downcast_ref::<SenderReport>() {
            said.sender = Some((report.ssrc, report.ntp_time, report.rtp_time));
            said.blocks.extend(report.reports.iter().cloned());
        } else if let Some(report) = packet.downcast_ref::<ReceiverReport>() {
            said.blocks.extend(report.reports.iter().cloned());
        } else if packet.is::<PictureLossIndication>() || packet.is::<FullIntraRequest>() {
            said.wants_key_frame = true;
        }
    }
    Some(said)
}

/// What begins every compound packet of ours (RFC 3550 §6.1): a report, and who we are.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Our SSRC of this stream.
    pub ours: u32,
    /// NTP time, RTP time, packets and payload bytes sent; `None`: we have sent nothing.
    pub sent: Option<(u64, u32, u32, u32)>,
    /// What we hear of the peer.
    pub heard: Option<ReceptionReport>,
}

/// What follows the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// The source is asked for a key frame.
    Pli(u32),
    /// The same, with the number of the request: a repeat has the same one.
    Fir(u32, u8),
    /// We leave.
    Bye,
}

/// One name for all streams of all legs: they are of one end point, and are played in step. Of a length that needs no padding,
/// which the library would not fill with zeros (RFC 3550 §6.5).
const CNAME: &[u8] = b"door@line";

impl Report {
    /// The datagram.
    pub fn write(self, then: Then) -> Vec<u8> {
        let ours = self.ours;
        let reports = Vec::from_iter(self.heard);
        let report: Box<dyn Packet> = match self.sent {
            Some((ntp_time, rtp_time, packet_count, octet_count)) => Box::new(SenderReport {
                ssrc: ours,
                ntp_time,
                rtp_time,
                packet_count,
                octet_count,
                reports,
                ..SenderReport::default()
            }),
            None => Box::new(ReceiverReport { ssrc: ours, reports, ..ReceiverReport::default() }),
        };
        let name = SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: CNAME.into() };
        let mut packets = vec![
            report,
            Box::new(SourceDescription { chunks: vec![SourceDescriptionChunk { source: ours, items: vec![name] }] }),
        ];
        match then {
            Then::Nothing => {}
            Then::Pli(source) => packets.push(Box::new(PictureLossIndication { sender_ssrc: ours, media_ssrc: source })),
            Then::Fir(source, number) => packets.push(Box::new(FullIntraRequest {
                sender_ssrc: ours,
                // RFC 5104 §4.3.1.2: the media source of the header is not used.
                media_ssrc: 0,
                fir: vec![FirEntry { ssrc: source, sequence_number: number }],
            })),
            Then::Bye => packets.push(Box::new(Goodbye { sources: vec![ours], ..Goodbye::default() })),
        }
        // Fixed shapes, a handful of bytes each: there is nothing to refuse.
        marshal(&packets).map(Vec::from).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_we_read() {
        let block = ReceptionReport { ssrc: 9, fraction_lost: 12, total_lost: 3, ..ReceptionReport::default() };
        let report = Report { ours: 1, sent: Some((5, 6, 7, 8)), heard: Some(block.clone()) };
        for (then, wants) in [(Then::Nothing, false), (Then::Pli(9), true), (Then::Fir(9, 1), true), (Then::Bye, false)] {
            let datagram = report.clone().write(then);
            assert!(datagram.len().is_multiple_of(4));
            let said = read(&datagram).unwrap();
            assert_eq!(said, Said { sender: Some((1, 5, 6)), blocks: vec![block.clone()], wants_key_frame: wants });
            assert_eq!(read(&datagram[..datagram.len() - 1]), None, "cut");
        }
        let receiver = Report { ours: 1, sent: None, heard: None }.write(Then::Nothing);
        // A receiver report without a block, then SDES: one chunk, a CNAME, the end.
        assert_eq!(receiver[..12], [0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 202, 0, 4]);
        assert_eq!(&receiver[12..], b"\0\0\0\x01\x01\x09door@line\0");
    }

    #[test]
    fn a_feedback_packet_alone_is_heard() {
        assert!(read(&[0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap().wants_key_frame);
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0x80; 3]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), kind in 199u8..=207) {
            read(&bytes);
            let mut likely = bytes;
            if likely.len() >= 4 {
                likely[0] = 0x80 | likely[0] & 0x3f;
                likely[1] = kind;
                let words = (likely.len() / 4 - 1) as u16;
                likely[2..4].copy_from_slice(&words.to_be_bytes());
                read(&likely);
            }
        }
    }
}
