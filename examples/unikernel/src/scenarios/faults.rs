//! Media that fail, stall, or lose their power.

use annulus::errno::Errno;
use annulus::fault;
use annulus::hal::Clock as _;
use annulus::opcode;
use annulus::types::{Fd, Iovec};
use annulus_unikernel::epoch::{BLOCK, PLAN};
use annulus_unikernel::script::Line;

use super::{Outcome, number};
use crate::disks::{OnDisk, Scratch, Storage, Way, on_disk};
use crate::memory::Region;
use crate::place::MACHINE;
use crate::ring::{App, Setup};
use crate::text;
use crate::text::Text;

/// Requests at once.
pub const MANY: usize = 64;
/// Bytes of each.
const BYTES: usize = 4096;

/// Carries `MANY` requests of 4 KiB out at once, each on a place of its own
/// and in registered memory, until each has ended: their results.
pub fn all_at_once(
    app: &mut App<'_, '_>,
    fd: Fd,
    base: *mut u8,
    write: bool,
    results: &mut [i32; MANY],
) -> Result<(), Text> {
    for n in 0..MANY {
        let (at, offset) = (base.wrapping_add(n * BYTES), (n * BYTES) as u64);
        let entry = match write {
            true => opcode::WriteFixed::new(fd, at, BYTES as u32, 0).offset(offset).build(),
            false => opcode::ReadFixed::new(fd, at, BYTES as u32, 0).offset(offset).build(),
        };
        // SAFETY: the callers' memory outlives the ring.
        unsafe { app.push(&entry.user_data(n as u64))? };
    }
    let mut ended = [false; MANY];
    while ended.contains(&false) {
        app.submit_and_wait(1)?;
        for cqe in app.completions() {
            let n = cqe.user_data() as usize;
            match ended.get_mut(n) {
                Some(ended) if !*ended => *ended = true,
                _ => return Err(text!("request {n} ended twice, or never began")),
            }
            results[n] = cqe.result();
        }
    }
    Ok(())
}

/// How many results are so.
pub fn count(results: &[i32; MANY], wanted: i32) -> usize {
    results.iter().filter(|result| **result == wanted).count()
}

/// Memory for [`all_at_once`], registered.
pub fn register(app: &mut App<'_, '_>, memory: &mut Region) -> Result<*mut u8, Text> {
    let base = memory.as_mut_ptr();
    let iovec = Iovec { base: base.cast(), len: memory.len() };
    // SAFETY: the callers' memory outlives their rings.
    unsafe { app.register_buffers(&[iovec])? };
    Ok(base)
}

/// A block that cannot be read fails, and no other does: `sector=` of 512
/// bytes.
pub fn failing_medium(line: &Line<'_>) -> Outcome {
    struct Failing;
    impl OnDisk for Failing {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            let bad = number(line, "sector", 64)? as usize * 512 / BYTES;
            let fd = disk.info().fd;
            let mut memory = Region::new(MANY * BYTES)?;
            let mut scratch = Scratch::new()?;
            let way = Way::of(line)?;
            let mut results = [0; MANY];
            let ((), counts) = Setup::new(MANY as u32).run(
                |backend| S::line(backend, 0),
                || disk.backend(0, MANY as u32, way, &mut scratch),
                |app| {
                    let base = register(app, &mut memory)?;
                    all_at_once(app, fd, base, false, &mut results)
                },
                S::counts,
            )?;
            for (n, result) in results.iter().enumerate() {
                let right = if n == bad { *result < 0 } else { *result == BYTES as i32 };
                if !right {
                    return Err(text!("block {n}: {result}"));
                }
            }
            if counts.failed != 1 || counts.resets != 0 {
                return Err(text!("{} failures, {} resets", counts.failed, counts.resets));
            }
            Ok(text!("block {bad} answers {}", results[bad]))
        }
    }
    on_disk(&Failing, line)
}

