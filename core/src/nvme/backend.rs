//! A ring's own queue pair, as the backend of its engine.

use core::marker::PhantomData;
use core::ops::Deref;

use super::identify::{NamespaceInfo, SglAlignment};
use super::memory::alloc_all;
use super::prp;
use super::queue::{Reaped, Submissions};
use super::spec::{Command, admin};
use super::tracker::{MAX_SLOTS, Tracker};
use super::{Controller, Error, Platform, RecentError, Vectors};
use crate::block::{Copies, Pace, Waiting};
use crate::hal::device::{Coherent, PAGE};

/// For creating and deleting queues.
const QUEUE_TIMEOUT_NS: u64 = 5_000_000_000;
/// No state of a controller: it would be one that is gone.
pub(super) const NO_PAIR: u32 = u32::MAX;

const DELETE_CQ: &str = "delete a completion queue";

fn delete(opcode: u8, qid: u16) -> Command {
    Command { opcode, dword10: u32::from(qid), ..Command::default() }
}

/// How a ring learns of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completions {
    /// By looking, without interrupts. A ring with
    /// [`Config::iopoll`](crate::config::Config::iopoll) needs it.
    Polled,
    /// By interrupts on this vector.
    Interrupt(u16),
    /// By looking while completions come, by interrupts on this vector
    /// otherwise.
    Adaptive(u16),
}

/// How a ring's queue pair is to be.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Commands outstanding at once, at most 4,096; made a power of two less
    /// one, and less if the controller has smaller queues.
    pub depth: u32,
    /// How completions are found.
    pub completions: Completions,
    /// Bounce buffers, for memory that is not registered; at most 256.
    pub bounce_buffers: usize,
    /// Bytes of a bounce buffer: a multiple of 4,096. A larger request is
    /// carried out in parts.
    pub bounce_bytes: usize,
    /// The most bytes of one command, if the controller allows them: a
    /// multiple of 4,096. Larger requests are carried out in parts.
    pub max_transfer: u32,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            depth: 127,
            completions: Completions::Polled,
            bounce_buffers: 32,
            bounce_bytes: 64 << 10,
            max_transfer: 1 << 20,
        }
    }
}

/// What a backend has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendStats {
    /// Completions whose identifier named no command in flight: late,
    /// repeated or invented. They had no effect.
    pub stale: u32,
    /// Requests that had to wait for a place or for a bounce buffer.
    pub waited: u32,
    /// Requests whose data went through a bounce buffer.
    pub bounced: u32,
    /// Commands that the controller ended with an error.
    pub failed: u32,
    /// Commands that were aborted because they were late.
    pub aborts: u32,
    /// Resets that this ring asked for.
    pub resets: u32,
    /// Doorbell registers written.
    pub doorbells: u32,
    /// The last failure.
    pub last_failure: Option<RecentError>,
}

/// A queue pair's memory and number.
#[derive(Debug)]
pub(super) struct Pair {
    pub qid: u16,
    pub sq: Submissions,
    pub cq: Reaped,
}

/// Requests carried out by an NVMe controller.
///
/// Files are namespaces: a file number is a namespace id.
pub struct NvmeBackend<'m, P: Platform, C: Deref<Target = Controller<P>>> {
    // What every command touches comes first.
    pub(super) trackers: &'m mut [Tracker<P::Buffer>],
    pub(super) pair: Pair,
    pub(super) controller: C,
    pub(super) in_flight: u32,
    pub(super) most: u32,
    /// The largest part in bytes.
    pub(super) max_part: u32,
    /// The controller's state while this ring has a queue pair there, else
    /// [`NO_PAIR`]: one comparison says that all is well.
    pub(super) armed: u32,
    /// The same while nobody waits, else [`NO_PAIR`]: what comes anew may be
    /// issued at once.
    pub(super) gate: u32,
    /// The incarnation that this ring knows.
    pub(super) seen: u32,
    pub(super) pace: Pace,
    pub(super) idle: u32,
    pub(super) completions: Completions,
    pub(super) waiting: Waiting,
    /// Requests that have ended without a completion. The next poll tells of
    /// them.
    pub(super) ended: Waiting,
    pub(super) lists: Coherent,
    pub(super) list_pages: usize,
    pub(super) sgl: Option<SglAlignment>,
    pub(super) max_zeroes: u64,
    pub(super) copies: Copies<'m>,
    pub(super) tries: u8,
    /// This incarnation of the controller has no queue pair for this ring.
    pub(super) lost: bool,
    pub(super) cancelled: bool,
    /// Namespaces met by their numbers, newest first.
    pub(super) known: [Option<NamespaceInfo>; 4],
    /// Changes of namespaces that they are as of.
    pub(super) changes: u32,
    pub(super) stats: BackendStats,
    platform: PhantomData<P>,
}

