//! A round through a ring.
//!
//! This file is compiled three times, with `uring` once the `io-uring` crate (the kernel's rings),
//! once `annulus-linux` over files and once on an NVMe controller: the engines run the same source
//! text, so none is at an advantage, and it shows that a program moves from one to the other
//! without a change.

use super::uring::{IoUring, Submitter, opcode, squeue, types};
use crate::bench::engine::Load;
use crate::bench::pace::Pace;
use crate::bench::work::{Io, Work};
use crate::error::{Failure, failed};
use crate::stop;

/// Marks a timed operation in its user data; below it is the slot.
const TIMED: u64 = 1 << 63;

/// How often an empty completion queue is looked at under SQPOLL before the thread goes to sleep.
const SPINS: u32 = 20_000;

/// Fruitless submissions in a row before the ring is taken for broken.
const MOST_RETRIES: u32 = 1_000_000;

/// The index of the file and the buffers when they are registered.
const REGISTERED: u16 = 0;

/// What a round does with its completions and where its entries come from.
trait Job {
    /// The next entry and its slot; None as for [`Work::start`].
    fn start(&mut self) -> Option<(usize, squeue::Entry)>;
    /// An operation ended.
    fn done(&mut self, slot: usize, result: i32);
}

/// Operations that do nothing.
struct Nops {
    next: usize,
    mask: usize,
    errors: u64,
}

impl Job for Nops {
    #[inline(always)]
    fn start(&mut self) -> Option<(usize, squeue::Entry)> {
        // No slot needs to be reserved: at most `depth` are in flight and the number only finds the
        // starting time again.
        self.next = self.next.wrapping_add(1);
        Some((self.next & self.mask, opcode::Nop::new().build()))
    }

    #[inline(always)]
    fn done(&mut self, _slot: usize, result: i32) {
        // A branch that is never taken costs less than an addition to memory.
        if result != 0 {
            self.errors += 1;
        }
    }
}

/// Reads and writes of a file.
struct Blocks<'a, const REGISTERED_TOO: bool> {
    work: &'a mut Work,
}

impl<const REGISTERED_TOO: bool> Job for Blocks<'_, REGISTERED_TOO> {
    #[inline(always)]
    fn start(&mut self) -> Option<(usize, squeue::Entry)> {
        let (slot, Io { offset, write }) = self.work.start()?;
        let buffer = self.work.buffers.slot(slot);
        let len = self.work.buffers.block() as u32;
        let entry = match (REGISTERED_TOO, write) {
            (false, false) => {
                opcode::Read::new(types::Fd(self.work.fd), buffer, len).offset(offset).build()
            }
            (false, true) => {
                opcode::Write::new(types::Fd(self.work.fd), buffer, len).offset(offset).build()
            }
            (true, false) => {
                let file = types::Fixed(u32::from(REGISTERED));
                opcode::ReadFixed::new(file, buffer, len, REGISTERED).offset(offset).build()
            }
            (true, true) => {
                let file = types::Fixed(u32::from(REGISTERED));
                opcode::WriteFixed::new(file, buffer, len, REGISTERED).offset(offset).build()
            }
        };
        Some((slot, entry))
    }

    #[inline(always)]
    fn done(&mut self, slot: usize, result: i32) {
        self.work.done(slot, result);
    }
}

/// Registers the file and the buffers of `work`.
///
/// # Errors
/// The ring's, for the buffers with `why`, and with what to do about the usual one: a
/// locked-memory limit.
pub fn register(
    ring: &IoUring,
    work: &Work,
    why: impl FnOnce(&std::io::Error) -> String,
) -> Result<(), Failure> {
    ring.submitter()
        .register_files(&[work.fd])
        .map_err(|error| failed!("--registered: cannot register the file: {error}"))?;
    // SAFETY: `Work` keeps its buffers where they are, and every engine is dropped before it.
    unsafe { ring.submitter().register_buffers(&[work.buffers.iovec()]) }.map_err(|error| {
        let why = why(&error);
        failed!(
            "--registered: cannot register the buffers: {why}; a smaller --depth or --bs, \
        or a higher `ulimit -l`, may help"
        )
    })
}

