//! The NVMe driver against a controller made of code, in this process: what
//! hardware does, what it should not do, and what it does when it breaks.
#![cfg(not(loom))]

mod bring_up;
mod chains;
mod data;
mod fake;
mod hostile;
mod recovery;
mod removal;
mod resets;
mod rig;
mod ring;
mod rules;
mod threads;
mod tricks;
