//! The virtio driver against a device made of code.

mod chains;
mod data;
mod fake;
mod recovery;
mod rig;
mod ring;
mod rules;
mod set_up;
mod sleep;
mod steps;
