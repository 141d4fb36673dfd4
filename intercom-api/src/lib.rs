//! Doorline: a SIP intercom media server. This crate is the product: intercom rules, drivers, HTTP.

pub mod call;
pub mod control;
pub mod directory;
pub mod driver;
pub mod live;
pub mod model;
pub mod softphone;
pub mod switchboard;
pub mod transport;
pub mod turn;
