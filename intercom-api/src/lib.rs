//! Doorline: a SIP intercom media server. This crate is the product: intercom rules, drivers, HTTP.

pub mod call;
pub mod config;
pub mod control;
pub mod demo;
pub mod directory;
pub mod driver;
pub mod flight;
pub mod held;
pub mod http;
pub mod keeper;
mod keyfile;
pub mod live;
pub mod lock;
pub mod maintain;
pub mod model;
pub mod pictures;
pub mod profile;
pub mod record;
pub mod recorder;
pub mod room;
pub mod serve;
pub mod softphone;
pub mod store;
pub mod switchboard;
pub mod transport;
pub mod turn;
pub mod unlock;
