//! `annulus info`: what a controller is, allows and has been through.

mod json;
mod text;

use annulus_linux::nvme::{
    ControllerError, ControllerInfo, Health, Limits, NamespaceInfo, Options, RecentError,
};
use annulus_linux::vfio::{Interface, Mapped, PciAddress};

use crate::cli::InfoArgs;
use crate::device;
use crate::error::{Failure, failed};
use crate::output;
use crate::pci::Function;

/// Everything that is shown. What the controller would not tell is shown as its error.
struct Facts {
    address: PciAddress,
    function: Function,
    controller: ControllerInfo,
    limits: Limits,
    vectors: u32,
    mapped: Mapped,
    interface: Interface,
    namespaces: Vec<(u32, Result<NamespaceInfo, ControllerError>)>,
    health: Result<Health, ControllerError>,
    newest_error: Result<Option<RecentError>, ControllerError>,
}

/// Describes a controller.
///
/// # Errors
/// It cannot be had, or is none.
pub fn run(args: &InfoArgs) -> Result<(), Failure> {
    let address = args.vfio;
    let nvme = device::open(address, Options::default())?;
    let controller = nvme.controller();
    let ids = device::active_namespaces(&nvme)
        .map_err(|error| failed!("{address} does not tell its namespaces: {error}"))?;
    let facts = Facts {
        address,
        function: Function::new(address),
        controller: *controller.info(),
        limits: *controller.limits(),
        vectors: controller.platform().vectors(),
        mapped: controller.platform().mapped(),
        interface: controller.platform().interface(),
        namespaces: ids.into_iter().map(|id| (id, controller.namespace(id))).collect(),
        health: controller.health(),
        newest_error: controller.error_log(),
    };
    output::print(&if args.json { json::object(&facts) } else { text::page(&facts) });
    Ok(())
}

/// The critical warnings of a controller (Base specification, SMART / health information), in
/// words.
fn warnings(health: &Health) -> Vec<&'static str> {
    const WORDS: [&str; 6] = [
        "little spare capacity is left",
        "the temperature is out of range",
        "it is not reliable any more",
        "its media are read-only",
        "its volatile memory has no backup any more",
        "its persistent memory region is not reliable any more",
    ];
    let set = |bit: &usize| health.critical_warning & (1 << bit) != 0;
    (0..WORDS.len()).filter(set).map(|bit| WORDS[bit]).collect()
}

/// Kelvin in degrees Celsius; None if the controller does not say.
fn celsius(kelvin: u16) -> Option<i32> {
    (kelvin != 0).then(|| i32::from(kelvin) - 273)
}

/// Bytes of the data units of a health log.
fn data_bytes(units: u128) -> u128 {
    units.saturating_mul(512_000)
}

/// The version of the specification.
fn version((major, minor, tertiary): (u16, u8, u8)) -> String {
    format!("{major}.{minor}.{tertiary}")
}
