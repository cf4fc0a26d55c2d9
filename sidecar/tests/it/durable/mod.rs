//! The durable copy, in a real Redis: what a restart finds there, and what is done to it meanwhile.

mod distrust;
mod proving;
mod restart;
mod stage;
mod trouble;
