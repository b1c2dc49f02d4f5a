//! The dashboard role as its viewers meet it: real sockets in front, librdkafka's mock cluster behind.

// The lint knows test functions only, not what they call.
#![allow(clippy::unwrap_used)]

mod access;
mod accounts;
mod askers;
mod events;
mod filters;
mod history;
mod live;
mod login;
mod memory;
mod shared;
mod sites;
mod slow;
mod sockets;
mod stage;
mod stream;
