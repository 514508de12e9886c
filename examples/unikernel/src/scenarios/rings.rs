//! Several rings on one disk.

use annulus_unikernel::script::Line;

use super::disk::load;
use super::{Outcome, number};
use crate::disks::{OnDisk, RINGS, Scratch, Storage, Way, on_disk};
use crate::ring::Setup;
use crate::second;
use crate::text;
use crate::text::Text;
use crate::traffic::{Done, Load, Workers};

/// As many rings as the disk has queues (`rings=` at most), half of them
/// driven by each core, each with a part of the disk to itself.
pub fn many_rings(line: &Line<'_>) -> Outcome {
    struct Many;
    impl OnDisk for Many {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            const DEPTH: usize = 8;
            let wanted = number(line, "rings", 4)? as usize;
            let rings = wanted.min(disk.info().queues.into()).min(RINGS);
            if rings < wanted {
                return Err(text!("the disk has {rings} queues only"));
            }
            let way = Way::of(line)?;
            let mut all = load(disk, line, 32, 5)?;
            (all.depth, all.region) = (DEPTH, 128 << 10);
            all.longest = all.longest.min(all.region);
            let half = rings / 2;
            let mut there = Ok(Done::default());
            let here = second::meanwhile(
                || there = nested(disk, &all, way, half..rings),
                || nested(disk, &all, way, 0..half),
            );
            let (here, there) = (here.ok_or_else(|| text!("no second core"))??, there?);
            let operations = here.operations + there.operations;
            let mib = (here.bytes + there.bytes) >> 20;
            Ok(text!("{rings} rings on two cores: {operations} operations, {mib} MiB"))
        }
    }
    on_disk(&Many, line)
}

/// Rings in one another, so that all are there while each has its turn.
fn nested<S: Storage>(
    disk: &S,
    all: &Load,
    way: Way,
    rings: core::ops::Range<usize>,
) -> Result<Done, Text> {
    let Some(ring) = rings.clone().next() else { return Ok(Done::default()) };
    let room = (all.depth * all.region) as u64;
    let load = Load { start: ring as u64 * room, seed: ring as u64, ..*all };
    let mut workers = Workers::new(load)?;
    let mut scratch = Scratch::new()?;
    let depth = load.depth as u32;
    let (done, ()) = Setup::new(depth).run(
        |backend| S::line(backend, ring),
        || disk.backend(ring, depth, way, &mut scratch),
        |app| {
            let inner = nested(disk, all, way, ring + 1..rings.end)?;
            // SAFETY: the workers outlive the ring.
            let own = unsafe { workers.run(app)? };
            Ok(Done {
                operations: own.operations + inner.operations,
                bytes: own.bytes + inner.bytes,
            })
        },
        |_| (),
    )?;
    Ok(done)
}
