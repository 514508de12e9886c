//! The facts for people.

use std::fmt::{Display, Write};

use annulus_linux::nvme::{ControllerError, Health, NamespaceInfo, RecentError, SglAlignment};
use annulus_linux::vfio::Interface;

use super::{Facts, celsius, data_bytes, version, warnings};
use crate::human::{count, size};

/// A heading and its rows.
struct Section(String);

impl Section {
    fn new(heading: &str) -> Self {
        Self(format!("\n{heading}\n"))
    }

    fn row(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "  {name:<18} {value}");
    }
}

/// The page.
pub fn page(facts: &Facts) -> String {
    let mut page = format!("NVMe controller at {}\n", facts.address);
    for section in [controller(facts), limits(facts), namespaces(facts), health(facts)] {
        page += &section.0;
    }
    page
}

fn controller(facts: &Facts) -> Section {
    let mut section = Section::new("controller");
    let it = &facts.controller;
    section.row("model", it.model);
    section.row("serial number", it.serial);
    section.row("firmware", it.firmware);
    section.row("follows NVMe", version(it.version));
    let pci = &facts.function;
    section.row("PCI id", pci.ids().unwrap_or_else(|| format!("{:04x}:????", it.vendor)));
    section.row("PCI link", pci.link_speed().unwrap_or_else(|| "not told".into()));
    if let Some(node) = pci.numa_node() {
        section.row("NUMA node", node);
    }
    let group = pci.group().unwrap_or_else(|| "?".into());
    section.row("IOMMU group", &group);
    section.row(
        "opened by",
        match facts.interface {
            Interface::Cdev => "its own file and iommufd (/dev/iommu)".into(),
            _ => format!("its group and a type 1 container (/dev/vfio/{group})"),
        },
    );
    section
}

fn limits(facts: &Facts) -> Section {
    let mut section = Section::new("limits");
    let (it, limits) = (&facts.controller, &facts.limits);
    let transfer = it.max_transfer.map_or_else(|| "no limit".into(), size);
    section.row(
        "largest transfer",
        format!("{transfer} a command; rings cut at 1 MiB unless they are told otherwise"),
    );
    let entries = limits.queue_entries;
    section.row(
        "queue entries",
        format!(
            "{}: rings have a power of two of them, and one command fewer",
            count(entries.into())
        ),
    );
    section.row("queue pairs", format!("{} granted: as many rings", limits.pairs));
    section.row("interrupts", format!("{} vectors", facts.vectors));
    section.row(
        "write cache",
        match it.write_cache {
            true => "volatile: an fsync flushes it",
            false => "none that is volatile: what is written is durable",
        },
    );
    section.row("write zeroes", yes(it.write_zeroes));
    section.row("deallocate", yes(it.dataset_management));
    section.row(
        "SGLs",
        match it.sgl {
            Some(SglAlignment::Byte) => "yes, at any byte",
            Some(SglAlignment::Dword) => "yes, at any dword",
            None => "no",
        },
    );
    section.row("shadow doorbells", yes(it.shadow_doorbells));
    section
        .row("ready within", format!("{} ms at most", limits.ready_timeout_ns.div_ceil(1_000_000)));
    let mapped = facts.mapped;
    section.row(
        "memory for it",
        format!("{} pinned, IOMMU mappings: {}", size(mapped.bytes), mapped.entries),
    );
    section
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn namespaces(facts: &Facts) -> Section {
    let mut section = Section::new("namespaces");
    if facts.namespaces.is_empty() {
        section.row("none", "make and attach one with `nvme create-ns`, `nvme attach-ns`");
    }
    for (id, namespace) in &facts.namespaces {
        section.row(&id.to_string(), namespace_line(namespace));
    }
    section
}

fn namespace_line(namespace: &Result<NamespaceInfo, ControllerError>) -> String {
    match namespace {
        Ok(it) => format!(
            "{} ({} bytes), blocks of {}{}",
            size(it.bytes),
            count(it.bytes),
            size(it.block().into()),
            if it.read_only { ", read-only" } else { "" }
        ),
        Err(error) => error.to_string(),
    }
}

fn health(facts: &Facts) -> Section {
    let mut section = Section::new("health");
    match &facts.health {
        Ok(health) => health_rows(&mut section, health),
        Err(error) => section.row("not told", error),
    }
    section.row(
        "newest log entry",
        match &facts.newest_error {
            Ok(None) => "none".into(),
            Ok(Some(error)) => error_line(error),
            Err(error) => error.to_string(),
        },
    );
    section
}

fn health_rows(section: &mut Section, health: &Health) {
    let warnings = warnings(health);
    let verdict = match warnings[..] {
        [] => "no warnings".into(),
        _ => format!("WARNING: {}", warnings.join(", ")),
    };
    section.row("status", verdict);
    let temperature = celsius(health.temperature_kelvin);
    section.row("temperature", temperature.map_or("not told".into(), |it| format!("{it} °C")));
    section.row(
        "spare capacity",
        format!("{} %, a warning below {} %", health.spare_percent, health.spare_threshold_percent),
    );
    section.row("life used", format!("{} %", health.used_percent));
    let (read, written) = health.data_units;
    section.row("data read", data(read));
    section.row("data written", data(written));
    section.row(
        "power",
        format!(
            "{} hours, {} cycles, {} unsafe shutdowns",
            health.power_on_hours, health.power_cycles, health.unsafe_shutdowns
        ),
    );
    section.row(
        "errors",
        format!("{} of media, {} in the error log", health.media_errors, health.error_entries),
    );
}

fn data(units: u128) -> String {
    size(u64::try_from(data_bytes(units)).unwrap_or(u64::MAX))
}

fn error_line(error: &RecentError) -> String {
    format!(
        "{}: queue {}, command {}, namespace {}, block {}",
        error.status, error.queue, error.command, error.nsid, error.block
    )
}
