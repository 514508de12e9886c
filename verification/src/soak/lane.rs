//! A ring with a thread and files of its own: it is made, kept busy for a while,
//! and ended; whatever it was given must end once, and as it must.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use annulus::uapi;
use annulus_linux::types::{SubmitArgs, Timespec};
use annulus_linux::{Ring, cqueue, squeue};

use super::disk::{Disk, Kind, LONGEST};
use super::group::{Group, Name, What};
use super::pages::Pages;
use super::place::{Pipe, Place};
use super::plan::Plan;
use super::tally::Tally;
use crate::kernel::rng::Rng;

/// Bytes of a buffer: the longest operation, and room around it.
pub const BUFFER: usize = (LONGEST + 2) * super::block::BLOCK;
/// Buffers, registered.
pub const POOL: usize = 64;
/// Buffers for reads to choose from, and their group.
pub const PROVIDED: usize = 8;
pub const GROUP: u16 = 3;
/// Places of the table of files: disks first, the last always empty.
pub const SLOTS: u32 = 12;
/// What stands where nothing was read.
pub const MARK: u8 = 0xee;

/// How long a look for completions waits.
const LOOK: Duration = Duration::from_millis(20);

/// What a group that has ended asks for.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    Close(i32),
    Provide(u16),
}

/// The lane.
pub struct Lane<'a> {
    pub plan: Plan,
    pub place: &'a Place,
    pub rng: Rng,
    pub disks: Vec<Disk>,
    pub small: Option<File>,
    pub small_len: u64,
    pub small_busy: bool,
    pub cut: File,
    pub cut_busy: bool,
    pub pipes: Vec<Pipe>,
    pub free_pipes: Vec<usize>,
    pub memory: Pages,
    pub free_buffers: Vec<usize>,
    pub provided: Pages,
    /// Provided buffers that no read has been promised.
    pub selectable: usize,
    /// For entries that must not get as far as to use it.
    pub nowhere: Pages,
    pub free_places: Vec<u32>,
    pub next: VecDeque<Next>,
    pub serial: u32,
    pub tally: Tally,
    groups: Vec<Option<Box<Group>>>,
    free_slots: Vec<u16>,
    /// Groups whose files go once their entries are taken.
    to_close: Vec<u16>,
    /// Completions that have to come.
    waiting: usize,
    /// Entries pushed, completions taken.
    pushed: u32,
    reaped: u32,
}

impl<'a> Lane<'a> {
    /// A lane with its files.
    ///
    /// # Errors
    /// Of the system.
    pub fn new(plan: Plan, place: &'a Place, rng: Rng) -> io::Result<Self> {
        let mut disks = Vec::new();
        for (n, kind) in [Kind::Buffered, Kind::Direct, Kind::Memory].into_iter().enumerate() {
            disks.extend(Disk::new(&place.dir, kind, plan.number | n as u32)?);
        }
        let small = match &place.small {
            Some(dir) => Some(tempfile::tempfile_in(dir)?),
            None => None,
        };
        let pipes = (0..4).map(|_| Pipe::new()).collect::<io::Result<Vec<_>>>()?;
        let disks_count = disks.len() as u32;
        let slots = 256.min(plan.depth as u16 + 8);
        Ok(Self {
            disks,
            small,
            small_len: 0,
            small_busy: false,
            cut: tempfile::tempfile_in(&place.dir)?,
            cut_busy: false,
            free_pipes: (0..pipes.len()).collect(),
            pipes,
            memory: Pages::new(POOL * BUFFER),
            free_buffers: (0..POOL).collect(),
            provided: Pages::new(PROVIDED * BUFFER),
            selectable: 0,
            nowhere: Pages::new(BUFFER),
            free_places: (disks_count..SLOTS - 1).collect(),
            next: (0..PROVIDED as u16).map(Next::Provide).collect(),
            serial: 0,
            tally: Tally::default(),
            groups: (0..slots).map(|_| None).collect(),
            free_slots: (0..slots).rev().collect(),
            to_close: Vec::new(),
            waiting: 0,
            pushed: 0,
            reaped: 0,
            plan,
            place,
            rng,
        })
    }

