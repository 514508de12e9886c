//! NVMe controllers; their first namespace is the disk.

use annulus::nvme::{
    Completions, Controller, NvmeBackend, Options, QueueOptions, Tracker, Vectors,
};
use annulus::types::Fd;
use annulus_baremetal::pci::{Function, Leave, Message};
use annulus_baremetal::{NvmeFunction, irq};
use annulus_unikernel::script::Line;

use super::pci::Config;
use super::{Counts, Info, LINES, RINGS, Scratch, Storage, Way};
use crate::place::{Image, MACHINE};
use crate::text;
use crate::text::Text;

/// The disk's namespace.
const NAMESPACE: u32 = 1;

type Place<'c> = NvmeFunction<'c, Config, Image>;

/// An NVMe controller.
pub struct Nvme<'c> {
    controller: Controller<Place<'c>>,
    leave: &'c Leave,
    info: Info,
}

impl<'c> Nvme<'c> {
    /// Brings it up.
    pub fn new(
        function: Function<'c, Config>,
        messages: &'c [Message],
        leave: &'c Leave,
        line: &Line<'_>,
    ) -> Result<Self, Text> {
        let place = NvmeFunction::new(MACHINE, function, messages, leave);
        let place = place.map_err(|e| text!("{e}"))?;
        let timeout = super::number(line, "timeout-ms", 30_000)? as u32;
        // Vector 0 is the admin queue's.
        let pairs = messages.len().saturating_sub(1).clamp(1, RINGS) as u16;
        let options = Options { pairs, timeout_ms: timeout, ..Options::default() };
        let controller = Controller::new(place, options).map_err(|e| text!("{e}"))?;
        let namespace = controller.namespace(NAMESPACE).map_err(|e| text!("{e}"))?;
        let own = controller.info();
        let info = Info {
            fd: Fd(NAMESPACE as i32),
            bytes: namespace.bytes,
            block: namespace.block(),
            read_only: namespace.read_only,
            write_cache: own.write_cache,
            zeroes: true,
            queues: controller.limits().pairs,
        };
        Ok(Self { controller, leave, info })
    }
}

impl<'c> Storage for Nvme<'c> {
    type Backend<'d>
        = NvmeBackend<'d, Place<'c>, &'d Controller<Place<'c>>>
    where
        Self: 'd;

    fn info(&self) -> Info {
        self.info
    }

    fn describe(&self) -> Text {
        text!("NVMe, {} queue pairs", self.info.queues)
    }

    fn has(&self, word: &str) -> Option<bool> {
        (word == "nvme").then_some(true)
    }

    fn backend<'d>(
        &'d self,
        ring: usize,
        depth: u32,
        way: Way,
        scratch: &'d mut Scratch,
    ) -> Result<Self::Backend<'d>, Text> {
        // Vector 0 is the admin queue's.
        let vector = 1 + ring as u16;
        let completions = match way {
            Way::Polled => Completions::Polled,
            Way::Interrupts => Completions::Interrupt(vector),
            Way::Adaptive => Completions::Adaptive(vector),
        };
        let options = QueueOptions {
            depth,
            completions,
            bounce_buffers: 8,
            max_transfer: 256 << 10,
            ..QueueOptions::default()
        };
        let trackers = scratch.trackers.of(depth as usize + 1, Tracker::new);
        let vectors = scratch.vectors.of(8, Vectors::new);
        let backend = NvmeBackend::new(&self.controller, &options, trackers, vectors);
        backend.map_err(|e| text!("a queue pair: {e}"))
    }

    fn line(_: &Self::Backend<'_>, ring: usize) -> &'static irq::Line {
        &LINES[ring]
    }

    fn counts(backend: &Self::Backend<'_>) -> Counts {
        let stats = backend.stats();
        Counts { notifications: stats.doorbells, failed: stats.failed, resets: stats.resets }
    }

    fn resets(&self) -> u32 {
        self.controller.resets()
    }

    fn leaked_pages(&self) -> u32 {
        self.controller.leaked_pages()
    }

    fn leave(&self) -> &Leave {
        self.leave
    }
}
