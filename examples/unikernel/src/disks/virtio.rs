//! virtio disks.

use annulus::types::Fd;
use annulus_baremetal::irq;
use annulus_baremetal::pci::Leave;
use annulus_baremetal::virtio::{
    Completions, Disk, DiskBackend, Options, QueueOptions, Tracker, Transport, Vectors,
};
use annulus_unikernel::script::Line;

use super::leaving::Leaving;
use super::{Counts, Info, LINES, Scratch, Storage, Way, number};
use crate::text;
use crate::text::Text;

/// Feature bits (Virtio 5.2.3 and 6).
const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const PACKED: u64 = 1 << 34;

/// A virtio disk.
pub struct Virtio<'c, T: Transport> {
    /// The disk itself.
    pub disk: Disk<Leaving<'c>, T>,
}

/// What the command line says of a disk.
pub fn options(line: &Line<'_>) -> Result<Options, Text> {
    let wants = |name| line.word(name) != Some("no");
    let all = Options::default();
    Ok(Options {
        queues: number(line, "queues", 8)? as u16,
        queue_size: number(line, "queue-size", all.queue_size.into())? as u16,
        timeout_ms: number(line, "timeout-ms", all.timeout_ms.into())? as u32,
        packed: wants("packed"),
        indirect: wants("indirect"),
        event_idx: wants("event-idx"),
        ..all
    })
}

impl<'c, T: Transport> Virtio<'c, T> {
    /// Brings it up.
    pub fn new(transport: T, leave: &'c Leave, options: Options) -> Result<Self, Text> {
        let disk = Disk::new(Leaving(leave), transport, options);
        Ok(Self { disk: disk.map_err(|e| text!("{e}"))? })
    }

    fn agreed(&self, feature: u64) -> bool {
        self.disk.features() & feature != 0
    }
}

impl<'c, T: Transport + Sync + Send> Storage for Virtio<'c, T> {
    type Backend<'d>
        = DiskBackend<'d, Leaving<'c>, T, &'d Disk<Leaving<'c>, T>>
    where
        Self: 'd;

    fn info(&self) -> Info {
        let info = self.disk.info();
        Info {
            fd: Fd(0),
            bytes: info.bytes,
            block: info.block,
            read_only: info.read_only,
            write_cache: info.write_cache,
            zeroes: info.max_zeroes != 0,
            queues: self.disk.queues(),
        }
    }

    fn describe(&self) -> Text {
        let with = |feature, name| if self.agreed(feature) { name } else { "" };
        let layout = if self.agreed(PACKED) { "packed" } else { "split" };
        let (indirect, event) = (with(INDIRECT_DESC, ", indirect"), with(EVENT_IDX, ", EVENT_IDX"));
        text!("virtio, {layout}{indirect}{event}, {} queues", self.disk.queues())
    }

    fn has(&self, word: &str) -> Option<bool> {
        Some(match word {
            "split" => !self.agreed(PACKED),
            "packed" => self.agreed(PACKED),
            "indirect" => self.agreed(INDIRECT_DESC),
            "direct" => !self.agreed(INDIRECT_DESC),
            "event-idx" => self.agreed(EVENT_IDX),
            "flags" => !self.agreed(EVENT_IDX),
            _ => return None,
        })
    }

    fn backend<'d>(
        &'d self,
        _ring: usize,
        depth: u32,
        way: Way,
        scratch: &'d mut Scratch,
    ) -> Result<Self::Backend<'d>, Text> {
        let completions = match way {
            Way::Polled => Completions::Polled,
            Way::Interrupts => Completions::Interrupt,
            Way::Adaptive => Completions::Adaptive,
        };
        let options = QueueOptions { depth, completions, ..QueueOptions::default() };
        let trackers = scratch.trackers.of(depth as usize + 1, Tracker::new);
        let vectors = scratch.vectors.of(8, Vectors::new);
        let backend = DiskBackend::new(&self.disk, &options, trackers, vectors);
        backend.map_err(|e| text!("a queue of the disk: {e}"))
    }

    fn line(backend: &Self::Backend<'_>, _ring: usize) -> &'static irq::Line {
        &LINES[usize::from(backend.queue())]
    }

    fn counts(backend: &Self::Backend<'_>) -> Counts {
        let stats = backend.stats();
        Counts { notifications: stats.notifications, failed: stats.failed, resets: stats.resets }
    }

    fn resets(&self) -> u32 {
        self.disk.resets()
    }

    fn leaked_pages(&self) -> u32 {
        self.disk.leaked_pages()
    }

    fn leave(&self) -> &Leave {
        self.disk.platform().0
    }
}