    /// The bytes of a buffer of the pool.
    pub fn bytes(&mut self, buffer: usize) -> &mut [u8] {
        &mut self.memory.all()[buffer * BUFFER..(buffer + 1) * BUFFER]
    }

    /// The slot that the next group gets.
    pub fn next_slot(&self) -> u16 {
        self.free_slots.last().copied().unwrap_or_default()
    }

    /// A read or write in flight that a cancellation may be meant for.
    pub fn transfer_in_flight(&mut self) -> Option<Name> {
        let from = self.rng.below(self.groups.len() as u64) as usize;
        let count = self.groups.len();
        let slot = (0..count).map(|n| (from + n) % count).find(|&slot| {
            let what = self.groups[slot].as_ref().map(|group| group.what);
            matches!(what, Some(What::Read { .. } | What::Write { .. }))
        })?;
        let group = self.groups[slot].as_mut()?;
        group.aimed = true;
        Some(Name { slot: slot as u16, part: 0, serial: group.serial })
    }

    /// Runs it.
    ///
    /// # Errors
    /// A ring that could not be had. If something is lost, the ring is never
    /// ended: it would wait, and what it may still write must stay.
    pub fn run(mut self) -> Result<Tally, String> {
        let mut ring = self.plan.ring()?;
        self.tally.rings += 1;
        self.register(&ring)?;
        if let Err(lost) = self.drive(&mut ring) {
            self.tally.lost += self.waiting.max(1) as u64;
            self.tally.slots += u64::from(ring.stats().in_use.saturating_sub(self.waiting as u32));
            let why = format!("{}: {lost}\n{}", self.plan, ring.dump());
            self.tally.tell(format!("{why}{}", self.in_flight()));
            let tally = std::mem::take(&mut self.tally);
            std::mem::forget((ring, self));
            return Ok(tally);
        }
        if self.plan.abandons {
            self.tally.abandoned += self.waiting as u64;
        } else {
            self.count(&ring);
        }
        drop(ring);
        self.end();
        Ok(self.tally)
    }

    fn register(&mut self, ring: &Ring) -> Result<(), String> {
        let failed = |what: &'static str| move |e: io::Error| format!("registering {what}: {e}");
        let submitter = ring.submitter();
        let mut fds: Vec<i32> = self.disks.iter().map(|disk| disk.file.as_raw_fd()).collect();
        let good = fds.len();
        fds.push(1_000_000);
        match submitter.register_files(&fds).map_err(|e| e.raw_os_error()) {
            Err(Some(libc::EBADF)) => self.tally.fault("a table with a file that is none (EBADF)"),
            other => self.tally.wrong(format!("a table with a bad file: {other:?}")),
        }
        fds.truncate(good);
        fds.resize(SLOTS as usize, -1);
        submitter.register_files(&fds).map_err(failed("files"))?;
        let buffers: Vec<_> = (0..POOL)
            .map(|n| libc::iovec { iov_base: self.memory.at(n * BUFFER).cast(), iov_len: BUFFER })
            .collect();
        // SAFETY: the memory goes after the ring has ended, or never.
        unsafe { submitter.register_buffers(&buffers) }.map_err(failed("buffers"))
    }

    /// Keeps the ring busy; an error is what makes it look lost.
    fn drive(&mut self, ring: &mut Ring) -> Result<(), String> {
        let begun = Instant::now();
        let mut moved = (Instant::now(), self.pushed, self.reaped);
        loop {
            let over = begun.elapsed() >= self.plan.time || self.tally.wrong > 100;
            if over && self.plan.abandons {
                return Ok(());
            }
            self.push(ring, over);
            let idle = self.waiting == 0 && self.next.is_empty() && all_taken(ring);
            if over && idle {
                return Ok(());
            }
            self.submit(ring, over)?;
            if all_taken(ring) {
                self.entries_taken();
            }
            let skips = !over && self.rng.chance(self.plan.lazy);
            if !skips {
                self.reap(ring);
            }
            if (self.pushed, self.reaped) != (moved.1, moved.2) {
                moved = (Instant::now(), self.pushed, self.reaped);
            } else if moved.0.elapsed() > self.plan.patience {
                let seconds = self.plan.patience.as_secs();
                return Err(format!("{} completions did not come in {seconds} s", self.waiting));
            }
        }
    }

