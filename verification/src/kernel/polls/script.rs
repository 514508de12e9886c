//! What a program of polls does, and what must come of it.
//!
//! A program is *determined* if a wait is left alone between its wake-up and
//! the next point of rest; the generator makes no others. What a wake-up
//! reports may lie between what it said itself and what is true afterwards:
//! rows "poll" in docs/differences.md.

use linux_raw_sys::general as uapi;

/// Pipes, and as many eventfds.
pub const PAIRS: usize = 2;
/// Files of a program's world.
pub const FILES: usize = 3 * PAIRS + 2;

/// A file by its place in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The reading end of a pipe.
    Read(usize),
    /// Its writing end.
    Write(usize),
    /// A counter.
    Event(usize),
    /// A regular file.
    Storage,
    /// `/dev/null`.
    Null,
}

impl File {
    /// Every file, by its place.
    pub fn all() -> impl Iterator<Item = File> {
        let pairs = (0..PAIRS).flat_map(|i| [File::Read(i), File::Write(i), File::Event(i)]);
        pairs.chain([File::Storage, File::Null])
    }

    /// Its place.
    pub fn place(self) -> usize {
        Self::all().position(|file| file == self).expect("every file has a place")
    }
}

/// One SQE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// POLL_ADD; `link`: with a NOP behind it in a chain.
    Add { file: File, events: u32, multi: bool, user_data: u64, later: bool, link: bool },
    /// POLL_REMOVE.
    Remove { user_data: u64, later: bool },
    /// POLL_REMOVE that changes a wait.
    Update { old: u64, user_data: Option<u64>, events: Option<u32>, multi: bool },
    /// ASYNC_CANCEL by `user_data`.
    Cancel { user_data: u64, all: bool },
    /// POLL_ADD or POLL_REMOVE with something wrong in it.
    Wrong { add: bool, how: u32 },
}

/// One thing that a program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Submits these together.
    Batch(Vec<Op>),
    /// Writes to a pipe or counts.
    Put(File),
    /// Empties a pipe or a counter.
    Take(File),
    /// Closes one end of a pipe.
    Close(File),
    /// Counts until a multishot wait finds no room in the CQ.
    Flood(usize),
    /// A wait is added and removed while a thread counts, so many turns of a
    /// loop after it has begun.
    Race { event: usize, multi: bool, thread: u32, here: u32 },
}

/// A completion that must come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Of whom.
    pub user_data: u64,
    /// The result, or the events that it must have.
    pub least: i32,
    /// And those that it may.
    pub most: i32,
    /// Whether the wait goes on.
    pub more: bool,
}

impl Expected {
    fn exactly(user_data: u64, res: i32) -> Self {
        Self { user_data, least: res, most: res, more: false }
    }

    /// Whether a completion may be this one.
    pub fn admits(&self, user_data: u64, res: i32, flags: u32) -> bool {
        let more = flags == u32::from(self.more) << 1;
        let result = match self.least {
            least if least < 0 || res < 0 => res == least,
            least => res & least == least && res & !self.most == 0,
        };
        user_data == self.user_data && more && result
    }
}

/// The `user_data` of who removes or updates, in a batch one after the other.
pub const REMOVER: u64 = 1000;
/// What is added for the NOP behind a wait.
pub const BEHIND: u64 = 1000;

const ONCE: u32 = uapi::EPOLLONESHOT;
const ALWAYS: u32 = uapi::EPOLLERR | uapi::EPOLLHUP | uapi::EPOLLNVAL | uapi::EPOLLRDHUP;
const IN: u32 = uapi::EPOLLIN;
const OUT: u32 = uapi::EPOLLOUT;
const RDNORM: u32 = uapi::EPOLLRDNORM;
const WRNORM: u32 = uapi::EPOLLWRNORM;

/// A wait that is armed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    user_data: u64,
    file: File,
    events: u32,
    once: bool,
    /// The NOP in a chain behind it.
    link: Option<u64>,
}

impl Wait {
    /// What follows when it has ended.
    fn follow(&self, good: bool, come: &mut Vec<Expected>) {
        let res = if good { 0 } else { -libc::ECANCELED };
        come.extend(self.link.map(|behind| Expected::exactly(behind, res)));
    }
}

