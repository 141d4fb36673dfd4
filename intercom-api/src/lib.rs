//! Doorline: a SIP intercom media server. This crate is the product: intercom rules, drivers, HTTP.

pub mod control;
pub mod live;
pub mod model;
