//! Setting a ring up.

use std::os::fd::OwnedFd;
use std::thread::available_parallelism;

use annulus::config::{
    Config, Footprint, MAX_CQ_ENTRIES, MAX_ENTRIES, MAX_REQUESTS, MAX_TAGS, Mode, Policy,
};
use annulus::engine::{Completer, Parts, RingMemory, build};
use annulus::ring::Layout;
use annulus::uapi;
use rustix::event::{EventfdFlags, eventfd};

use super::drive::{self, Driver};
use super::memory::Mapping;
use super::{Error, Parameters, Ring, RingBackend};
use crate::file::{Blocks, FileBackend, Limits};
use crate::guard::ForkGuard;
use crate::host::LinuxHost;
use crate::rings::Door;

/// Provided buffers and their groups, unless asked for otherwise.
const PROVIDED: u32 = 1024;
const GROUPS: u32 = 16;
/// Places for registered files and buffers, unless asked for otherwise.
const PLACES: u32 = 1024;
/// The fewest requests a ring has, unless asked for otherwise. The kernel has
/// no bound at all, and small rings are used with many waits in flight.
const REQUESTS: u32 = 128;
/// The fewest and the most messages of other rings that can wait, unless asked
/// for otherwise.
const MESSAGES: u32 = 128;
const MOST_MESSAGES: u32 = 4096;
/// The most unbounded workers, unless asked for otherwise.
const UNBOUNDED: u32 = 64;

/// How completions are found, where there is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Polled,
    Interrupts,
}

/// How a ring is to be set up; the `io-uring` crate's builder, and more.
///
/// ```
/// # fn main() -> Result<(), annulus_linux::Error> {
/// let ring = annulus_linux::Ring::builder().setup_cqsize(256).build(64)?;
/// assert_eq!(ring.params().cq_entries(), 256);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    cq_entries: Option<u32>,
    clamp: bool,
    sqpoll: Option<u32>,
    sqpoll_cpu: Option<u32>,
    served: bool,
    submit_all: bool,
    no_sqarray: bool,
    requests: Option<u32>,
    files: Option<u32>,
    buffers: Option<u32>,
    provided: Option<(u32, u32)>,
    layout: Layout,
    policy: Policy,
    workers: Option<(u32, u32)>,
    separate: bool,
    eventfd: bool,
    iopoll: bool,
    disabled: bool,
    tags: Option<u32>,
    messages: Option<u32>,
    pub(super) completions: Option<Finding>,
    pub(super) queue_depth: Option<u32>,
    pub(super) bounce: Option<(usize, usize)>,
    pub(super) max_transfer: Option<u32>,
}

impl Builder {
    /// The CQ gets this many entries, rounded up to a power of two, instead
    /// of twice the SQ's (`IORING_SETUP_CQSIZE`).
    pub fn setup_cqsize(&mut self, entries: u32) -> &mut Self {
        self.cq_entries = Some(entries);
        self
    }

    /// Sizes beyond the limits become the limits (`IORING_SETUP_CLAMP`).
    pub fn setup_clamp(&mut self) -> &mut Self {
        self.clamp = true;
        self
    }

    /// A thread polls the SQ (`IORING_SETUP_SQPOLL`) and sleeps after `idle`
    /// milliseconds without work; 0 means one second.
    pub fn setup_sqpoll(&mut self, idle: u32) -> &mut Self {
        self.sqpoll = Some(idle);
        self
    }

    /// Binds the polling thread to a CPU (`IORING_SETUP_SQ_AFF`).
    pub fn setup_sqpoll_cpu(&mut self, cpu: u32) -> &mut Self {
        self.sqpoll_cpu = Some(cpu);
        self
    }

    /// Whoever has work drives the ring: application threads inside their
    /// calls, a helper thread while they are elsewhere. For applications
    /// that only look at the CQ, wait on an eventfd, or share the ring among
    /// threads ([`Ring::into_shared`]).
    pub fn setup_served(&mut self) -> &mut Self {
        self.served = true;
        self
    }

    /// A failing SQE does not end its batch (`IORING_SETUP_SUBMIT_ALL`).
    pub fn setup_submit_all(&mut self) -> &mut Self {
        self.submit_all = true;
        self
    }

    /// SQEs are submitted in their own order, without an index array
    /// (`IORING_SETUP_NO_SQARRAY`).
    pub fn setup_no_sqarray(&mut self) -> &mut Self {
        self.no_sqarray = true;
        self
    }