impl<'m, P: Platform, C: Deref<Target = Controller<P>>> NvmeBackend<'m, P, C> {
    /// A queue pair of its own on `controller`, for a ring of as many requests
    /// as there are `trackers`, less one for the reserve. `vectors`: room for
    /// the READVs and WRITEVs in flight.
    ///
    /// # Errors
    /// A wrong argument, no queue pair left, no memory, or the controller's.
    pub fn new(
        controller: C,
        options: &QueueOptions,
        trackers: &'m mut [Tracker<P::Buffer>],
        vectors: &'m mut [Vectors],
    ) -> Result<Self, Error> {
        if trackers.len() > MAX_SLOTS || trackers.is_empty() {
            return Err(Error::Argument("an NVMe ring has from 1 to 4,095 requests"));
        }
        if options.depth == 0 || options.depth as usize > MAX_SLOTS {
            return Err(Error::Argument("a queue has a depth from 1 to 4,096"));
        }
        let whole = |bytes: usize| bytes != 0 && bytes.is_multiple_of(PAGE);
        if !whole(options.bounce_bytes) || !whole(options.max_transfer as usize) {
            return Err(Error::Argument(
                "transfers and bounce buffers are multiples of 4,096 bytes",
            ));
        }
        let (info, limits) = (controller.info(), controller.limits());
        let limit = info.max_transfer.unwrap_or(u64::MAX);
        // No more blocks than a command can name, of the largest.
        let max_part =
            u64::from(options.max_transfer).min(limit).min(super::issue::MAX_BLOCKS << 12) as u32;
        let list_pages = prp::list_pages(max_part as usize);
        // One entry stays empty, so that full and empty differ.
        let room = limits.queue_entries.min(4096);
        let entries = (options.depth + 1).next_power_of_two().min(1 << room.ilog2());
        let sgl = if controller.options().sgl { info.sgl } else { None };
        let max_zeroes = limit;

        let most = controller.most_pairs();
        let pairs = limits.pairs;
        let qid = controller
            .with_admin(|_, admin| admin.ids.take(most))
            .ok_or(Error::NoQueue { pairs })?;
        let platform = controller.platform();
        // Twice as many, if it may be, so that completions need not be given back
        // after each batch.
        let answers = (2 * entries).min(1 << limits.queue_entries.ilog2());
        let answer_bytes = answers as usize * 16;
        let lens = [entries as usize * 64, answer_bytes, trackers.len() * list_pages * PAGE];
        let memory = alloc_all(platform, lens).and_then(|own| {
            match Copies::new(platform, options.bounce_buffers, options.bounce_bytes, vectors) {
                Ok(copies) => Ok((own, copies)),
                Err(errno) => {
                    for memory in own {
                        // SAFETY: from this platform, and not used yet.
                        unsafe { platform.free(memory) };
                    }
                    Err(errno)
                }
            }
        });
        let ([sq, cq, lists], copies) = match memory {
            Ok(memory) => memory,
            Err(errno) => {
                controller.with_admin(|_, admin| admin.ids.put(qid));
                return Err(Error::Memory(errno));
            }
        };
        let pair = Pair {
            qid,
            sq: Submissions::new(sq, entries, controller.doorbell(qid, false)),
            cq: Reaped::new(cq, answers, entries - 1, controller.doorbell(qid, true)),
        };
        let seen = controller.state();
        for (index, tracker) in (0..).zip(trackers.iter_mut()) {
            // The slot's part of its commands' identifiers.
            *tracker = Tracker::of(index);
        }
        let mut backend = Self {
            trackers,
            pair,
            controller,
            in_flight: 0,
            most: entries - 1,
            max_part,
            seen,
            armed: NO_PAIR,
            gate: NO_PAIR,
            pace: Pace::new(),
            idle: 0,
            completions: options.completions,
            waiting: Waiting::new(),
            ended: Waiting::new(),
            lists,
            list_pages,
            sgl,
            max_zeroes,
            copies,
            tries: 0,
            lost: false,
            cancelled: false,
            known: [None; 4],
            changes: 0,
            stats: BackendStats::default(),
            platform: PhantomData,
        };
        // What fails here is cleaned up by the drop.
        backend.create_pair()?;
        Ok(backend)
    }

    /// The controller.
    pub fn controller(&self) -> &Controller<P> {
        &self.controller
    }

    /// What was counted.
    pub fn stats(&self) -> &BackendStats {
        &self.stats
    }

    /// Commands that can be outstanding.
    pub fn depth(&self) -> u32 {
        self.most
    }

    /// After a change of `armed` or of who waits.
    pub(super) fn set_gate(&mut self) {
        self.gate = if self.waiting.is_empty() { self.armed } else { NO_PAIR };
    }

    /// Whether commands can be issued: the ring has a queue pair in the
    /// incarnation of the controller that runs.
    ///
    /// Another thread may reset the controller right after it was asked. Then
    /// a doorbell is rung of a queue that is no more, which a controller takes
    /// no harm from (it may tell of it by an event); the commands end as all
    /// others of that incarnation.
    #[inline(always)]
    pub(super) fn live(&self) -> bool {
        self.controller.state() == self.armed
    }