    fn push(&mut self, ring: &mut Ring, over: bool) {
        // In vain so often, and no more: everything is in use.
        let mut tries = 4;
        while tries > 0 && !self.free_slots.is_empty() {
            let in_flight = self.groups.len() - self.free_slots.len();
            let asked = !self.next.is_empty();
            let full = !asked && (over || in_flight >= self.plan.depth);
            let mut queue = ring.submission();
            queue.sync();
            if full || queue.capacity() - queue.len() < 3 {
                return;
            }
            drop(queue);
            let Some((group, entries)) = self.draw() else {
                tries -= 1;
                continue;
            };
            self.start(ring, group, entries);
        }
    }

    fn start(&mut self, ring: &mut Ring, mut group: Box<Group>, entries: Vec<squeue::Entry>) {
        let Some(slot) = self.free_slots.pop() else { return };
        if group.file.is_some() || matches!(group.what, What::ReadCut { .. }) {
            self.to_close.push(slot);
        }
        let mut queue = ring.submission();
        for (part, entry) in (0..).zip(entries) {
            let silent = entry.flags & uapi::IOSQE_CQE_SKIP_SUCCESS != 0;
            group.parts.push(super::group::Part { answer: None, silent });
            group.left += usize::from(!silent);
            let name = Name { slot, part, serial: group.serial };
            // SAFETY: what it names stays as long as the lane, which goes after
            // the ring, or the group, which goes when all of it has ended.
            let pushed = unsafe { queue.push(&entry.user_data(name.user_data())) };
            assert!(pushed.is_ok(), "there was room for three");
            self.pushed = self.pushed.wrapping_add(1);
        }
        self.waiting += group.left;
        self.groups[usize::from(slot)] = Some(group);
    }

    fn submit(&mut self, ring: &mut Ring, over: bool) -> Result<(), String> {
        let want = usize::from(self.waiting > 0 && (over || self.rng.chance(60)));
        let time = Timespec::from(LOOK);
        let args = SubmitArgs::new().timespec(&time);
        let submitter = ring.submitter();
        let errno = match submitter.submit_with_args(want, &args) {
            Ok(_) => return Ok(()),
            Err(e) => e.raw_os_error(),
        };
        match errno {
            Some(libc::ETIME | libc::EINTR) => Ok(()),
            Some(libc::EBUSY) => {
                // Completions first; those that wait for room come as the
                // others are taken.
                let before = self.reaped;
                self.reap(ring);
                if self.reaped == before {
                    let flags = uapi::IORING_ENTER_GETEVENTS | uapi::IORING_ENTER_EXT_ARG;
                    // SAFETY: as for each that was pushed. That the time is
                    // over is no matter.
                    let _ = unsafe { ring.submitter().enter(0, 1, flags, Some(&args)) };
                }
                Ok(())
            }
            _ => Err(format!("submitting: {errno:?}")),
        }
    }

    /// What was pushed has been taken: files may go.
    fn entries_taken(&mut self) {
        for slot in std::mem::take(&mut self.to_close) {
            let Some(group) = &mut self.groups[usize::from(slot)] else { continue };
            match group.what {
                What::ReadCut { .. } => {
                    let len = self.rng.below((LONGEST * super::block::BLOCK) as u64);
                    // A failure would be seen as a read that is whole.
                    let _ = self.cut.set_len(len);
                }
                _ => {
                    drop(group.file.take());
                    // As likely as not by the same number.
                    group.file = File::open("/dev/zero").ok();
                }
            }
        }
    }

