//! Disks, as scenarios have them, whatever they are and wherever they are.

mod find;
mod leaving;
mod nvme;
mod pci;
pub mod peer;
mod virtio;

pub use find::{asked_to_leave, on_disk, until_gone};

use annulus::hal::Backend;
use annulus::types::Fd;
use annulus_baremetal::irq::Line;
use annulus_baremetal::pci::{Leave, Message};
use annulus_unikernel::script;

use crate::arch;
use crate::memory::Region;
use crate::place::Image;
use crate::scenarios::{Outcome, number};
use crate::text;
use crate::text::Text;

/// The most rings at once, each with an interrupt of its own.
pub const RINGS: usize = 8;

/// One for each ring: the interrupt of a device's queue of that number.
static LINES: [Line; RINGS] = [const { Line::new() }; RINGS];

/// What a message for one queue does.
fn raise(vector: u32) {
    if let Some(line) = LINES.get(vector as usize) {
        line.raise(&Image);
    }
}

/// What an interrupt does that is for all queues.
fn raise_all() {
    LINES.iter().for_each(|line| line.raise(&Image));
}

/// What devices write to raise the interrupts of rings.
fn messages() -> impl Iterator<Item = Message> {
    (0..RINGS as u32).map_while(|vector| {
        arch::set_handler(vector, raise);
        let (address, data) = arch::msi(vector)?;
        Some(Message { address, data })
    })
}

/// How a ring learns of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By looking.
    Polled,
    /// By interrupts.
    Interrupts,
    /// By looking for a while, then by interrupts.
    Adaptive,
}

impl Way {
    /// As the command line has it: `completions=`.
    pub fn of(line: &script::Line<'_>) -> Result<Self, Text> {
        match line.word("completions") {
            None | Some("polled") => Ok(Self::Polled),
            Some("interrupts") => Ok(Self::Interrupts),
            Some("adaptive") => Ok(Self::Adaptive),
            Some(other) => Err(text!("completions={other} is not a way to learn of them")),
        }
    }
}

/// What a disk is.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Its file number.
    pub fd: Fd,
    /// Its capacity in bytes.
    pub bytes: u64,
    /// Bytes of a block.
    pub block: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// FSYNC has something to do.
    pub write_cache: bool,
    /// FALLOCATE zeroes and punches holes.
    pub zeroes: bool,
    /// Rings it can have.
    pub queues: u16,
}

/// What a ring's backend has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Notifications of the device.
    pub notifications: u32,
    /// Requests that the device ended with an error.
    pub failed: u32,
    /// Resets that the ring asked for.
    pub resets: u32,
}

/// Memory that a ring's backend keeps account in.
pub struct Scratch {
    trackers: Region,
    vectors: Region,
}

impl Scratch {
    /// For any backend of a ring of up to 128 requests.
    pub fn new() -> Result<Self, Text> {
        Ok(Self { trackers: Region::new(129 * 256)?, vectors: Region::new(8 * (17 << 10))? })
    }
}

/// A disk that is up.
pub trait Storage: Sync {
    /// What carries out a ring's requests.
    type Backend<'d>: Backend<File: Send, Buffer: Send> + Send
    where
        Self: 'd;

    /// What it is.
    fn info(&self) -> Info;

    /// The same in words, with how it is driven.
    fn describe(&self) -> Text;

    /// Looks whether it is driven as a word wants it: `None` if that is a word
    /// about something else.
    fn has(&self, word: &str) -> Option<bool>;

    /// A ring's backend, for so many requests; of the rings that there are at a
    /// time each has a number of its own.
    fn backend<'d>(
        &'d self,
        ring: usize,
        depth: u32,
        way: Way,
        scratch: &'d mut Scratch,
    ) -> Result<Self::Backend<'d>, Text>;

    /// The interrupt of the ring of this number.
    fn line(backend: &Self::Backend<'_>, ring: usize) -> &'static Line;

    /// What it has counted.
    fn counts(backend: &Self::Backend<'_>) -> Counts;

    /// How often the device was reset since it came up.
    fn resets(&self) -> u32;

    /// Whether it is wanted back.
    fn leave(&self) -> &Leave;

    /// Pages that the device could not be kept from writing to.
    fn leaked_pages(&self) -> u32;
}

/// A scenario on a disk, for every kind of disk.
pub trait OnDisk {
    /// Runs it.
    fn run<S: Storage>(&self, disk: &S, line: &script::Line<'_>) -> Outcome;
}
