//! Our driver on the emulated controller, through VFIO.

mod faults;
mod limits;
mod power;
mod soak;
mod traffic;
mod worker;

pub use faults::{failing_medium, iommu_stops, stalled_medium, unplugged};
pub use limits::{brings_up, idle_is_idle, refuses, rules_of_a_namespace};
pub use power::power_cut;
pub use soak::soak;
pub use traffic::{shadow_doorbells, two_rings, verified_io};

use annulus_linux::Ring;
use annulus_linux::nvme::{Nvme, NvmeRing, Options};

use super::Context;

/// How a scenario wants completions to be found.
pub const WAYS: [&str; 3] = ["polled", "interrupts", "adaptive"];

/// Controller `n`, opened through VFIO.
pub fn open(context: &Context, n: u8, options: Options) -> Result<Nvme, String> {
    let function = context.vfio(n)?;
    Nvme::open_with(&function.address, options).map_err(|e| e.to_string())
}

/// A ring of `depth` requests that finds completions in this way.
pub fn ring(nvme: &Nvme, way: &str, depth: u32) -> Result<NvmeRing, String> {
    let mut builder = Ring::builder();
    match way {
        "polled" => builder.setup_iopoll(),
        "interrupts" => builder.interrupts(),
        _ => &mut builder,
    };
    builder.requests(depth).build_on(nvme, depth).map_err(|e| e.to_string())
}

/// The value of an argument that is a number.
pub fn number(context: &Context, name: &str, otherwise: u64) -> Result<u64, String> {
    match context.arg(name) {
        None => Ok(otherwise),
        Some(text) => text.parse().map_err(|_| format!("{name}={text} is not a number")),
    }
}
