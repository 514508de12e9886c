//! A disk: brought up, shared by rings, reset, shut down.

use annulus::hal::device::PAGE;
use annulus::sync::{AtomicU32, Mutex, Ordering};

use super::config::{self, DiskInfo};
use super::negotiate::{negotiate, reset, start};
use super::queue::Ring;
use super::slots::{Attached, Slot, make_queues, set_queues};
use super::spec::{BLOCK, status};
use super::{Error, Interrupts, Platform, Transport};

/// The most queues of a disk that are used.
pub const MOST_QUEUES: usize = 16;

/// How a disk is to be used.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Queues, one for each ring; the disk may have fewer.
    pub queues: u16,
    /// Entries of each, made a power of two; the disk may allow fewer.
    pub queue_size: u16,
    /// After how long a request counts as lost, in ms. The device is reset
    /// then.
    pub timeout_ms: u32,
    /// The packed layout, where the device has it.
    pub packed: bool,
    /// Indirect descriptors, where the device has them.
    pub indirect: bool,
    /// Notifications and interrupts when the other side asks for them, where
    /// the device knows of that.
    pub event_idx: bool,
    /// Notifications that say how far the queue is, where the device wants
    /// them.
    pub notification_data: bool,
    /// The cache's mode, where the device lets one choose: write back, or
    /// write through.
    pub write_back: Option<bool>,
    /// The MSI-X vector of the first queue; the next has the next. `None`: the
    /// line interrupt, or none.
    pub queue_vector: Option<u16>,
    /// The MSI-X vector for changes of the configuration.
    pub config_vector: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 256,
            // 30 s is what Linux waits for a request.
            timeout_ms: 30_000,
            packed: true,
            indirect: true,
            event_idx: true,
            notification_data: false,
            write_back: None,
            queue_vector: None,
            config_vector: None,
        }
    }
}

/// What the state word says beside the incarnation.
pub(super) const RUNNING: u32 = 0;
pub(super) const RESETTING: u32 = 1;
/// It could not be reset; it does nothing any more.
pub(super) const DEAD: u32 = 2;
/// It was removed.
pub(super) const GONE: u32 = 3;
/// The kind of state in a state word.
pub(super) const KIND: u32 = 3;
const INCARNATION: u32 = 4;

/// What few need at a time.
#[derive(Debug)]
struct Cold {
    info: DiskInfo,
    slots: [Slot; MOST_QUEUES],
    count: u16,
    /// The device may use memory that it has no business with any more.
    restless: bool,
}

/// A disk that is running. Shared by the backends of all rings on it.
pub struct Disk<P: Platform, T: Transport> {
    platform: P,
    transport: T,
    options: Options,
    features: u64,
    /// Incarnation and kind of state. Its changes carry no data (what they
    /// tell of is under the lock, or in registers), so all accesses are
    /// Relaxed but where the lock is taken anyway.
    state: AtomicU32,
    /// How often the configuration has changed. Relaxed, as above.
    changes: AtomicU32,
    cold: Mutex<Cold>,
    /// Memory given up because the device could not be made quiet, in pages.
    leaked: AtomicU32,
}

impl<P: Platform, T: Transport> core::fmt::Debug for Disk<P, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Disk")
            .field("features", &format_args!("{:#x}", self.features))
            .field("options", &self.options)
            .field("resets", &self.resets())
            .finish_non_exhaustive()
    }
}

impl<P: Platform, T: Transport> Disk<P, T> {
    /// Brings a disk up: reset, features, configuration, queues.
    ///
    /// # Errors
    /// What is wrong with it. It is reset then.
    pub fn new(platform: P, transport: T, options: Options) -> Result<Self, Error> {
        if options.queues == 0 || options.queue_size < 2 || options.timeout_ms == 0 {
            return Err(Error::Argument(
                "a disk needs a queue, of two entries at least, and a timeout above 0",
            ));
        }
        match transport.device_type() {
            BLOCK => {}
            have => return Err(Error::WrongType { have }),
        }
        let mut slots = [const { Slot::EMPTY }; MOST_QUEUES];
        let brought = negotiate(&platform, &transport, &options, None).and_then(|features| {
            config::set_cache(&transport, features, options.write_back)?;
            let info = config::read(&transport, features)?;
            let count = options.queues.min(info.queues).min(MOST_QUEUES as u16);
            let slots = &mut slots[..usize::from(count)];
            make_queues(&platform, &transport, &options, features, slots)?;
            set_queues(&transport, &options, features, slots)?;
            start(&transport);
            Ok((features, info, count))
        });
        let (features, info, count) = match brought {
            Ok(brought) => brought,
            Err(error) => {
                let quiet = matches!(reset(&platform, &transport), Ok(()) | Err(Error::Gone));
                for memory in slots.into_iter().filter_map(|slot| slot.memory) {
                    if quiet {
                        // SAFETY: from this platform, and the device is reset.
                        unsafe { platform.free(memory) };
                    }
                }
                return Err(error);
            }
        };
        Ok(Self {
            platform,
            transport,
            options,
            features,
            state: AtomicU32::new(RUNNING),
            changes: AtomicU32::new(0),
            cold: Mutex::new(Cold { info, slots, count, restless: false }),
            leaked: AtomicU32::new(0),
        })
    }

