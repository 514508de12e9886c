//! What a ring has done, and a readable picture of what it is doing.

use crate::engine::Engine;
use crate::hal::{Backend, Host};
use crate::uapi;
use core::fmt;

/// Counters since the ring was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// SQEs taken, modulo 2^32.
    pub sqes: u32,
    /// CQEs posted, modulo 2^32.
    pub cqes: u32,
    /// SQEs refused before they began (a bad flag, opcode or field).
    pub refused: u64,
    /// Batches that ended for want of a request or of room in the backend.
    pub busy: u64,
    /// Times the reserved request was used.
    pub fallbacks: u64,
    /// CQEs that had to wait for room.
    pub overflows: u64,
    /// Completions refused because their token named no waiting request.
    pub stale: u32,
    /// Requests in use as the counters were asked for, the reserved one
    /// included: in flight, or with a CQE that waits for room.
    pub in_use: u32,
    /// Times the polling engine went to sleep.
    pub sleeps: u64,
    /// Requests that a worker took from the queue.
    pub handovers: u64,
    /// Requests that a worker went on with after the one before them.
    pub merged: u64,
    /// What a ring on a device has counted there; zeros on files.
    pub device: DeviceStats,
}

/// Counters of a ring's part of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceStats {
    /// Doorbell registers written.
    pub doorbells: u32,
    /// Requests whose data went through a bounce buffer.
    pub bounced: u32,
    /// Requests that had to wait for a place or for a bounce buffer.
    pub waited: u32,
    /// Commands that the device ended with an error.
    pub failed: u32,
    /// Commands that were aborted because they were late.
    pub aborts: u32,
    /// Resets that this ring asked for.
    pub resets: u32,
    /// Completions of no command in flight; without effect.
    pub stale: u32,
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// The counters as they stand.
    pub fn stats(&self) -> Stats {
        let (sqes, cqes) = self.totals();
        let stale = self.shared.slots.stale();
        let in_use = self.in_use();
        let mut stats = Stats { sqes, cqes, stale, in_use, ..self.counters() };
        self.backend().count(&mut stats);
        stats
    }

    /// Writes what the ring looks like, for the day that something hangs.
    ///
    /// # Errors
    /// Only `to`'s.
    pub fn dump(&self, to: &mut dyn fmt::Write) -> fmt::Result {
        self.shared.dump(to)?;
        let stats = self.stats();
        writeln!(to, "engine: {} pending, {:?}", self.pending(), self.config())?;
        writeln!(to, "        {stats:?}")?;
        self.dump_requests(to)
    }
}

impl<H: Host> crate::engine::Shared<'_, H> {
    /// The part of a dump that any thread may ask for, engine hung or not.
    pub fn dump(&self, to: &mut dyn fmt::Write) -> fmt::Result {
        use crate::sync::Ordering::Relaxed; // for the eye only
        let ring = &self.ring;
        writeln!(
            to,
            "sq: head {} tail {} of {}, dropped {}, flags{}",
            ring.sq_head.load(Relaxed),
            ring.sq_tail.load(Relaxed),
            ring.sqes.len(),
            ring.sq_dropped.load(Relaxed),
            SqFlags(ring.sq_flags.load(Relaxed)),
        )?;
        writeln!(
            to,
            "cq: head {} tail {} of {}, flags {:#x}",
            ring.cq_head.load(Relaxed),
            ring.cq_tail.load(Relaxed),
            ring.cqes.len(),
            ring.cq_flags.load(Relaxed),
        )?;
        writeln!(
            to,
            "waits: engine {}, application {}; returns {}, mail {}, stop {}, stopped {}",
            asleep(self.engine_wait.sleeping()),
            asleep(self.app_wait.sleeping()),
            if self.slots.any_returned() { "waiting" } else { "none" },
            if self.mailbox.waiting() { "waiting" } else { "none" },
            self.stop.load(Relaxed),
            self.stopped.load(Relaxed),
        )?;
        for index in 0..self.slots.len() {
            let (live, queued, generation) = self.slots.peek(index);
            if live || queued {
                let queued = if queued { ", its completion on the return list" } else { "" };
                writeln!(to, "slot {index}: generation {generation}, with the backend{queued}")?;
            }
        }
        Ok(())
    }
}

fn asleep(yes: bool) -> &'static str {
    if yes { "asleep" } else { "awake" }
}

/// The SQ's flag word by its bits' names.
struct SqFlags(u32);

impl fmt::Display for SqFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (uapi::IORING_SQ_NEED_WAKEUP, " NEED_WAKEUP"),
            (uapi::IORING_SQ_CQ_OVERFLOW, " CQ_OVERFLOW"),
            (uapi::IORING_SQ_TASKRUN, " TASKRUN"),
        ];
        if self.0 == 0 {
            return f.write_str(" none");
        }
        names
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .try_for_each(|(_, name)| f.write_str(name))
    }
}
