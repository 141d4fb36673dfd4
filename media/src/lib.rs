//! The RTP plane of Doorline: one [`command`] language, one pure engine per worker thread.
//!
//! Nothing here knows SIP or accounts. Signalling sends [`command::Command`]s, media sends [`command::Event`]s back.

pub mod command;
