//! The queues of a disk, as the disk keeps them.

use annulus::hal::device::{Coherent, barrier};

use super::disk::Options;
use super::queue::{Layout, Ring};
use super::spec::feature;
use super::{DiskInfo, Error, Platform, QueueSetup, Transport};

/// A queue of the disk.
#[derive(Debug)]
pub(super) struct Slot {
    pub memory: Option<Coherent>,
    pub size: u16,
    /// Which half of the memory the device uses.
    pub second: bool,
    /// Where it is notified.
    pub at: usize,
    /// A ring has it.
    pub taken: bool,
    /// The queue, until its ring takes it.
    pub ring: Option<Ring>,
}

impl Slot {
    /// Of a queue that there is not.
    pub const EMPTY: Self =
        Self { memory: None, size: 0, second: false, at: 0, taken: false, ring: None };

    /// A new queue, after a reset, where no ring writes.
    ///
    /// # Safety
    /// The device is reset; the memory lives as long as the queue.
    pub unsafe fn renew(&mut self, features: u64) {
        // A ring that took its queue may not know of the reset yet, and write
        // there. One that did not is at the other half, if anywhere.
        self.second ^= self.ring.is_none();
        let memory = self.memory.as_ref().expect("allocated for each queue");
        // SAFETY: nobody uses that half, as above; the caller's promise.
        self.ring = Some(unsafe { layout(features, self.size).ring(memory, self.second) });
    }
}

/// A queue as its ring gets it.
#[derive(Debug)]
pub(super) struct Attached {
    pub queue: u16,
    pub ring: Ring,
    pub size: u16,
    pub at: usize,
    /// The state of the disk that it is of.
    pub state: u32,
    pub info: DiskInfo,
}

fn layout(features: u64, size: u16) -> Layout {
    Layout {
        packed: features & feature::RING_PACKED != 0,
        event_idx: features & feature::EVENT_IDX != 0,
        size,
    }
}

/// Memory for the queues, and the queues in it.
pub(super) fn make_queues(
    platform: &impl Platform,
    transport: &impl Transport,
    options: &Options,
    features: u64,
    slots: &mut [Slot],
) -> Result<(), Error> {
    for (queue, slot) in (0..).zip(slots) {
        // The largest size that both layouts know.
        let limit = transport.queue_limit(queue).min(1 << 15);
        let size = match limit.min(options.queue_size) {
            0 => return Err(Error::Queue { queue, why: "its size is 0: it is not there" }),
            1 => return Err(Error::Queue { queue, why: "it has a single entry" }),
            size => 1 << size.ilog2(),
        };
        let layout = layout(features, size);
        let memory = platform
            .alloc(layout.bytes())
            .map_err(|errno| Error::Memory { what: "a queue", errno })?;
        slot.size = size;
        // SAFETY: new memory, that lives as long as the slot and longer than
        // the ring in it.
        slot.ring = Some(unsafe { layout.ring(&memory, false) });
        slot.memory = Some(memory);
    }
    Ok(())
}

/// Tells the device of its queues.
pub(super) fn set_queues(
    transport: &impl Transport,
    options: &Options,
    features: u64,
    slots: &mut [Slot],
) -> Result<(), Error> {
    transport.set_config_vector(options.config_vector)?;
    // A device that is told of a queue finds it as it was made: it may look at
    // once, and what was in the memory before could be anything. Registers are
    // written past stores to memory on anything but x86.
    barrier::write();
    for (queue, slot) in (0..).zip(slots) {
        if transport.queue_limit(queue) < slot.size {
            return Err(Error::Queue { queue, why: "it is smaller than before" });
        }
        let vector = options.queue_vector.map(|first| first.saturating_add(queue));
        let layout = layout(features, slot.size);
        let memory = slot.memory.as_ref().expect("allocated for each queue");
        let setup = QueueSetup {
            notification_data: features & feature::NOTIFICATION_DATA != 0,
            ..layout.setup(memory, slot.second, vector)
        };
        slot.at = transport.set_queue(queue, &setup)?;
    }
    Ok(())
}
