//! A ring's own virtqueue, as the backend of its engine.

use core::marker::PhantomData;
use core::ops::Deref;

use annulus::block::{Copies, NONE, Pace, Waiting};
use annulus::hal::device::{Coherent, PAGE};

use super::places::Places;
use super::queue::Ring;
use super::slots::Attached;
use super::spec::feature;
use super::tracker::Tracker;
use super::{Disk, DiskInfo, Error, Lie, Platform, Transport, Vectors};

/// No state of a disk: it would be one that is gone.
pub(super) const NO_QUEUE: u32 = u32::MAX;
/// Polls in vain after which an adaptive ring sleeps.
const SPINS: u32 = 256;
/// The most requests of a ring.
const MOST_SLOTS: usize = 1 << 15;

/// How a ring learns of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completions {
    /// By looking, without interrupts. A ring with
    /// [`Config::iopoll`](annulus::config::Config::iopoll) needs it.
    Polled,
    /// By interrupts.
    Interrupt,
    /// By looking while completions come, by interrupts otherwise.
    Adaptive,
}

/// How a ring's queue is to be used.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Requests outstanding at once; fewer if the queue has no room for as
    /// many.
    pub depth: u32,
    /// How completions are found.
    pub completions: Completions,
    /// The most pieces of memory in one request, if the device allows them,
    /// and without indirect descriptors if the queue has room for them at this
    /// depth. A request of more is carried out in parts.
    pub segments: u16,
    /// The most bytes of one request to the device. Larger ones are carried
    /// out in parts.
    pub max_transfer: u32,
    /// Bounce buffers, for memory that is not registered; at most 256.
    pub bounce_buffers: usize,
    /// Bytes of a bounce buffer: a multiple of 4,096. A larger request is
    /// carried out in parts.
    pub bounce_bytes: usize,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            depth: 128,
            completions: Completions::Polled,
            segments: 30,
            max_transfer: 1 << 20,
            bounce_buffers: 32,
            bounce_bytes: 64 << 10,
        }
    }
}

/// A request that the device ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The request type (`VIRTIO_BLK_T_*`).
    pub kind: u32,
    /// Its first sector of 512 bytes; 0 if it is not known any more.
    pub sector: u64,
    /// The status byte: 1 is an I/O error, 2 says that the request is not
    /// supported.
    pub status: u8,
}

/// What a backend has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendStats {
    /// How often the device lied.
    pub lies: u32,
    /// The last lie.
    pub last_lie: Option<Lie>,
    /// Requests that had to wait for a place or for a bounce buffer.
    pub waited: u32,
    /// Requests whose data went through a bounce buffer.
    pub bounced: u32,
    /// Requests that the device ended with an error.
    pub failed: u32,
    /// The last failure.
    pub last_failure: Option<Failure>,
    /// Resets that this ring asked for.
    pub resets: u32,
    /// Notifications: in a virtual machine each leaves the guest.
    pub notifications: u32,
}

