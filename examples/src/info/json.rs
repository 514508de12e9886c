//! The facts for programs.

use annulus_linux::nvme::{ControllerError, Health, NamespaceInfo, RecentError, SglAlignment};
use annulus_linux::vfio::Interface;
use serde_json::{Value, json};

use super::{Facts, celsius, data_bytes, version, warnings};

/// One object on one line.
pub fn object(facts: &Facts) -> String {
    let (it, limits) = (&facts.controller, &facts.limits);
    let namespaces = facts.namespaces.iter().map(|(id, namespace)| entry(*id, namespace));
    let object = json!({
        "address": facts.address.to_string(),
        "controller": {
            "model": it.model.to_string(),
            "serial": it.serial.to_string(),
            "firmware": it.firmware.to_string(),
            "version": version(it.version),
            "pci_id": facts.function.ids(),
            "pci_link": facts.function.link_speed(),
            "numa_node": facts.function.numa_node(),
            "iommu_group": facts.function.group(),
            "opened_by": match facts.interface {
                Interface::Cdev => "iommufd",
                _ => "group",
            },
        },
        "limits": {
            "max_transfer": it.max_transfer,
            "queue_entries": limits.queue_entries,
            "queue_pairs": limits.pairs,
            "interrupt_vectors": facts.vectors,
            "write_cache": it.write_cache,
            "write_zeroes": it.write_zeroes,
            "dataset_management": it.dataset_management,
            "sgl": it.sgl.map(|alignment| match alignment {
                SglAlignment::Byte => "byte",
                SglAlignment::Dword => "dword",
            }),
            "shadow_doorbells": it.shadow_doorbells,
            "ready_timeout_ms": limits.ready_timeout_ns.div_ceil(1_000_000),
            "mapped_bytes": facts.mapped.bytes,
            "mappings": facts.mapped.entries,
        },
        "namespaces": namespaces.collect::<Vec<_>>(),
        "health": told(&facts.health, health),
        "newest_error": told(&facts.newest_error, |newest| {
            newest.as_ref().map_or(Value::Null, error)
        }),
    });
    format!("{object}\n")
}

/// What the controller told, or an object with the reason why not.
fn told<T>(result: &Result<T, ControllerError>, show: impl Fn(&T) -> Value) -> Value {
    match result {
        Ok(it) => show(it),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn entry(id: u32, namespace: &Result<NamespaceInfo, ControllerError>) -> Value {
    let mut entry = told(
        namespace,
        |it| json!({ "bytes": it.bytes, "block": it.block(), "read_only": it.read_only }),
    );
    entry["id"] = id.into();
    entry
}

fn health(health: &Health) -> Value {
    let (read, written) = health.data_units;
    json!({
        "critical_warning": health.critical_warning,
        "warnings": warnings(health),
        "temperature_celsius": celsius(health.temperature_kelvin),
        "spare_percent": health.spare_percent,
        "spare_threshold_percent": health.spare_threshold_percent,
        "used_percent": health.used_percent,
        "bytes_read": number(data_bytes(read)),
        "bytes_written": number(data_bytes(written)),
        "power_cycles": number(health.power_cycles),
        "power_on_hours": number(health.power_on_hours),
        "unsafe_shutdowns": number(health.unsafe_shutdowns),
        "media_errors": number(health.media_errors),
        "error_entries": number(health.error_entries),
    })
}

/// A counter of 128 bits in as many as JSON's readers take.
fn number(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn error(error: &RecentError) -> Value {
    json!({
        "queue": error.queue,
        "command": error.command,
        "namespace": error.nsid,
        "block": error.block,
        "status": error.status.to_string(),
    })
}
