//! The clock that waits go by.

use annulus::uapi::*;

use super::ring::{Ring, Wish};
use super::{Row, Seen};

/// The scripts of this file.
pub const SCRIPTS: &[Row] = &[("clock: arguments", Wish::PLAIN, arguments)];

fn arguments(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    for nr_args in [0, 1] {
        ring.call_null(&mut seen, IORING_REGISTER_CLOCK, nr_args);
    }
    let mut register = |ring: &mut dyn Ring, clockid, resv, nr_args| {
        let mut arg = io_uring_clock_register { clockid, resv };
        ring.call(&mut seen, IORING_REGISTER_CLOCK, &mut arg, nr_args);
    };
    for clockid in (0..16).chain([u32::MAX]) {
        register(ring, clockid, [0; 3], 0);
    }
    register(ring, 1, [0; 3], 1);
    register(ring, 1, [0, 1, 0], 0);
    seen
}