    /// Whether [`poll`](crate::hal::Backend::poll) would find something, looked at from
    /// where interrupts wake.
    pub(super) fn has_news(&self) -> bool {
        self.pair.cq.any()
            || self.controller.state() != self.seen
            || self.cancelled && !self.waiting.is_empty()
            || !self.ended.is_empty()
    }

    pub(super) fn polled(&self) -> bool {
        self.completions == Completions::Polled
    }

    /// Creates the queue pair on a controller that has none of this number.
    /// Nothing is in flight.
    pub(super) fn create_pair(&mut self) -> Result<(), Error> {
        let qid = self.pair.qid;
        self.pair.sq.reset(self.controller.doorbell(qid, false));
        self.pair.cq.reset(self.controller.doorbell(qid, true));
        let size = |entries: u32| u32::from(qid) | (entries - 1) << 16;
        // Physically contiguous; interrupts enabled on a vector, or not.
        let interrupt = match self.completions {
            Completions::Polled => 0,
            Completions::Interrupt(vector) | Completions::Adaptive(vector) => {
                1 << 1 | u32::from(vector) << 16
            }
        };
        let completion = Command {
            opcode: admin::CREATE_CQ,
            data1: self.pair.cq.device(),
            dword10: size(self.pair.cq.entries()),
            dword11: 1 | interrupt,
            ..Command::default()
        };
        let submission = Command {
            opcode: admin::CREATE_SQ,
            data1: self.pair.sq.device(),
            dword10: size(self.pair.sq.entries()),
            dword11: 1 | u32::from(qid) << 16,
            ..Command::default()
        };
        let delete = delete(admin::DELETE_CQ, qid);
        let mut half = None;
        let created = self.controller.command(|platform, admin, state| {
            let limit = QUEUE_TIMEOUT_NS;
            if qid > admin.pairs {
                // Fewer than before a reset.
                return Err(Error::NoQueue { pairs: admin.pairs });
            }
            admin.run(platform, "create a completion queue", &completion, limit)?;
            match admin.run(platform, "create a submission queue", &submission, limit) {
                Err(error @ Error::Command { .. }) => {
                    // Half a pair would keep its number and its memory.
                    let undone = admin.run(platform, DELETE_CQ, &delete, limit);
                    half = undone.is_err().then_some(state);
                    Err(error)
                }
                result => result.map(|_| state),
            }
        });
        if let Some(state) = half {
            self.controller.reset(state);
        }
        let state = created?;
        (self.seen, self.armed) = (state, state);
        self.set_gate();
        Ok(())
    }

    /// Deletes the queue pair, submission queue first. True if the device
    /// does not use its memory any more.
    fn delete_pair(&mut self) -> bool {
        let (armed, qid) = (self.armed, self.pair.qid);
        let deleted = self.controller.command(|platform, admin, state| {
            if state != armed {
                // Gone with its incarnation.
                return Ok(());
            }
            let (sq, cq) = (delete(admin::DELETE_SQ, qid), delete(admin::DELETE_CQ, qid));
            let limit = QUEUE_TIMEOUT_NS;
            admin.run(platform, "delete a submission queue", &sq, limit)?;
            admin.run(platform, DELETE_CQ, &cq, limit).map(drop)
        });
        if deleted.is_err() {
            // Then by force. Other rings get over it.
            self.controller.reset(armed);
        }
        self.controller.is_quiet()
    }
}

impl<P: Platform, C: Deref<Target = Controller<P>>> core::fmt::Debug for NvmeBackend<'_, P, C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NvmeBackend")
            .field("queue", &self.pair.qid)
            .field("in_flight", &self.in_flight)
            .field("depth", &self.most)
            .field("waiting", &!self.waiting.is_empty())
            .field("live", &self.live())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl<P: Platform, C: Deref<Target = Controller<P>>> Drop for NvmeBackend<'_, P, C> {
    fn drop(&mut self) {
        // A pair that the controller does not have is not deleted.
        let quiet = match self.armed {
            NO_PAIR => self.controller.is_quiet(),
            _ => self.delete_pair(),
        };
        let platform = self.controller.platform();
        let own = [self.pair.sq.memory(), self.pair.cq.memory(), Coherent { ..self.lists }];
        for memory in own.into_iter().chain(self.copies.take_memory()) {
            if quiet {
                // SAFETY: from this platform; the device has no queue here
                // any more, and the backend ends.
                unsafe { platform.free(memory) };
            } else {
                self.controller.leak(memory.len / PAGE);
            }
        }
        let qid = self.pair.qid;
        if quiet {
            self.controller.with_admin(|_, admin| admin.ids.put(qid));
        }
    }
}