    /// Requests that can be in flight at once. One more is in reserve.
    /// Otherwise as many as CQEs, at least 128.
    pub fn requests(&mut self, requests: u32) -> &mut Self {
        self.requests = Some(requests);
        self
    }

    /// The most files that can be registered; 1,024 otherwise.
    pub fn files(&mut self, files: u32) -> &mut Self {
        self.files = Some(files);
        self
    }

    /// The most buffers that can be registered; 1,024 otherwise.
    pub fn buffers(&mut self, buffers: u32) -> &mut Self {
        self.buffers = Some(buffers);
        self
    }

    /// The most tags that registered files and buffers can have at once, those
    /// included whose completions wait for room; as many as there can be files,
    /// buffers and requests otherwise.
    pub fn tags(&mut self, tags: u32) -> &mut Self {
        self.tags = Some(tags);
        self
    }

    /// Room for provided buffers: so many at once in groups that
    /// `opcode::ProvideBuffers` fills, and so many groups, rings of buffers
    /// included; 1,024 and 16 otherwise. Of more than there is room for the
    /// first are taken, and it is a success, as in Linux without memory; none
    /// is `-ENOMEM`, and so is one group more.
    pub fn provided_buffers(&mut self, buffers: u32, groups: u32) -> &mut Self {
        self.provided = Some((buffers, groups));
        self
    }

    /// Messages of other rings ([`MsgRingData`](crate::opcode::MsgRingData)) that
    /// can wait to be posted, or for room in the CQ; otherwise as many as CQEs,
    /// from 128 to 4,096.
    pub fn messages(&mut self, messages: u32) -> &mut Self {
        self.messages = Some(messages);
        self
    }

    /// How the ring's words are laid out.
    pub fn layout(&mut self, layout: Layout) -> &mut Self {
        self.layout = layout;
        self
    }

    /// Whose rules hold where the seed patches and today's Linux differ.
    pub fn policy(&mut self, policy: Policy) -> &mut Self {
        self.policy = policy;
        self
    }

    /// The most workers of each class. Otherwise the kernel's rule for the
    /// bounded ones (as many as SQ entries, at most four a CPU), and 64
    /// unbounded. A class of 0 has no workers: what needs one ends with
    /// `-ECANCELED`. [`Submitter::register_iowq_max_workers`](super::Submitter::register_iowq_max_workers)
    /// changes it later.
    pub fn max_workers(&mut self, bounded: u32, unbounded: u32) -> &mut Self {
        self.workers = Some((bounded, unbounded));
        self
    }

    /// Whether buffered sequential requests of one file that need a worker
    /// follow each other in the same one, up to eight times the file's
    /// read-ahead. They do, unless switched off to see what it is worth.
    pub fn merge_sequential(&mut self, yes: bool) -> &mut Self {
        self.separate = !yes;
        self
    }

    /// Whether the ring has an eventfd that is rung when completions come
    /// ([`Ring::eventfd`]).
    pub fn eventfd(&mut self, yes: bool) -> &mut Self {
        self.eventfd = yes;
        self
    }

    /// The ring starts disabled (`IORING_SETUP_R_DISABLED`): it can be
    /// restricted, and takes no SQEs until it is enabled
    /// ([`Submitter::register_enable_rings`](super::Submitter::register_enable_rings)).
    pub fn setup_r_disabled(&mut self) -> &mut Self {
        self.disabled = true;
        self
    }

    /// Completions are found by polling the device only
    /// (`IORING_SETUP_IOPOLL`), without interrupts. For rings on an NVMe
    /// controller. Operations that cannot be polled for (timeouts, cancellation
    /// and others) are refused with `EINVAL`.
    pub fn setup_iopoll(&mut self) -> &mut Self {
        self.iopoll = true;
        self.completions = Some(Finding::Polled);
        self
    }

    /// Completions are found by interrupts only, instead of polling while the
    /// ring is busy. For rings on an NVMe controller.
    pub fn interrupts(&mut self) -> &mut Self {
        self.iopoll = false;
        self.completions = Some(Finding::Interrupts);
        self
    }

    /// Commands that the device may have at once, at most 4,096; otherwise as
    /// many as requests. For rings on an NVMe controller.
    pub fn queue_depth(&mut self, depth: u32) -> &mut Self {
        self.queue_depth = Some(depth);
        self
    }