/// A medium that stalls: requests are late, the device is reset, each ends
/// once, with -ETIMEDOUT or -EIO; then the disk can be read again. The medium
/// takes next to no writes; `timeout-ms=`.
pub fn stalled_medium(line: &Line<'_>) -> Outcome {
    struct Stalled;
    impl OnDisk for Stalled {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            let limit = number(line, "timeout-ms", 30_000)? * 1_000_000;
            let fd = disk.info().fd;
            let mut memory = Region::new(MANY * BYTES)?;
            let mut scratch = Scratch::new()?;
            let way = Way::of(line)?;
            let mut results = [0; MANY];
            let mut took = 0;
            let ((), counts) = Setup::new(MANY as u32).run(
                |backend| S::line(backend, 0),
                || disk.backend(0, MANY as u32, way, &mut scratch),
                |app| {
                    let base = register(app, &mut memory)?;
                    let start = MACHINE.now();
                    all_at_once(app, fd, base, true, &mut results)?;
                    took = MACHINE.now() - start;
                    let mut again = [0; MANY];
                    all_at_once(app, fd, base, false, &mut again)?;
                    match count(&again, BYTES as i32) {
                        MANY => Ok(()),
                        good => Err(text!("afterwards {good} of {MANY} reads are good")),
                    }
                },
                S::counts,
            )?;
            let late = count(&results, Errno::ETIMEDOUT.to_result());
            let cut = count(&results, Errno::EIO.to_result());
            let done = count(&results, BYTES as i32);
            let resets = disk.resets();
            if late == 0 || late + cut + done != MANY || resets == 0 || counts.resets == 0 {
                return Err(text!("{late} late, {cut} cut off, {done} done; {resets} resets"));
            }
            if took < limit * 9 / 10 || took > limit + 20_000_000_000 {
                return Err(text!("it took {} ms", took / 1_000_000));
            }
            if disk.leaked_pages() != 0 {
                return Err(text!("{} pages are lost", disk.leaked_pages()));
            }
            let ms = took / 1_000_000;
            Ok(text!("{late} late, {cut} cut off, {done} done after {ms} ms; {resets} resets"))
        }
    }
    on_disk(&Stalled, line)
}

/// The workload that the host replays up to each cut of the power.
pub fn power_cut(line: &Line<'_>) -> Outcome {
    struct PowerCut;
    impl OnDisk for PowerCut {
        fn run<S: Storage>(&self, disk: &S, line: &Line<'_>) -> Outcome {
            let info = disk.info();
            if !info.write_cache {
                return Err(text!("the disk has no volatile cache: there is nothing to see"));
            }
            let mut memory = Region::new((PLAN.count() + 1) * BLOCK)?;
            let mut scratch = Scratch::new()?;
            let way = Way::of(line)?;
            let depth = PLAN.count() as u32;
            Setup::new(depth).run(
                |backend| S::line(backend, 0),
                || disk.backend(0, depth, way, &mut scratch),
                |app| epochs(app, info.fd, &mut memory),
                |_| (),
            )?;
            Ok(text!("{} epochs of {} writes", PLAN.epochs, PLAN.writes))
        }
    }
    on_disk(&PowerCut, line)
}

fn epochs(app: &mut App<'_, '_>, fd: Fd, memory: &mut Region) -> Result<(), Text> {
    let mut blocks = [0; PLAN.writes as usize];
    let blocks = &mut blocks[..PLAN.count()];
    let base = memory.as_mut_ptr();
    let flush = opcode::Fsync::new(fd).build();
    let write = |n: usize, block: u64| {
        let at = base.wrapping_add(n * BLOCK);
        opcode::Write::new(fd, at, BLOCK as u32).offset(block * BLOCK as u64).build()
    };
    for epoch in 1..=PLAN.epochs {
        PLAN.choose(epoch, blocks);
        for (n, block) in blocks.iter().enumerate() {
            PLAN.fill(epoch, *block, &mut memory[n * BLOCK..][..BLOCK]);
            // SAFETY: the caller's memory outlives the ring.
            unsafe { app.push(&write(n, *block))? };
        }
        let mut left = blocks.len();
        while left != 0 {
            app.submit_and_wait(1)?;
            for cqe in app.completions() {
                if cqe.result() != BLOCK as i32 {
                    return Err(text!("a write of epoch {epoch}: {}", cqe.result()));
                }
                left -= 1;
            }
        }
        // SAFETY: it has no memory.
        flushed(unsafe { app.one(flush)? })?;
        // Not before the flush is complete: this is what it promises.
        let last = blocks.len();
        PLAN.fill(epoch, 0, &mut memory[last * BLOCK..][..BLOCK]);
        // SAFETY: as above.
        match unsafe { app.one(write(last, 0))? } {
            written if written == BLOCK as i32 => {}
            other => return Err(text!("block 0 of epoch {epoch}: {other}")),
        }
    }
    // SAFETY: as above.
    flushed(unsafe { app.one(flush)? })
}

fn flushed(result: i32) -> Result<(), Text> {
    if result == 0 { Ok(()) } else { Err(text!("a flush: {result}")) }
}

/// Switches a seeded fault on, in a build that has them: `fault=`.
pub fn seed(line: &Line<'_>) -> Result<(), Text> {
    let Some(name) = line.word("fault") else { return Ok(()) };
    let found = fault::Fault::from_name(name).ok_or_else(|| text!("there is no fault {name}"))?;
    select(found)
}

#[cfg(annulus_faults)]
fn select(found: fault::Fault) -> Result<(), Text> {
    fault::select(Some(found));
    Ok(())
}

#[cfg(not(annulus_faults))]
fn select(found: fault::Fault) -> Result<(), Text> {
    Err(text!("this build has no seeded faults, so not {}", found.name()))
}
