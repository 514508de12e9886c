//! 4 KiB random reads of one disk, by turns: our rings, and the crate
//! `virtio-drivers`.

use annulus::hal::Clock as _;
use annulus::opcode;
use annulus_unikernel::epoch::Random;
use annulus_unikernel::script::Line;
use virtio_drivers::device::blk::{BlkReq, BlkResp};

use super::faults::register;
use super::{Outcome, number};
use crate::disks::{OnDisk, Scratch, Storage, Way, on_disk, peer};
use crate::memory::Region;
use crate::place::MACHINE;
use crate::ring::Setup;
use crate::text::Text;
use crate::{arch, println, text};

const BYTES: usize = 4096;
/// Requests in flight.
const DEPTHS: [usize; 2] = [1, 32];
/// The most turns of each.
const TURNS: usize = 15;
/// What the disk has at least, in blocks of 4 KiB.
const BLOCKS: u64 = 4096;

/// Who is measured.
const WHO: [&str; 4] = [
    "Annulus, polled",
    "Annulus, SQPOLL on the second core",
    "virtio-drivers, not blocking, at most 5 at once",
    "virtio-drivers, blocking",
];

/// What a turn came to: reads a second, and notifications of 1,000 reads.
type Turn = (u64, u64);

/// The table, by `turns=` of `ms=` each.
pub fn bench(line: &Line<'_>) -> Outcome {
    let turns = (number(line, "turns", 5)? as usize).clamp(1, TURNS);
    let ns = number(line, "ms", 300)? * 1_000_000;
    let mut all = [[[(0, 0); TURNS]; WHO.len()]; DEPTHS.len()];
    for turn in 0..turns {
        for (depth, own) in DEPTHS.iter().zip(&mut all) {
            own[0][turn] = ours(line, *depth, ns, false)?;
            own[1][turn] = ours(line, *depth, ns, true)?;
            own[2][turn] = uninterrupted(|disk| theirs(disk, *depth, ns))?;
            if *depth == 1 {
                own[3][turn] = uninterrupted(|disk| blocking(disk, ns))?;
            }
        }
    }
    println!("| 4 KiB random reads | depth | reads/s | from | to | notifications/read |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (depth, own) in DEPTHS.iter().zip(&mut all) {
        for (who, figures) in WHO.iter().zip(own) {
            let figures = &mut figures[..turns];
            figures.sort_unstable();
            let ((least, _), (median, notified)) = (figures[0], figures[turns / 2]);
            let most = figures[turns - 1].0;
            if median != 0 {
                let (whole, part) = (notified / 1000, notified % 1000);
                println!("| {who} | {depth} | {median} | {least} | {most} | {whole}.{part:03} |");
            }
        }
    }
    Ok(text!("medians of {turns} turns of {} ms", ns / 1_000_000))
}

fn turn(reads: u64, notified: u64, passed: u64) -> Turn {
    (reads * 1_000_000_000 / passed.max(1), notified * 1000 / reads.max(1))
}

fn ours(line: &Line<'_>, depth: usize, ns: u64, sqpoll: bool) -> Result<Turn, Text> {
    use core::cell::Cell;
    struct Ours<'f> {
        depth: usize,
        ns: u64,
        sqpoll: bool,
        found: &'f Cell<Turn>,
    }
    impl OnDisk for Ours<'_> {
        fn run<S: Storage>(&self, disk: &S, _: &Line<'_>) -> Outcome {
            let (fd, depth) = (disk.info().fd, self.depth);
            let mut memory = Region::new(depth * BYTES)?;
            let mut scratch = Scratch::new()?;
            let (done, counts) = Setup::new(depth as u32).sqpoll(self.sqpoll).run(
                |backend| S::line(backend, 0),
                || disk.backend(0, depth as u32, Way::Polled, &mut scratch),
                |app| {
                    let base = register(app, &mut memory)?;
                    let mut random = Random(1);
                    let mut free = [0; 32];
                    let mut count = depth;
                    (0..depth).for_each(|n| free[n] = n);
                    let (mut reads, start) = (0, MACHINE.now());
                    let passed = loop {
                        while count != 0 {
                            count -= 1;
                            let n = free[count];
                            let at = base.wrapping_add(n * BYTES);
                            let entry = opcode::ReadFixed::new(fd, at, BYTES as u32, 0)
                                .offset(random.below(BLOCKS) * BYTES as u64)
                                .build()
                                .user_data(n as u64);
                            // SAFETY: the memory outlives the ring.
                            unsafe { app.push(&entry)? };
                        }
                        app.submit_and_wait(1)?;
                        for cqe in app.completions() {
                            if cqe.result() != BYTES as i32 {
                                return Err(text!("a read: {}", cqe.result()));
                            }
                            free[count] = cqe.user_data() as usize;
                            count += 1;
                            reads += 1;
                        }
                        let passed = MACHINE.now() - start;
                        if passed >= self.ns {
                            break passed;
                        }
                    };
                    Ok((reads, passed))
                },
                S::counts,
            )?;
            self.found.set(turn(done.0, counts.notifications.into(), done.1));
            Ok(text!(""))
        }
    }
    let found = Cell::new((0, 0));
    on_disk(&Ours { depth, ns, sqpoll, found: &found }, line)?;
    Ok(found.get())
}