    /// Where it is.
    #[inline(always)]
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// Its registers.
    #[inline(always)]
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// How it is used.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The feature bits that device and driver agreed on.
    #[inline(always)]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// What it is, as far as it has said.
    pub fn info(&self) -> DiskInfo {
        self.with_cold(|cold| cold.info)
    }

    /// Queues that rings can have.
    pub fn queues(&self) -> u16 {
        self.with_cold(|cold| cold.count)
    }

    /// Pages of memory that were given up since the device could not be made
    /// quiet. 0 unless something is very wrong: then the device may also still
    /// write to registered buffers whose requests have ended.
    pub fn leaked_pages(&self) -> u32 {
        // Relaxed: a statistic.
        self.leaked.load(Ordering::Relaxed)
    }

    /// How often it was reset.
    pub fn resets(&self) -> u32 {
        self.state() / INCARNATION
    }

    /// For the handler of a line interrupt: acknowledges it, and notes a
    /// change of the configuration. The handler then wakes whose rings it
    /// is for.
    #[inline]
    pub fn acknowledge(&self) -> Interrupts {
        let interrupts = self.transport.acknowledge();
        if interrupts.config {
            self.config_changed();
        }
        interrupts
    }

    /// For the handler of the MSI-X interrupt for changes of the
    /// configuration: notes it. Rings look at it when they are polled.
    #[inline]
    pub fn config_changed(&self) {
        // Relaxed: see the field.
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn changes(&self) -> u32 {
        // Relaxed: see the field.
        self.changes.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn state(&self) -> u32 {
        // Relaxed: see the field.
        self.state.load(Ordering::Relaxed)
    }

    fn with_cold<R>(&self, mut f: impl FnMut(&mut Cold) -> R) -> R {
        loop {
            // Politely: it is held for as long as a reset takes.
            if let Some(result) = self.cold.try_with(&mut f) {
                return result;
            }
            self.platform.relax();
        }
    }

    /// A queue that no ring has.
    pub(super) fn attach(&self) -> Result<Attached, Error> {
        loop {
            if let Some(answer) = self.try_attach() {
                return answer;
            }
            // Whoever resets it is about to take the lock.
            self.platform.relax();
        }
    }

    /// [`attach`](Self::attach), unless a reset is about to begin: the queues
    /// are another incarnation's then.
    fn try_attach(&self) -> Option<Result<Attached, Error>> {
        self.with_cold(|cold| {
            let (state, info) = (self.state(), cold.info);
            match state & KIND {
                GONE => return Some(Err(Error::Gone)),
                DEAD => return Some(Err(Error::Dead)),
                RESETTING => return None,
                _ => {}
            }
            let slots = cold.slots[..usize::from(cold.count)].iter_mut();
            let free = (0..).zip(slots).find(|(_, slot)| !slot.taken && slot.ring.is_some());
            let Some((queue, slot)) = free else {
                return Some(Err(Error::NoQueue { queues: cold.count }));
            };
            slot.taken = true;
            let ring = slot.ring.take().expect("looked for above");
            Some(Ok(Attached { queue, ring, size: slot.size, at: slot.at, state, info }))
        })
    }

    /// A ring's queue in the present incarnation, which it does not have yet.
    pub(super) fn attach_again(&self, queue: u16) -> Option<Attached> {
        self.with_cold(|cold| {
            let (state, info) = (self.state(), cold.info);
            let slot = &mut cold.slots[usize::from(queue)];
            if state & KIND != RUNNING {
                return None;
            }
            let ring = slot.ring.take()?;
            Some(Attached { queue, ring, size: slot.size, at: slot.at, state, info })
        })
    }

    /// Takes a ring's queue back, of the incarnation `state`; nothing is in
    /// flight there.
    pub(super) fn detach(&self, queue: u16, ring: Ring, state: u32) {
        ring.hush();
        let mut ring = Some(ring);
        self.with_cold(|cold| {
            let slot = &mut cold.slots[usize::from(queue)];
            slot.taken = false;
            if self.state() == state {
                slot.ring = ring.take();
            }
        });
    }

    /// Reads the configuration anew, if it has changed. Answers what it says.
    pub(super) fn look_at_config(&self) -> DiskInfo {
        self.with_cold(|cold| {
            if self.state() & KIND == RUNNING
                && let Ok(info) = config::read(&self.transport, self.features)
                && info.block == cold.info.block
            {
                // All else holds for as long as the device runs.
                cold.info.bytes = info.bytes;
            }
            cold.info
        })
    }

    /// Waits until nobody resets the device. Answers whether it surely uses no
    /// memory of a ring that has nothing in flight in its present incarnation.
    pub(super) fn is_quiet(&self) -> bool {
        while self.state() & KIND == RESETTING {
            self.platform.relax();
        }
        self.with_cold(|cold| !cold.restless)
    }

    /// Counts memory that is not given back.
    pub(super) fn leak(&self, pages: usize) {
        // Relaxed: a statistic.
        self.leaked.fetch_add(pages as u32, Ordering::Relaxed);
    }

    /// Whether the caller is the one to change the state from `seen`.
    fn claim(&self, seen: u32) -> bool {
        let next = seen & !KIND | RESETTING;
        // Relaxed, both: see the field.
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        seen & KIND == RUNNING && self.state.compare_exchange(seen, next, success, failure).is_ok()
    }

    /// Gives the disk up: somebody wants it back (its slot's attention button
    /// was pressed). When this returns the device is reset, and uses no memory
    /// of ours. Every ring's requests end with `-ENODEV` when the ring looks
    /// next, 50 ms later at the latest.
    pub fn leave(&self) {
        loop {
            let state = self.state();
            match state & KIND {
                GONE | DEAD => return,
                RUNNING => self.retire(state),
                // Whoever resets it does so in bounded time.
                _ => self.platform.relax(),
            }
        }
    }

    /// Stops the device for good: it was removed or is to be taken away. Only
    /// then do others see that.
    pub(super) fn retire(&self, seen: u32) {
        if self.claim(seen) {
            let gone = seen.wrapping_add(INCARNATION) & !KIND | GONE;
            self.with_cold(|cold| {
                self.quieten(cold);
                // Relaxed, and with the lock: as in `reset`.
                self.state.store(gone, Ordering::Relaxed);
            });
        }
    }

    /// Whatever it is doing, it does it without our memory from here on.
    fn quieten(&self, cold: &mut Cold) {
        let quiet = matches!(reset(&self.platform, &self.transport), Ok(()) | Err(Error::Gone));
        if !quiet && !cold.restless {
            cold.restless = true;
            let memory = cold.slots.iter().filter_map(|slot| slot.memory.as_ref());
            self.leak(memory.map(|memory| memory.len / PAGE).sum());
        }
    }

    /// Resets the device, unless somebody else does or did since `seen` was
    /// its state. When it comes back the device does not use any memory of the
    /// old incarnation, or [`leaked_pages`](Self::leaked_pages) tells.
    pub(super) fn reset(&self, seen: u32) {
        if !self.claim(seen) {
            return;
        }
        let next = seen.wrapping_add(INCARNATION) & !KIND;
        self.with_cold(|cold| {
            let brought = self.bring_up_again(cold);
            if brought.is_err() {
                self.quieten(cold);
            }
            let kind = match brought {
                Ok(()) => RUNNING,
                Err(Error::Gone) => GONE,
                Err(_) => DEAD,
            };
            // Relaxed, and with the lock: who has it never finds queues of one incarnation
            // and the state of another.
            self.state.store(next | kind, Ordering::Relaxed);
        });
    }

    fn bring_up_again(&self, cold: &mut Cold) -> Result<(), Error> {
        negotiate(&self.platform, &self.transport, &self.options, Some(self.features))?;
        config::set_cache(&self.transport, self.features, self.options.write_back)?;
        let info = config::read(&self.transport, self.features)?;
        // The rings go on with what they have made of it.
        if (DiskInfo { bytes: cold.info.bytes, ..info }) != cold.info {
            return Err(Error::Config { why: "after a reset it is another disk" });
        }
        cold.info = info;
        let slots = &mut cold.slots[..usize::from(cold.count)];
        for slot in slots.iter_mut() {
            // SAFETY: the device is reset, and the disk lives as long as its
            // rings, which hold on to it.
            unsafe { slot.renew(self.features) };
        }
        set_queues(&self.transport, &self.options, self.features, slots)?;
        start(&self.transport);
        Ok(())
    }

    /// Whether the device asks for a reset.
    pub(super) fn wants_reset(&self) -> bool {
        self.transport.status() & status::NEEDS_RESET != 0
    }
}

impl<P: Platform, T: Transport> Drop for Disk<P, T> {
    /// Resets the device. No backend is left: each of them holds on to the
    /// disk.
    fn drop(&mut self) {
        let quiet = matches!(reset(&self.platform, &self.transport), Ok(()) | Err(Error::Gone));
        self.cold.with(|cold| {
            for memory in cold.slots.iter_mut().filter_map(|slot| slot.memory.take()) {
                if quiet {
                    // SAFETY: from this platform; the device is reset and the
                    // disk ends.
                    unsafe { self.platform.free(memory) };
                }
            }
        });
    }
}