    /// Bounce buffers for memory that is not registered, and the bytes of
    /// each; otherwise 32 of 64 KiB. For rings on an NVMe controller.
    pub fn bounce_buffers(&mut self, count: usize, bytes: usize) -> &mut Self {
        self.bounce = Some((count, bytes));
        self
    }

    /// The most bytes of one command, a multiple of 4,096, otherwise 1 MiB; less
    /// if the controller takes less. What is longer is carried out in parts,
    /// one after the other. Each request of the ring has lists of 8 bytes a page
    /// for it, in whole pages. For rings on an NVMe controller.
    pub fn max_transfer(&mut self, bytes: u32) -> &mut Self {
        self.max_transfer = Some(bytes);
        self
    }

    /// SQ and CQ entries, by the kernel's rules.
    fn sizes(&self, entries: u32) -> Result<(u32, u32), Error> {
        let sq = match entries {
            0 => return Err(Error::NoEntries),
            given if given > MAX_ENTRIES && !self.clamp => {
                return Err(Error::TooManyEntries { given });
            }
            given => given.min(MAX_ENTRIES).next_power_of_two(),
        };
        let cq = match self.cq_entries {
            None => 2 * sq,
            Some(0) => return Err(Error::NoCqEntries),
            Some(given) if given > MAX_CQ_ENTRIES && !self.clamp => {
                return Err(Error::TooManyCqEntries { given });
            }
            Some(given) => given.min(MAX_CQ_ENTRIES).next_power_of_two(),
        };
        if cq < sq {
            return Err(Error::CqSmallerThanSq { sq, cq });
        }
        Ok((sq, cq))
    }

    fn mode(&self) -> Result<Mode, Error> {
        if self.sqpoll_cpu.is_some() && self.sqpoll.is_none() {
            return Err(Error::AffinityWithoutSqpoll);
        }
        match (self.sqpoll, self.served) {
            (Some(_), true) => Err(Error::TwoModes),
            (Some(idle_ms), false) => Ok(Mode::SqPoll { idle_ms }),
            (None, true) => Ok(Mode::Served),
            (None, false) => Ok(Mode::Inline),
        }
    }

    fn limits(&self, sq: u32) -> Limits {
        let (bounded, unbounded) = self.workers.unwrap_or_else(|| {
            let cpus = available_parallelism().map_or(1, |n| n.get() as u32);
            (sq.min(4 * cpus), UNBOUNDED)
        });
        Limits { bounded, unbounded }
    }

    /// `IORING_SETUP_*` that the engine does not know of.
    fn more_flags(&self) -> u32 {
        (if self.clamp { uapi::IORING_SETUP_CLAMP } else { 0 })
            | (if self.cq_entries.is_some() { uapi::IORING_SETUP_CQSIZE } else { 0 })
            | (if self.sqpoll_cpu.is_some() { uapi::IORING_SETUP_SQ_AFF } else { 0 })
    }

