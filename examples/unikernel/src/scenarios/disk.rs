//! What every disk must do.

use annulus_unikernel::script::Line;

use super::{Outcome, number};
use crate::disks::{Counts, OnDisk, Scratch, Storage, Way, on_disk};
use crate::place::sleeps;
use crate::ring::Setup;
use crate::text;
use crate::text::Text;
use crate::traffic::{Done, Load, WORKERS, Workers};

/// What the disks of these scenarios have at least.
const BYTES: u64 = 8 << 20;

/// The disk is what it should be, and is driven as it should be: `block=`,
/// `queues=`, and `is=` what else, with commas.
pub fn is(line: &Line<'_>) -> Outcome {
    struct Is;
    impl OnDisk for Is {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            let info = disk.info();
            let words = line.word("is").unwrap_or("").split(',');
            for word in words.filter(|word| !word.is_empty()) {
                let has = match word {
                    "read-only" => Some(info.read_only),
                    "cached" => Some(info.write_cache),
                    word => match word.strip_prefix("block-") {
                        Some(block) => block.parse().ok().map(|block: u32| block == info.block),
                        None => disk.has(word),
                    },
                };
                match has {
                    Some(true) => {}
                    Some(false) => return Err(text!("it is not {word} but {}", disk.describe())),
                    None => return Err(text!("no disk is {word}")),
                }
            }
            let wanted = number(line, "queues", info.queues.into())?;
            if u64::from(info.queues) != wanted {
                return Err(text!("it has {} queues, not {wanted}", info.queues));
            }
            let described = disk.describe();
            Ok(text!("{described}: {} MiB in blocks of {}", info.bytes >> 20, info.block))
        }
    }
    on_disk(&Is, line)
}

/// A load on a disk that is large enough for it.
pub fn load<S: Storage>(disk: &S, line: &Line<'_>, depth: usize, seed: u64) -> Result<Load, Text> {
    let info = disk.info();
    if info.bytes < BYTES {
        return Err(text!("the disk has {} bytes only", info.bytes));
    }
    let region = (BYTES as usize / depth).min(256 << 10);
    let longest = region.min(192 << 10);
    let ns = number(line, "ms", 150)? * 1_000_000;
    let block = info.block as usize;
    Ok(Load { fd: info.fd, block, start: 0, region, depth, longest, ns, seed })
}

fn traffic<S: Storage>(
    disk: &S,
    load: Load,
    way: Way,
    setup: Setup,
    ring: usize,
) -> Result<(Done, Counts), Text> {
    let mut workers = Workers::new(load)?;
    let mut scratch = Scratch::new()?;
    setup.run(
        |backend| S::line(backend, ring),
        || disk.backend(ring, setup.depth, way, &mut scratch),
        // SAFETY: the workers outlive the ring.
        |app| unsafe { workers.run(app) },
        |backend| S::counts(backend),
    )
}

/// Mixed reads and writes, every byte checked, at one depth after the other:
/// `mode=` inline or sqpoll, `completions=`, `ms=` of each.
pub fn verified_io(line: &Line<'_>) -> Outcome {
    struct VerifiedIo;
    impl OnDisk for VerifiedIo {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            let way = Way::of(line)?;
            let sqpoll = match line.word("mode") {
                None | Some("inline") => false,
                Some("sqpoll") => true,
                Some(other) => return Err(text!("mode={other} is none")),
            };
            let slept = sleeps();
            let (mut all, mut notified) = (Done::default(), 0);
            for (seed, depth) in (1..).zip([1, 4, WORKERS]) {
                let load = load(disk, line, depth, seed)?;
                let setup = Setup::new(depth as u32).sqpoll(sqpoll);
                let done = traffic(disk, load, way, setup, 0);
                let (done, counts) = done.map_err(|why| text!("depth {depth}: {why}"))?;
                all.operations += done.operations;
                all.bytes += done.bytes;
                notified += counts.notifications;
                if counts.failed + counts.resets != 0 {
                    return Err(text!("{} failures, {} resets", counts.failed, counts.resets));
                }
            }
            let slept = sleeps() - slept;
            if way == Way::Interrupts && slept == 0 {
                return Err(text!("it never slept, though it waited for interrupts"));
            }
            let Done { operations, bytes } = all;
            Ok(text!(
                "{operations} operations, {} MiB; {notified} notifications, {slept} sleeps",
                bytes >> 20
            ))
        }
    }
    on_disk(&VerifiedIo, line)
}