/// What a batch has done so far that is not at rest.
#[derive(Clone, Debug, Default)]
struct Flux {
    /// Waits that were woken.
    woken: Vec<u64>,
    /// Waits that were cancelled, and are found until they are home.
    cancelled: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Pipe {
    filled: bool,
    puts: u32,
    reader: bool,
    writer: bool,
}

/// The state of a program at some step.
#[derive(Clone, Debug)]
pub struct Model {
    pipes: [Pipe; PAIRS],
    counts: [bool; PAIRS],
    /// The newest last.
    pub(super) waits: Vec<Wait>,
    /// Places in the CQ.
    cq: u32,
    /// The files are registered ones, which nobody closes.
    fixed: bool,
    /// SQEs are taken one by one, so there are no chains.
    polled: bool,
}

impl Model {
    /// The state before the first step.
    pub fn new(cq: u32, fixed: bool, polled: bool) -> Self {
        let pipe = Pipe { filled: false, puts: 0, reader: true, writer: true };
        Self { pipes: [pipe; PAIRS], counts: [false; PAIRS], waits: Vec::new(), cq, fixed, polled }
    }

    /// What a file is ready for.
    fn state(&self, file: File) -> u32 {
        let on = |yes: bool, events: u32| if yes { events } else { 0 };
        match file {
            File::Read(i) => {
                on(self.pipes[i].filled, IN | RDNORM) | on(!self.pipes[i].writer, uapi::EPOLLHUP)
            }
            File::Write(i) => OUT | WRNORM | on(!self.pipes[i].reader, uapi::EPOLLERR),
            File::Event(i) => OUT | on(self.counts[i], IN),
            File::Storage | File::Null => IN | OUT | RDNORM | WRNORM,
        }
    }

    fn open(&self, file: File) -> bool {
        match file {
            File::Read(i) => self.pipes[i].reader,
            File::Write(i) => self.pipes[i].writer,
            _ => true,
        }
    }

    fn waits_for(&self, file: File) -> usize {
        self.waits.iter().filter(|wait| wait.file == file).count()
    }

    /// Takes a step: what comes of it, or nothing if that is not determined.
    pub fn step(&mut self, step: &Step) -> Option<Vec<Expected>> {
        let mut come = Vec::new();
        match step {
            Step::Batch(ops) => {
                let alone = |op: &Op| {
                    matches!(op, Op::Add { later: true, .. } | Op::Remove { later: true, .. })
                };
                if ops.len() > 1 && ops.iter().any(alone) {
                    return None;
                }
                let mut flux = Flux::default();
                for (i, op) in ops.iter().enumerate() {
                    self.op(op, REMOVER + i as u64, &mut flux, &mut come)?;
                }
            }
            &Step::Put(file) => match file {
                File::Write(i) => {
                    let pipe = &mut self.pipes[i];
                    if !pipe.writer || !pipe.reader || pipe.puts == 50 {
                        return None;
                    }
                    (pipe.filled, pipe.puts) = (true, pipe.puts + 1);
                    self.wake(File::Read(i), IN | RDNORM, &mut come);
                }
                File::Event(i) => {
                    self.counts[i] = true;
                    self.wake(file, IN, &mut come);
                }
                _ => return None,
            },
            &Step::Take(file) => match file {
                File::Read(i) if self.pipes[i].reader => {
                    (self.pipes[i].filled, self.pipes[i].puts) = (false, 0);
                }
                File::Event(i) if self.counts[i] => {
                    self.counts[i] = false;
                    self.wake(file, OUT, &mut come);
                }
                _ => return None,
            },
            &Step::Close(file) => {
                // A wait is a reader or writer, too.
                if self.fixed || !self.open(file) || self.waits_for(file) > 0 {
                    return None;
                }
                let other = match file {
                    File::Read(i) => {
                        self.pipes[i].reader = false;
                        File::Write(i)
                    }
                    File::Write(i) => {
                        self.pipes[i].writer = false;
                        File::Read(i)
                    }
                    _ => return None,
                };
                self.wake(other, 0, &mut come);
            }
            &Step::Flood(i) => {
                let file = File::Event(i);
                let at = self.waits.iter().position(|wait| wait.file == file)?;
                let wait = self.waits[at];
                if self.waits_for(file) > 1
                    || wait.once
                    || wait.link.is_some()
                    || wait.events & IN == 0
                {
                    return None;
                }
                self.counts[i] = true;
                let most = (self.state(file) & wait.events) as i32;
                let one =
                    Expected { least: IN as i32, most, ..Expected::exactly(wait.user_data, 0) };
                come = vec![Expected { more: true, ..one }; self.cq as usize];
                come.push(one);
                self.waits.remove(at);
            }
            &Step::Race { event, .. } => {
                if self.counts[event] || self.waits_for(File::Event(event)) > 0 {
                    return None;
                }
            }
        }
        Some(come)
    }