    /// Sets up a ring over files with at least `entries` SQ entries, rounded up
    /// to a power of two.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn build(&self, entries: u32) -> Result<Ring, Error> {
        if self.iopoll || self.completions.is_some() {
            return Err(Error::FilesNotPolled);
        }
        let plan = self.plan(entries, MAX_REQUESTS)?;
        let host = LinuxHost::new(self.bell()?);
        let blocks =
            Blocks::new().map_err(|e| Error::System { what: "address space", source: e.into() })?;
        let slots = plan.requests as usize + 1;
        let limits = self.limits(plan.sq_entries);
        let (bell, merge) = (plan.mode == Mode::Inline, !self.separate);
        self.set_up(plan, host, (), |completer| {
            FileBackend::new(slots, limits, blocks, completer, bell, merge)
        })
    }

    /// As [`build`](Self::build), with a backend for so many slots that the
    /// caller makes.
    #[cfg(test)]
    pub(crate) fn build_with(
        &self,
        entries: u32,
        backend: impl FnOnce(usize, Completer<'static, &'static LinuxHost>) -> FileBackend,
    ) -> Result<Ring, Error> {
        let plan = self.plan(entries, MAX_REQUESTS)?;
        let slots = plan.requests as usize + 1;
        self.set_up(plan, LinuxHost::new(self.bell()?), (), |completer| backend(slots, completer))
    }

    /// Checks what was asked for. `most`: requests that the backend can have.
    pub(super) fn plan(&self, entries: u32, most: u32) -> Result<Plan, Error> {
        let (sq_entries, cq_entries) = self.sizes(entries)?;
        let mode = self.mode()?;
        let polled = matches!(mode, Mode::SqPoll { .. });
        if polled && self.policy == Policy::Seed && !privileged() {
            return Err(Error::NotPermitted);
        }
        let requests = self.requests.unwrap_or(cq_entries.clamp(REQUESTS, MAX_REQUESTS).min(most));
        let (files, buffers) = (self.files.unwrap_or(PLACES), self.buffers.unwrap_or(PLACES));
        let tags = files.saturating_add(buffers).saturating_add(requests).min(MAX_TAGS);
        let (provided, groups) = self.provided.unwrap_or((PROVIDED, GROUPS));
        let config = Config::new(sq_entries)
            .cq_entries(cq_entries)
            .requests(requests)
            .files(files)
            .buffers(buffers)
            .tags(self.tags.unwrap_or(tags))
            .provided(provided, groups)
            .messages(self.messages.unwrap_or(cq_entries.clamp(MESSAGES, MOST_MESSAGES)))
            .layout(self.layout)
            .index_array(!self.no_sqarray)
            .submit_all(self.submit_all)
            .policy(self.policy)
            .disabled(self.disabled)
            .iopoll(self.iopoll)
            .mode(mode);
        config.validate()?;
        Ok(Plan { config, mode, sq_entries, cq_entries, requests })
    }

    /// The eventfd for the application, if it wants one.
    pub(super) fn bell(&self) -> Result<Option<OwnedFd>, Error> {
        if !self.eventfd {
            return Ok(None);
        }
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Some)
            .map_err(|e| Error::System { what: "eventfd", source: e.into() })
    }

    /// Makes the ring. `keep` goes with it, and is dropped after its backend.
    pub(super) fn set_up<B: RingBackend>(
        &self,
        Plan { config, mode, sq_entries, cq_entries, requests }: Plan,
        host: LinuxHost,
        keep: impl Send + Sync + 'static,
        backend: impl FnOnce(Completer<'static, &'static LinuxHost>) -> B,
    ) -> Result<Ring<B>, Error> {
        let system = |what| move |source| Error::System { what, source };
        let guard = ForkGuard::new().map_err(system("page that is wiped on fork"))?;
        let bytes = Footprint::of::<B, &'static LinuxHost>(&config).total();
        let memory = Mapping::new(bytes).map_err(|source| Error::Memory { bytes, source })?;
        let place = drive::Place::new(host, memory, Box::new(keep));
        // Dropped before the place, whatever fails.
        let make = backend;
        // SAFETY: the place outlives the ring that is built in it (the driver
        // ends first, in `Ring::drop`), and lends its memory once.
        let (memory, host) = unsafe { (place.memory.lend(), place.host()) };
        let Parts { engine, sq, cq, remote } =
            build(&config, memory, RingMemory::Inside, host, make)?;
        let params = Parameters {
            sq_entries,
            cq_entries,
            requests,
            flags: config.setup_flags() | self.more_flags(),
            features: engine.features(),
            sq_thread_idle: match mode {
                Mode::SqPoll { idle_ms: 0 } => 1000,
                Mode::SqPoll { idle_ms } => idle_ms,
                _ => 0,
            },
            served: mode == Mode::Served,
        };
        let bell = (mode == Mode::Inline).then(|| remote.host()).copied();
        // SAFETY: dropped before the place, here and in `Ring::drop`.
        let door = unsafe { Door::open(remote.inbox(), bell) };
        let door = door.map_err(system("descriptor for the ring"))?;
        let driver = Driver::start(mode, engine, remote, self.sqpoll_cpu)?;
        Ok(Ring::new_parts(driver, (sq, cq), remote, params, guard, (door, place)))
    }
}

/// What a ring will be, checked.
pub(super) struct Plan {
    config: Config,
    mode: Mode,
    sq_entries: u32,
    cq_entries: u32,
    pub requests: u32,
}

/// Whether the caller may have a polling thread under policy *seed*: as in Linux
/// 5.11, by what is in effect for the calling thread.
fn privileged() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    let enough = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_NICE;
    capabilities(None).is_ok_and(|sets| sets.effective.intersects(enough))
}
