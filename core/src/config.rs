//! Capacities and choices of a ring, and what they cost in bytes.

use crate::cqe::Cqe;
use crate::engine::{BufferEntry, Shared};
use crate::files::{Detached, Place};
use crate::hal::{Backend, Host};
use crate::held::Held;
use crate::messages::{self, Letter};
use crate::op::Kind;
use crate::provided::{Entry, Group};
use crate::request::{Outcome, Record};
use crate::ring::{LINE, Layout, Offsets, align_up};
use crate::slot::SharedSlot;
use crate::sync::AtomicU32;
use crate::uapi;

/// Where the seed patches and today's Linux differ, whose rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Linux 6.18.
    #[default]
    Current,
    /// The seed patches: under SQPOLL an unregistered file is `-EBADF`.
    Seed,
}

/// Who drives the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The owner's thread, inside [`enter`](crate::engine::Engine::enter), by
    /// `&mut`: no lock, no fence.
    #[default]
    Inline,
    /// A thread or core of its own (`IORING_SETUP_SQPOLL`), which sleeps
    /// after `idle_ms` milliseconds without work; 0 means one second.
    SqPoll {
        /// `sq_thread_idle`.
        idle_ms: u32,
    },
    /// Whoever has work claims it ([`crate::served::Served`]).
    Served,
}

/// Capacities and choices, usable in a `const`.
///
/// ```
/// use annulus::config::Config;
/// const CONFIG: Config = Config::new(64).requests(64).files(8);
/// assert!(CONFIG.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) sq_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) requests: u32,
    pub(crate) files: u32,
    pub(crate) buffers: u32,
    pub(crate) layout: Layout,
    pub(crate) index_array: bool,
    pub(crate) policy: Policy,
    pub(crate) submit_all: bool,
    pub(crate) held: bool,
    pub(crate) provided: u32,
    pub(crate) groups: u32,
    pub(crate) mode: Mode,
    pub(crate) disabled: bool,
    pub(crate) tags: u32,
    pub(crate) iopoll: bool,
    pub(crate) messages: u32,
}

