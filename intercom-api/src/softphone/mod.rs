//! User agents of our own: a door unit and a phone on sip-core, for the bench and the demo. They meet the server only over
//! UDP and share no state with it.

mod agent;
mod clip;
mod device;
mod rtp;
mod screen;
mod voice;

pub use agent::{Agent, AgentConfig, AgentEvent, AgentOut};
pub use clip::{Clip, Packing};
pub use device::{Device, DeviceConfig, Happened, Order, Role, Tally};
