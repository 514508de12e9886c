//! The layer against a scripted kernel.

mod device;
mod fake;
mod memory;
mod opening;