    /// Wakes who waits for a file. `key` is what the wake-up says; 0: nothing.
    fn wake(&mut self, file: File, key: u32, come: &mut Vec<Expected>) {
        let now = self.state(file);
        self.waits.retain(|wait| {
            let least = if key == 0 { now } else { key } & wait.events;
            if wait.file != file || least == 0 {
                return true;
            }
            let (least, most) = (least as i32, (now & wait.events) as i32);
            come.push(Expected { user_data: wait.user_data, least, most, more: !wait.once });
            if wait.once {
                wait.follow(true, come);
            }
            !wait.once
        });
    }

    /// Takes an SQE of a batch.
    fn op(&mut self, op: &Op, by: u64, flux: &mut Flux, come: &mut Vec<Expected>) -> Option<()> {
        match *op {
            Op::Wrong { add, .. } => {
                let user_data = if add { REMOVER - 1 } else { by };
                come.push(Expected::exactly(user_data, -libc::EINVAL));
            }
            Op::Add { file, events, multi, user_data, later, link } => {
                let once = !multi || events & ONCE != 0;
                if link && self.polled {
                    return None;
                }
                let (events, link) = (events & 0xffff | ALWAYS, link.then_some(by + BEHIND));
                let wait = Wait { user_data, file, events, once, link };
                if !self.open(file) {
                    come.push(Expected::exactly(user_data, -libc::EBADF));
                    wait.follow(false, come);
                    return Some(());
                }
                let now = self.state(file) & wait.events;
                if later && now == 0 {
                    // Nothing says when it has begun to wait.
                    return None;
                }
                match file {
                    File::Storage | File::Null => {
                        let res = if now == 0 { -libc::EINVAL } else { now as i32 };
                        come.push(Expected::exactly(user_data, res));
                        wait.follow(now != 0, come);
                    }
                    _ => self.arm(wait, flux, come),
                }
            }
            Op::Remove { user_data, .. } => match self.find(user_data, flux)? {
                None => come.push(Expected::exactly(by, -libc::ENOENT)),
                Some(at) => {
                    come.push(Expected::exactly(by, 0));
                    self.end(at, come);
                }
            },
            Op::Cancel { user_data, all } => {
                if flux.woken.contains(&user_data) {
                    return None;
                }
                let again = flux.cancelled.iter().filter(|&&other| other == user_data).count();
                let mut count = again;
                if again > 0 && self.polled {
                    // It may be home by now.
                    return None;
                }
                // Which of several is meant is nobody's promise.
                let several = self.waits.iter().filter(|wait| wait.user_data == user_data).count();
                if !all && several + again > 1 {
                    return None;
                }
                while let Some(at) = self.waits.iter().position(|wait| wait.user_data == user_data)
                {
                    self.end(at, come);
                    flux.cancelled.push(user_data);
                    count += 1;
                }
                come.push(Expected::exactly(
                    by,
                    match (all, count) {
                        (true, count) => count as i32,
                        (false, 0) => -libc::ENOENT,
                        (false, _) => 0,
                    },
                ));
            }
            Op::Update { old, user_data, events, .. } => match self.find(old, flux)? {
                None => come.push(Expected::exactly(by, -libc::ENOENT)),
                Some(at) => {
                    let mut wait = self.waits.remove(at);
                    wait.user_data = user_data.unwrap_or(wait.user_data);
                    wait.events = events.map_or(wait.events, |events| events & 0xffff | ALWAYS);
                    come.push(Expected::exactly(by, 0));
                    self.arm(wait, flux, come);
                }
            },
        }
        Some(())
    }

    /// Ends a wait before its time.
    fn end(&mut self, at: usize, come: &mut Vec<Expected>) {
        let wait = self.waits.remove(at);
        come.push(Expected::exactly(wait.user_data, -libc::ECANCELED));
        wait.follow(false, come);
    }

    fn arm(&mut self, wait: Wait, flux: &mut Flux, come: &mut Vec<Expected>) {
        let now = self.state(wait.file) & wait.events;
        if now != 0 {
            let now = Expected::exactly(wait.user_data, now as i32);
            come.push(Expected { more: !wait.once, ..now });
            flux.woken.push(wait.user_data);
            if wait.once {
                wait.follow(true, come);
            }
        }
        if now == 0 || !wait.once {
            self.waits.push(wait);
        }
    }

    /// The newest wait of that name; nothing if it may be on its way.
    fn find(&self, user_data: u64, flux: &Flux) -> Option<Option<usize>> {
        if flux.woken.contains(&user_data) || flux.cancelled.contains(&user_data) {
            return None;
        }
        Some(self.waits.iter().rposition(|wait| wait.user_data == user_data))
    }
}