/// A configuration, or the memory for it, that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum ConfigError {
    #[error("{what} must not be 0")]
    Zero { what: &'static str },
    #[error("{what} must be a power of two: {given} is not, use {next}")]
    NotPowerOfTwo { what: &'static str, given: u32, next: u32 },
    #[error("{what} may be at most {most}, not {given}")]
    TooLarge { what: &'static str, given: u32, most: u32 },
    #[error("the CQ ({cq}) must not be smaller than the SQ ({sq})")]
    CqSmallerThanSq { sq: u32, cq: u32 },
    #[error("{what} takes {need} bytes, {given} were given")]
    MemoryTooSmall { what: &'static str, need: usize, given: usize },
    #[error("{what} must be aligned to {need} bytes")]
    Misaligned { what: &'static str, need: usize },
    #[error("a ring that polls (IOPOLL) needs a backend that does")]
    NotPolled,
}

/// `IORING_MAX_ENTRIES`.
pub const MAX_ENTRIES: u32 = 32_768;
/// Twice `IORING_MAX_ENTRIES`, the kernel's bound for the CQ.
pub const MAX_CQ_ENTRIES: u32 = 2 * MAX_ENTRIES;
/// Requests a ring can have; an index and a generation share 32 bits.
pub const MAX_REQUESTS: u32 = 32_768;
/// Places of a table of registered files, as in Linux.
pub const MAX_FILES: u32 = 1 << 20;
/// Places of a table of registered buffers, as in Linux.
pub const MAX_BUFFERS: u32 = 1 << 14;

/// Provided buffers that a ring can have room for.
pub const MAX_PROVIDED: u32 = 1 << 20;
/// Messages of other rings that a ring can have room for.
pub const MAX_MESSAGES: u32 = 1 << 15;
/// Groups of provided buffers, as many as there are numbers for them.
pub const MAX_GROUPS: u32 = 1 << 16;

/// Tags that a ring can have room for.
pub const MAX_TAGS: u32 = 1 << 21;

const fn check_ring(what: &'static str, given: u32, most: u32) -> Result<(), ConfigError> {
    if given == 0 {
        return Err(ConfigError::Zero { what });
    }
    if given > most {
        return Err(ConfigError::TooLarge { what, given, most });
    }
    if !given.is_power_of_two() {
        return Err(ConfigError::NotPowerOfTwo { what, given, next: given.next_power_of_two() });
    }
    Ok(())
}

impl Config {
    /// A ring of `entries` SQEs and twice as many CQEs, with `entries`
    /// requests, no registered files or buffers, driven inline.
    pub const fn new(entries: u32) -> Self {
        Self {
            sq_entries: entries,
            cq_entries: entries.saturating_mul(2),
            requests: entries,
            files: 0,
            buffers: 0,
            layout: Layout::Padded,
            index_array: true,
            policy: Policy::Current,
            submit_all: false,
            held: true,
            provided: 0,
            groups: 0,
            mode: Mode::Inline,
            disabled: false,
            tags: 0,
            iopoll: false,
            messages: 0,
        }
    }

    /// CQEs (`IORING_SETUP_CQSIZE`): a power of two, at least as many as SQEs.
    pub const fn cq_entries(mut self, entries: u32) -> Self {
        self.cq_entries = entries;
        self
    }

    /// Requests that can be in flight at once, the reserved one not counted.
    pub const fn requests(mut self, requests: u32) -> Self {
        self.requests = requests;
        self
    }

    /// Places for registered files.
    pub const fn files(mut self, files: u32) -> Self {
        self.files = files;
        self
    }

    /// Places for registered buffers.
    pub const fn buffers(mut self, buffers: u32) -> Self {
        self.buffers = buffers;
        self
    }

    /// Where the ring's words lie.
    pub const fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Whether the SQ has an index array; false is `IORING_SETUP_NO_SQARRAY`.
    pub const fn index_array(mut self, yes: bool) -> Self {
        self.index_array = yes;
        self
    }

    /// Whose rules hold where seed and current Linux differ.
    pub const fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Go on with a batch after a failing SQE (`IORING_SETUP_SUBMIT_ALL`).
    pub const fn submit_all(mut self, yes: bool) -> Self {
        self.submit_all = yes;
        self
    }

    /// Whether there is memory for requests that are held back: links, drains,
    /// timeouts, and CQEs that are skipped, also for cancellation. There is
    /// unless this says no; without it they are refused (`-EINVAL`).
    pub const fn held(mut self, yes: bool) -> Self {
        self.held = yes;
        self
    }

    /// Room for provided buffers: so many at once in groups that
    /// PROVIDE_BUFFERS fills, and so many groups, rings of buffers included.
    /// Without groups (0, unless set) they are refused (`-EINVAL`), as they are
    /// without [`held`](Self::held) requests.
    pub const fn provided(mut self, buffers: u32, groups: u32) -> Self {
        self.provided = buffers;
        self.groups = groups;
        self
    }

    /// Requests that can be held.
    pub(crate) const fn held_requests(&self) -> u32 {
        if self.held { self.requests + 1 } else { 0 }
    }

    /// Who drives the engine.
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Tags that registered files and buffers can have at once, those whose CQEs
    /// have not been posted yet included. Without any (0, unless set) a tag is
    /// refused (`-EINVAL`).
    pub const fn tags(mut self, tags: u32) -> Self {
        self.tags = tags;
        self
    }

    /// Entries of the tags of a table that has so many places.
    pub(crate) const fn tags_of(&self, places: u32) -> u32 {
        if self.tags == 0 { 0 } else { places + detached(places, self.requests + 1) }
    }

    /// Messages of other rings (MSG_RING) that can wait to be posted, or for room
    /// in the CQ, and files from those that bring no CQE and have not been seen.
    /// Without any (0, unless set) the ring takes none
    /// (`-EOVERFLOW` for who sends one).
    pub const fn messages(mut self, messages: u32) -> Self {
        self.messages = messages;
        self
    }

    /// Whether the ring starts disabled (`IORING_SETUP_R_DISABLED`): it takes
    /// calls, restrictions among them, and no SQEs until it is enabled.
    pub const fn disabled(mut self, yes: bool) -> Self {
        self.disabled = yes;
        self
    }

    /// Whether completions are found by polling only (`IORING_SETUP_IOPOLL`).
    /// Operations that cannot be polled for are refused then (`-EINVAL`): all
    /// but NOP, reads, writes, FSYNC, FALLOCATE, FILES_UPDATE, PROVIDE_BUFFERS
    /// and REMOVE_BUFFERS. The backend must [poll](crate::hal::Backend::iopoll).
    pub const fn iopoll(mut self, yes: bool) -> Self {
        self.iopoll = yes;
        self
    }

    /// Whether a ring may carry out operations of this kind.
    pub(crate) const fn takes(&self, kind: Kind) -> bool {
        !self.iopoll || kind.is_polled()
    }

    /// Looks whether the numbers make a ring.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub const fn validate(&self) -> Result<(), ConfigError> {
        if let Err(e) = check_ring("the number of SQ entries", self.sq_entries, MAX_ENTRIES) {
            return Err(e);
        }
        if let Err(e) = check_ring("the number of CQ entries", self.cq_entries, MAX_CQ_ENTRIES) {
            return Err(e);
        }
        if self.cq_entries < self.sq_entries {
            return Err(ConfigError::CqSmallerThanSq { sq: self.sq_entries, cq: self.cq_entries });
        }
        if self.requests == 0 {
            return Err(ConfigError::Zero { what: "the number of requests" });
        }
        let limits = [
            ("the number of requests", self.requests, MAX_REQUESTS),
            ("the number of file places", self.files, MAX_FILES),
            ("the number of buffer places", self.buffers, MAX_BUFFERS),
            ("the number of provided buffers", self.provided, MAX_PROVIDED),
            ("the number of groups of buffers", self.groups, MAX_GROUPS),
            ("the number of tags", self.tags, MAX_TAGS),
            ("the number of messages", self.messages, MAX_MESSAGES),
        ];
        let mut i = 0;
        while i < limits.len() {
            let (what, given, most) = limits[i];
            if given > most {
                return Err(ConfigError::TooLarge { what, given, most });
            }
            i += 1;
        }
        Ok(())
    }

    /// The ring memory's table of offsets.
    pub const fn offsets(&self) -> Offsets {
        Offsets::new(self.layout, self.sq_entries, self.cq_entries, self.index_array)
    }

    /// The `IORING_SETUP_*` bits that describe this configuration.
    pub const fn setup_flags(&self) -> u32 {
        let mut flags = 0;
        if self.cq_entries != self.sq_entries.saturating_mul(2) {
            flags |= uapi::IORING_SETUP_CQSIZE;
        }
        if !self.index_array {
            flags |= uapi::IORING_SETUP_NO_SQARRAY;
        }
        if self.submit_all {
            flags |= uapi::IORING_SETUP_SUBMIT_ALL;
        }
        if self.disabled {
            flags |= uapi::IORING_SETUP_R_DISABLED;
        }
        if self.iopoll {
            flags |= uapi::IORING_SETUP_IOPOLL;
        }
        if matches!(self.mode, Mode::SqPoll { .. }) {
            flags |= uapi::IORING_SETUP_SQPOLL;
        }
        flags
    }
}

/// What a configuration takes, item by item, in bytes.
///
/// ```text
/// rings    indices, CQEs, index array, SQEs (may lie in memory of its own)
/// control  waits, mailbox, return list head, the host
/// slots    (requests + 1) x shared slot
/// records  (requests + 1) x request record
/// outcomes (requests + 1 + tags + messages) x outcome that waits
/// free     requests x index
/// held     (requests + 1) x (held request + 2 x index), if any may be
/// files    places, each with a word that other rings see, + (requests + 1) x detached file
/// buffers  places + (requests + 1) x detached buffer
/// tags     (places + (requests + 1)) x index, of files and of buffers, if any
/// provided groups of provided buffers, and entries for them
/// messages messages x letter, and a bit for each
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named above
pub struct Footprint {
    pub rings: usize,
    pub control: usize,
    pub slots: usize,
    pub records: usize,
    pub outcomes: usize,
    pub free: usize,
    pub held: usize,
    pub file_places: usize,
    pub files_detached: usize,
    pub buffer_places: usize,
    pub buffers_detached: usize,
    pub provided: usize,
    pub tags: usize,
    pub messages: usize,
}

const fn lines<T>(count: u32) -> usize {
    align_up(size_of::<T>() * count as usize, LINE)
}

impl Footprint {
    /// The footprint of `config` with backend `B` on host `H`.
    pub const fn of<B: Backend, H: Host>(config: &Config) -> Self {
        let slots = config.requests + 1;
        Self {
            rings: config.offsets().total,
            control: lines::<Shared<'static, H>>(1),
            slots: lines::<SharedSlot>(slots),
            records: lines::<Record>(slots),
            outcomes: lines::<Outcome>(slots + config.tags + config.messages),
            free: lines::<u32>(config.requests),
            held: lines::<Held>(config.held_requests()) + 2 * lines::<u32>(config.held_requests()),
            file_places: lines::<Place<B::File>>(config.files) + lines::<i32>(config.files),
            files_detached: lines::<Detached<B::File>>(detached(config.files, slots)),
            buffer_places: lines::<Place<BufferEntry<B::Buffer>>>(config.buffers),
            buffers_detached: lines::<Detached<BufferEntry<B::Buffer>>>(detached(
                config.buffers,
                slots,
            )),
            provided: lines::<Group>(config.groups) + lines::<Entry>(config.provided),
            tags: lines::<u32>(config.tags_of(config.files))
                + lines::<u32>(config.tags_of(config.buffers)),
            messages: lines::<Letter>(config.messages)
                + lines::<AtomicU32>(messages::words(config.messages)),
        }
    }

    /// Everything but the rings.
    pub const fn engine(&self) -> usize {
        self.control
            + self.slots
            + self.records
            + self.outcomes
            + self.free
            + self.held
            + self.file_places
            + self.files_detached
            + self.buffer_places
            + self.buffers_detached
            + self.provided
            + self.tags
            + self.messages
    }

    /// All of it.
    pub const fn total(&self) -> usize {
        self.rings + self.engine()
    }
}

/// Entries for detached resources that no sequence of updates can exhaust
/// ([`crate::files`]).
pub(crate) const fn detached(places: u32, slots: u32) -> u32 {
    if places == 0 { 0 } else { slots }
}

const _: () = assert!(size_of::<Cqe>() == 16);
