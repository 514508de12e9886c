//! What drivers of block devices have in common: NVMe namespaces and virtio
//! disks behave alike towards an application, and this is how.
//!
//! A driver of one's own may be built on it: [`Medium`] knows what an
//! application may ask of a device, [`Copies`] carries data to and from memory
//! that the device does not reach, [`Waiting`] keeps the order of requests that
//! have no room yet, and [`Pace`] says when to look at the clock.

mod bounce;
mod copies;
mod medium;
mod pace;
mod vectors;
mod waiting;

pub use copies::{Copies, Source};
pub use medium::{Medium, Transfer};
pub use pace::{Pace, TICK_NS};
pub use vectors::Vectors;
pub use waiting::{Linked, Waiting};

/// No chunk, no block of vectors, end of a list.
pub const NONE: u16 = u16::MAX;