    fn reap(&mut self, ring: &mut Ring) {
        loop {
            let cqes: Vec<cqueue::Entry> = ring.completion().collect();
            if cqes.is_empty() {
                return;
            }
            cqes.into_iter().for_each(|cqe| self.take(cqe));
        }
    }

    fn take(&mut self, cqe: cqueue::Entry) {
        self.reaped = self.reaped.wrapping_add(1);
        let name = Name::of(cqe.user_data());
        let group = self.groups.get_mut(usize::from(name.slot)).and_then(Option::as_mut);
        let part = group.filter(|group| group.serial == name.serial).and_then(|group| {
            let part = group.parts.get_mut(usize::from(name.part))?;
            let due = part.answer.is_none() && !part.silent && !cqueue::more(cqe.flags());
            part.answer = Some((cqe.result(), cqe.flags()));
            group.left -= usize::from(due);
            Some((due, group.left))
        });
        match part {
            Some((true, left)) => {
                self.waiting -= 1;
                if left == 0
                    && let Some(group) = self.groups[usize::from(name.slot)].take()
                {
                    self.judge(group);
                    self.free_slots.push(name.slot);
                }
            }
            _ => {
                let why = format!("{}: a completion too many: {name:?}, {cqe:?}", self.plan);
                self.tally.wrong(why);
            }
        }
    }

    /// What has not ended, in the order in which it was pushed.
    fn in_flight(&self) -> String {
        let mut groups: Vec<&Group> = self.groups.iter().flatten().map(|group| &**group).collect();
        groups.sort_by_key(|group| group.serial);
        let line = |group: &Group| {
            let answers: Vec<_> = group.parts.iter().map(|part| part.answer).collect();
            format!("group {}: {:?}, {answers:?}\n", group.serial, group.what)
        };
        groups.into_iter().map(line).collect()
    }

    /// Nothing is in flight: what the ring has counted must say so too.
    fn count(&mut self, ring: &Ring) {
        let until = Instant::now() + Duration::from_secs(1);
        let mut stats = ring.stats();
        // A thread of the ring's may be just about to give it back.
        while stats.in_use != 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            stats = ring.stats();
        }
        if stats.in_use != 0 {
            self.tally.slots += u64::from(stats.in_use);
            let why = format!("{}: nothing is in flight, and {stats:?}", self.plan);
            self.tally.tell(format!("{why}\n{}", ring.dump()));
        }
        if (stats.sqes, stats.cqes) != (self.pushed, self.reaped) {
            let why = format!("{} pushed, {} taken, and {stats:?}", self.pushed, self.reaped);
            self.tally.wrong(format!("{}: {why}", self.plan));
        }
    }

    /// The ring has gone: nobody touches the memory any more, and the files hold
    /// what was written, also to who reads them otherwise.
    fn end(&mut self) {
        for group in self.groups.iter_mut().filter_map(Option::take) {
            let (disk, run, write) = match group.what {
                What::Write { disk, run, write } | What::Chain { disk, run, write } => {
                    (disk, run, write)
                }
                What::Punch { disk, run } => (disk, run, 0),
                _ => continue,
            };
            self.disks[disk].wrote(run, write, false);
        }
        self.memory.all().fill(MARK);
        for disk in &mut self.disks {
            match disk.check_all() {
                Ok(bytes) => self.tally.read += bytes,
                Err(why) => self.tally.wrong(format!("{}: at the end, {why}", self.plan)),
            }
            if let Some(path) = &disk.path {
                // It goes with the directory otherwise.
                let _ = std::fs::remove_file(path);
            }
        }
        if self.memory.all().iter().any(|&byte| byte != MARK) {
            self.tally.wrong(format!("{}: memory was written after the ring's end", self.plan));
        }
    }
}

/// Whether the ring has taken everything that was pushed.
fn all_taken(ring: &mut Ring) -> bool {
    let mut queue = ring.submission();
    queue.sync();
    queue.is_empty()
}