/// Runs a round; returns how many operations completed. Errors of operations are counted in `load`.
///
/// # Errors
/// Only those of the ring itself.
pub fn run(
    ring: &mut IoUring,
    load: &mut Load<'_>,
    pace: &mut Pace,
    registered: bool,
) -> Result<u64, Failure> {
    let [depth, batch, gather] = [load.depth, load.batch, load.wait].map(|n| n as usize);
    let shape = Shape { depth, batch, gather };
    match &mut load.work {
        Some(work) if registered => drive(ring, &mut Blocks::<true> { work }, pace, shape),
        Some(work) => drive(ring, &mut Blocks::<false> { work }, pace, shape),
        None => {
            let mut nops = Nops { next: 0, mask: depth.next_power_of_two() - 1, errors: 0 };
            let ops = drive(ring, &mut nops, pace, shape)?;
            load.nop_errors += nops.errors;
            Ok(ops)
        }
    }
}

/// How much at once.
#[derive(Clone, Copy)]
struct Shape {
    /// Operations in flight at most.
    depth: usize,
    /// Operations a submission at most.
    batch: usize,
    /// Completions to wait for.
    gather: usize,
}

fn drive<J: Job>(
    ring: &mut IoUring,
    job: &mut J,
    pace: &mut Pace,
    Shape { depth, batch, gather }: Shape,
) -> Result<u64, Failure> {
    let polled = ring.params().is_setup_sqpoll();
    let (submitter, mut sq, mut cq) = ring.split();
    let (mut in_flight, mut ops, mut retries) = (0, 0, 0);
    let mut over = false;
    loop {
        // Sees what the other side has taken. A polling thread says so after it has posted
        // completions, so for a moment there may be less room than there are operations to start.
        sq.sync();
        let space = sq.capacity() - sq.len();
        let room = if over { 0 } else { batch.min(depth - in_flight).min(space) };
        let mut pushed = 0;
        let mut timed = pace.due_in();
        while pushed < room {
            let Some((slot, entry)) = job.start() else { break };
            let mut user_data = slot as u64;
            if pushed == timed {
                user_data |= TIMED;
                timed += pace.begin(slot);
            }
            // SAFETY: the slot's buffer and the file stay until the completion: this function does
            // not return with anything in flight, but for a ring that failed, and then `Work`
            // outlives the ring.
            let push = unsafe { sq.push(&entry.user_data(user_data)) };
            push.map_err(|_| failed!("the submission queue is full, but said that it had room"))?;
            pushed += 1;
        }
        pace.set_due_in(timed - pushed);
        in_flight += pushed;
        if in_flight == 0 {
            if over || space > 0 {
                return Ok(ops);
            }
            std::hint::spin_loop();
            continue;
        }
        sq.sync();
        // Wait when nothing more could start; else take what is there and go on.
        let wait = pushed == 0 || in_flight == depth;
        let want = if wait { gather.min(in_flight) } else { 0 };
        submit(&submitter, want, polled, || {
            cq.sync();
            cq.len() >= want
        })?;
        cq.sync();
        let mut reaped = 0;
        for cqe in &mut cq {
            let user_data = cqe.user_data();
            let slot = (user_data & !TIMED) as usize;
            if user_data & TIMED != 0 {
                over |= pace.completed(slot);
            }
            job.done(slot, cqe.result());
            reaped += 1;
        }
        cq.sync();
        in_flight -= reaped;
        ops += reaped as u64;
        retries = if reaped == 0 && wait { retries + 1 } else { 0 };
        if retries > 0 {
            // An interrupted wait, or the ring is busy: slow I/O is waited for, a ring that never
            // moves is not.
            over |= stop::asked();
            if retries == MOST_RETRIES {
                return Err(failed!(
                    "the ring makes no progress with {in_flight} operations in flight"
                ));
            }
        }
    }
}

#[inline(always)]
fn submit(
    submitter: &Submitter<'_>,
    want: usize,
    polled: bool,
    mut arrived: impl FnMut() -> bool,
) -> Result<(), Failure> {
    if polled && want != 0 {
        // A poller's other half polls as well, for a while: this is what SQPOLL is for.
        accept(submitter.submit())?;
        for _ in 0..SPINS {
            if arrived() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
    }
    accept(submitter.submit_and_wait(want))
}

#[inline(always)]
fn accept(result: std::io::Result<usize>) -> Result<(), Failure> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => refused(error),
    }
}

#[cold]
fn refused(error: std::io::Error) -> Result<(), Failure> {
    match error.raw_os_error() {
        // Not done, but nothing is lost: reap and come again.
        Some(libc::EBUSY | libc::EAGAIN | libc::EINTR) => Ok(()),
        _ => Err(failed!("submitting to the ring: {error}")),
    }
}