/// Requests carried out by a virtio disk.
///
/// There is one file: number 0, the disk.
pub struct DiskBackend<'m, P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> {
    // What every request touches comes first.
    pub(super) trackers: &'m mut [Tracker<P::Buffer>],
    pub(super) ring: Ring,
    pub(super) disk: D,
    /// What the device reaches of each place: `stride` bytes.
    pub(super) places: Coherent,
    pub(super) stride: usize,
    /// Bytes, and the block less one.
    pub(super) bytes: u64,
    pub(super) block_mask: u64,
    /// The disk's state while this ring has a queue there, else [`NO_QUEUE`]:
    /// one comparison says that all is well.
    pub(super) armed: u32,
    /// The same while nobody waits, else [`NO_QUEUE`]: what comes anew may be
    /// issued at once.
    pub(super) gate: u32,
    pub(super) in_flight: u32,
    /// The most bytes of one piece.
    pub(super) piece: u32,
    /// The largest part in bytes.
    pub(super) max_part: u32,
    /// The first free place.
    pub(super) free: u16,
    /// The most pieces of data in a request.
    pub(super) pieces: u16,
    pub(super) indirect: bool,
    /// Without: descriptors of a place, its logarithm.
    pub(super) shift: u32,
    pub(super) read_only: bool,
    /// The device was asked for an interrupt, and none was needed since.
    pub(super) asked: bool,
    /// Polls in vain after which an interrupt is asked for.
    pub(super) spins: u32,
    pub(super) idle: u32,
    pub(super) pace: Pace,
    /// The incarnation, and the configuration, that this ring knows.
    pub(super) seen: u32,
    pub(super) changes: u32,
    /// Where the queue is notified, and its number.
    pub(super) at: usize,
    pub(super) queue: u16,
    pub(super) most: u32,
    pub(super) info: DiskInfo,
    pub(super) waiting: Waiting,
    /// Requests that have ended without a completion. The next poll tells of
    /// them.
    pub(super) ended: Waiting,
    pub(super) copies: Copies<'m>,
    pub(super) cancelled: bool,
    pub(super) stats: BackendStats,
    types: PhantomData<(P, T)>,
}

impl<'m, P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> DiskBackend<'m, P, T, D> {
    /// A queue of its own on `disk`, for a ring of as many requests as there
    /// are `trackers`, less one for the reserve. `vectors`: room for the READVs
    /// and WRITEVs in flight.
    ///
    /// # Errors
    /// A wrong argument, no queue left, no memory.
    pub fn new(
        disk: D,
        options: &QueueOptions,
        trackers: &'m mut [Tracker<P::Buffer>],
        vectors: &'m mut [Vectors],
    ) -> Result<Self, Error> {
        if trackers.len() > MOST_SLOTS || trackers.is_empty() {
            return Err(Error::Argument("a ring on a disk has from 1 to 32,767 requests"));
        }
        if options.depth == 0 || options.segments == 0 {
            return Err(Error::Argument("a queue has a depth and segments above 0"));
        }
        if options.bounce_bytes == 0 || !options.bounce_bytes.is_multiple_of(PAGE) {
            return Err(Error::Argument("bounce buffers are multiples of 4,096 bytes"));
        }
        let Attached { queue, ring, size, at, state, info } = disk.attach()?;
        // Until there is a backend, whose drop does it.
        let give_back = |ring, error| {
            disk.detach(queue, ring, state);
            Err(error)
        };
        let indirect = disk.features() & feature::INDIRECT_DESC != 0;
        let Some(plan) = Places::of(options, &info, size, indirect, trackers.len()) else {
            let why = "it has no room for a request of one block: a larger queue, or indirect descriptors, may help";
            return give_back(ring, Error::Queue { queue, why });
        };
        let block = u64::from(info.block);
        let max_part = u64::from(options.max_transfer) & !(block - 1);
        if max_part == 0 || (options.bounce_bytes as u64) < block {
            let why = "a transfer and a bounce buffer hold one block of the disk at least";
            return give_back(ring, Error::Argument(why));
        }
        let platform = disk.platform();
        let places = match platform.alloc(plan.most as usize * plan.stride) {
            Ok(places) => places,
            Err(errno) => return give_back(ring, Error::Memory { what: "the requests", errno }),
        };
        let (count, bytes) = (options.bounce_buffers, options.bounce_bytes);
        let copies = match Copies::new(platform, count, bytes, vectors) {
            Ok(copies) => copies,
            Err(errno) => {
                // SAFETY: from this platform, and not used yet.
                unsafe { platform.free(places) };
                return give_back(ring, Error::Memory { what: "the bounce buffers", errno });
            }
        };
        for tracker in trackers.iter_mut() {
            *tracker = Tracker::new();
        }
        for (next, tracker) in (1..).zip(&mut trackers[..plan.most as usize]) {
            tracker.hot.next = if u32::from(next) < plan.most { next } else { NONE };
        }
        let mut backend = Self {
            trackers,
            ring,
            changes: disk.changes(),
            disk,
            places,
            stride: plan.stride,
            bytes: info.bytes,
            block_mask: block - 1,
            armed: state,
            gate: NO_QUEUE,
            in_flight: 0,
            piece: info.segment_bytes,
            max_part: max_part as u32,
            free: 0,
            pieces: plan.pieces,
            indirect,
            shift: plan.shift,
            read_only: info.read_only,
            asked: false,
            spins: match options.completions {
                Completions::Polled => u32::MAX,
                Completions::Interrupt => 1,
                Completions::Adaptive => SPINS,
            },
            idle: 0,
            pace: Pace::new(),
            seen: state,
            at,
            queue,
            most: plan.most,
            info,
            waiting: Waiting::new(),
            ended: Waiting::new(),
            copies,
            cancelled: false,
            stats: BackendStats::default(),
            types: PhantomData,
        };
        backend.set_gate();
        Ok(backend)
    }

