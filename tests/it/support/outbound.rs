//! The stand-in for a sender's host, which the unit tests have too.

pub use retrieve_gateway::outbound::{Client, Reach, Scope, Trust};

#[allow(dead_code)]
#[path = "../../../src/outbound/stand_in.rs"]
pub mod stand_in;