/// Runs a turn of the other driver, which polls: it shall not pay for
/// interrupts that nobody waits for.
fn uninterrupted(run: impl FnOnce(&mut peer::Peer) -> Result<Turn, Text>) -> Result<Turn, Text> {
    let on = arch::interrupts_off();
    let found = peer::open().and_then(|mut disk| {
        let found = run(&mut disk);
        disk.ack_interrupt();
        found
    });
    if on {
        arch::interrupts_on();
    }
    found
}

/// As many at once as the driver's queue has room for: without an allocator it
/// has no indirect descriptors, and a read takes three of its 16.
fn theirs(disk: &mut peer::Peer, depth: usize, ns: u64) -> Result<Turn, Text> {
    const MOST: usize = 32;
    let failed = |e: virtio_drivers::Error| text!("virtio-drivers: {e}");
    let depth = depth.min(usize::from(disk.virt_queue_size()) / 3);
    let mut memory = Region::new(depth * BYTES)?;
    let mut requests: [BlkReq; MOST] = core::array::from_fn(|_| BlkReq::default());
    let mut answers: [BlkResp; MOST] = core::array::from_fn(|_| BlkResp::default());
    // Which request has this token.
    let mut owners = [0; MOST];
    let mut random = Random(1);
    let before = peer::notified();
    let (mut reads, mut busy, start) = (0, 0, MACHINE.now());
    let mut passed = 0;
    let mut next = 0;
    loop {
        // The first `depth`, then whichever has completed.
        let n = if next < depth {
            next += 1;
            next - 1
        } else {
            let Some(token) = disk.peek_used() else { continue };
            let n = owners[usize::from(token)];
            let data = &mut memory[n * BYTES..][..BYTES];
            // SAFETY: as it was begun.
            let read =
                unsafe { disk.complete_read_blocks(token, &requests[n], data, &mut answers[n]) };
            read.map_err(failed)?;
            (reads, busy) = (reads + 1, busy - 1);
            if passed == 0 {
                let now = MACHINE.now() - start;
                passed = if now >= ns { now } else { 0 };
            }
            n
        };
        if passed == 0 {
            let sector = random.below(BLOCKS) as usize * (BYTES / 512);
            let data = &mut memory[n * BYTES..][..BYTES];
            // SAFETY: all three stay where they are until it is complete.
            let token =
                unsafe { disk.read_blocks_nb(sector, &mut requests[n], data, &mut answers[n]) };
            owners[usize::from(token.map_err(failed)?)] = n;
            busy += 1;
        } else if busy == 0 {
            break;
        }
    }
    let notified = peer::notified() - before;
    Ok(turn(reads, notified.into(), passed))
}

fn blocking(disk: &mut peer::Peer, ns: u64) -> Result<Turn, Text> {
    let mut memory = Region::new(BYTES)?;
    let mut random = Random(1);
    let before = peer::notified();
    let (mut reads, start) = (0, MACHINE.now());
    loop {
        let sector = random.below(BLOCKS) as usize * (BYTES / 512);
        let read = disk.read_blocks(sector, &mut memory[..BYTES]);
        read.map_err(|e| text!("virtio-drivers: {e}"))?;
        reads += 1;
        let passed = MACHINE.now() - start;
        if passed >= ns {
            let notified = peer::notified() - before;
            return Ok(turn(reads, notified.into(), passed));
        }
    }
}
