//! Verified reads and writes.

use std::time::Duration;

use annulus_linux::nvme::{Nvme, Options};

use super::worker::{Done, Load, run};
use super::{Context, WAYS, number, open, ring};

/// What the namespaces of these scenarios have at least.
pub const BYTES: u64 = 64 << 20;

/// Operations in flight, one after the other.
const DEPTHS: [usize; 4] = [1, 4, 32, 256];

pub fn load(
    nvme: &Nvme,
    nsid: u32,
    depth: usize,
    time: Duration,
    seed: u64,
) -> Result<Load, String> {
    let info = nvme.controller().namespace(nsid).map_err(|e| e.to_string())?;
    if info.bytes < BYTES {
        return Err(format!("namespace {nsid} has {} bytes only", info.bytes));
    }
    let block = info.block() as usize;
    // Twice as long as one command, where there is room for it.
    let command = nvme.controller().info().max_transfer.unwrap_or(512 << 10) as usize;
    let region = (BYTES as usize / depth).min(1 << 20);
    let longest = (2 * command + block).min(region);
    Ok(Load { nsid, block, region, depth, longest, time, seed, ..Load::default() })
}

fn told(done: &Done) -> String {
    format!(
        "{} operations, {} MiB, up to {} KiB",
        done.operations,
        done.bytes >> 20,
        done.longest >> 10
    )
}

/// Mixed reads and writes at one depth after the other, in every way of
/// finding completions, from unaligned memory, and longer than one command.
/// Arguments: `nsid`, `controller`, `ms` of each, and `sgl=no` for PRP lists
/// where the controller would take SGLs.
pub fn verified_io(context: &mut Context) -> Result<String, String> {
    let options = Options { sgl: context.arg("sgl") != Some("no"), ..Options::default() };
    let nvme = open(context, number(context, "controller", 0)? as u8, options)?;
    let nsid = number(context, "nsid", 1)? as u32;
    let time = Duration::from_millis(number(context, "ms", 400)?);
    let mut all = Done::default();
    let mut seed = 1;
    for way in WAYS {
        for depth in DEPTHS {
            let mut own = ring(&nvme, way, depth as u32)?;
            let load = load(&nvme, nsid, depth, time, seed)?;
            let done = run(&mut own, &load).map_err(|e| format!("{way}, depth {depth}: {e}"))?;
            all.operations += done.operations;
            all.bytes += done.bytes;
            all.longest = all.longest.max(done.longest);
            seed += 1;
        }
    }
    let (_, errors) = nvme.controller().recent_errors();
    if errors != 0 {
        return Err(format!("{errors} commands failed"));
    }
    let info = nvme.controller().info();
    let pieces = if options.sgl && info.sgl.is_some() { "SGLs" } else { "PRP lists" };
    let most = info.max_transfer.map_or("any length".into(), |b| format!("{} KiB", b >> 10));
    Ok(format!(
        "{} at depths {DEPTHS:?}: {}; a command takes {most}, by {pieces}",
        WAYS.join(", "),
        told(&all)
    ))
}

/// Two rings in two threads, each with its own queue pair and its own part of
/// the namespace.
pub fn two_rings(context: &mut Context) -> Result<String, String> {
    let nvme = open(context, 0, Options::default())?;
    let time = Duration::from_millis(number(context, "ms", 1500)?);
    let threads: Vec<_> = [("polled", 0), ("adaptive", 1)]
        .into_iter()
        .map(|(way, half)| {
            let nvme = nvme.clone();
            std::thread::spawn(move || {
                let mut own = ring(&nvme, way, 32)?;
                let mut load = load(&nvme, 1, 32, time, 7 + half)?;
                load.start = half * (BYTES / 2);
                run(&mut own, &load).map_err(|e| format!("{way}: {e}"))
            })
        })
        .collect();
    let mut said = Vec::new();
    for thread in threads {
        said.push(told(&thread.join().map_err(|_| "a ring's thread panicked")??));
    }
    Ok(said.join("; "))
}

/// With shadow doorbells the same data. How many doorbells were registers after
/// all is told; it is as the controller is asleep or awake.
pub fn shadow_doorbells(context: &mut Context) -> Result<String, String> {
    let mut said = Vec::new();
    // Registers written for a thousand operations, without and with.
    let mut written = [0; 2];
    for shadow in [false, true] {
        let options = Options { shadow_doorbells: shadow, ..Options::default() };
        let nvme = open(context, 0, options)?;
        if nvme.controller().has_shadow() != shadow {
            return Err(format!(
                "shadow doorbells are {}",
                if shadow { "not there" } else { "on" }
            ));
        }
        let (mut operations, mut doorbells) = (0, 0);
        for way in WAYS {
            let mut own = ring(&nvme, way, 32)?;
            let load = load(&nvme, 1, 32, Duration::from_millis(500), 3)?;
            let done = run(&mut own, &load).map_err(|e| format!("{way}, shadow {shadow}: {e}"))?;
            operations += done.operations;
            doorbells += u64::from(own.stats().device.doorbells);
            said.push(format!(
                "{way} {}: {}",
                if shadow { "with" } else { "without" },
                done.operations
            ));
        }
        written[usize::from(shadow)] = doorbells * 1000 / operations.max(1);
    }
    let [without, with] = written;
    Ok(format!(
        "{} operations; registers written for 1000: {without} without, {with} with",
        said.join(", ")
    ))
}
