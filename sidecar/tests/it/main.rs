//! A sidecar over real sockets, against an authority that is played by hand.

mod answers;
mod lease;
mod ledger;
mod node;
mod resync;
mod script;
mod serving;