    /// The disk.
    pub fn disk(&self) -> &Disk<P, T> {
        &self.disk
    }

    /// What was counted.
    pub fn stats(&self) -> &BackendStats {
        &self.stats
    }

    /// Requests that can be outstanding.
    pub fn depth(&self) -> u32 {
        self.most
    }

    /// The most pieces of memory in one request to the device.
    pub fn segments(&self) -> u16 {
        self.pieces
    }

    /// The number of its queue.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// After a change of `armed` or of who waits.
    pub(super) fn set_gate(&mut self) {
        self.gate = if self.waiting.is_empty() { self.armed } else { NO_QUEUE };
    }

    /// Whether requests can be issued: the ring has a queue in the incarnation
    /// of the device that runs.
    ///
    /// Another thread may reset the device right after it was asked. Then a
    /// chain goes to memory that the device does not look at any more, and is
    /// ended as all others of that incarnation; a notification too many does
    /// no harm.
    #[inline(always)]
    pub(super) fn live(&self) -> bool {
        self.disk.state() == self.armed
    }

    pub(super) fn polled(&self) -> bool {
        self.spins == u32::MAX
    }

    /// Whether [`poll`](annulus::hal::Backend::poll) would find something,
    /// looked at from where interrupts wake.
    pub(super) fn has_news(&self) -> bool {
        self.ring.any()
            || self.disk.state() != self.seen
            || self.cancelled && !self.waiting.is_empty()
            || !self.ended.is_empty()
    }

    /// Takes the queue of a new incarnation.
    pub(super) fn take_queue(&mut self, attached: Attached) {
        self.ring = attached.ring;
        self.at = attached.at;
        (self.seen, self.armed) = (attached.state, attached.state);
        self.asked = false;
        self.know(attached.info);
        self.set_gate();
    }

    /// The disk has said what it is now.
    pub(super) fn know(&mut self, info: DiskInfo) {
        self.bytes = info.bytes;
        self.info = info;
    }
}

impl<P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> core::fmt::Debug
    for DiskBackend<'_, P, T, D>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DiskBackend")
            .field("queue", &self.queue)
            .field("in_flight", &self.in_flight)
            .field("depth", &self.most)
            .field("waiting", &!self.waiting.is_empty())
            .field("live", &self.live())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl<P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> Drop for DiskBackend<'_, P, T, D> {
    fn drop(&mut self) {
        if self.in_flight != 0 && self.live() {
            // One queue of several cannot be stopped. Other rings get over it.
            self.disk.reset(self.seen);
        }
        let quiet = self.disk.is_quiet();
        let platform = self.disk.platform();
        let own = [Coherent { ..self.places }];
        for memory in own.into_iter().chain(self.copies.take_memory()) {
            if quiet {
                // SAFETY: from this platform; nothing of this ring is in
                // flight in the present incarnation, and the backend ends.
                unsafe { platform.free(memory) };
            } else {
                self.disk.leak(memory.len / PAGE);
            }
        }
        self.disk.detach(self.queue, self.ring.hand_over(), self.armed);
    }
}
