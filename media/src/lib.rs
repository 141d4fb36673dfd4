//! The RTP plane of Doorline: one [`command`] language, one pure [`engine::Engine`] per worker thread.
//!
//! Nothing here knows SIP or accounts. Signalling sends [`command::Command`]s, media sends [`command::Event`]s back.

pub mod asking;
pub mod audio;
pub mod command;
pub mod drop;
pub mod dtmf;
pub mod engine;
pub mod h264;
pub mod keyframe;
mod latch;
mod leg;
pub mod nat;
mod order;
pub mod pool;
pub mod ports;
pub mod quality;
mod relay;
pub mod rtcp;
pub mod rtp;
mod session;
mod sink;
pub mod snapshot;
mod stream;
pub mod stun;
pub mod sys;
mod tone;
mod worker;
