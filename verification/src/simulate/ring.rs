//! One run: a ring, and an application that does what the actions say.

use core::ptr::NonNull;
use std::cell::Cell;
use std::fmt::Write;

use annulus::config::{Config, Mode};
use annulus::engine::{EnterFlags, Memory, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::Parked;
use annulus::register::Call;
use annulus::ring::SqHalf;
use annulus::types::Iovec;

use super::action::{Action, BUFFER, Drive, FIRST_FILE, Op, Register, Setup, Spec, buffer_base};
use super::device::Simulated;
use super::drive::{self, Hands};
use super::model::Model;
use super::place::{self, Place, with};
use super::provided;
use super::world::{Rings, Source};

/// Bytes for the largest ring that is drawn.
const MEMORY: usize = 64 << 10;

#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

thread_local! {
    /// The rings' memory and the engine's. Each run builds anew in it.
    static BASES: Cell<Option<[NonNull<u8>; 2]>> = const { Cell::new(None) };
}

fn bases() -> [NonNull<u8>; 2] {
    BASES.get().unwrap_or_else(|| {
        let leak = |_| {
            let lines: Box<[Line]> = (0..MEMORY / 64).map(|_| Line([0; 64])).collect();
            NonNull::from(Box::leak(lines)).cast()
        };
        let bases = [0, 1].map(leak);
        BASES.set(Some(bases));
        bases
    })
}

/// A run.
pub struct Run {
    sq: SqHalf<'static>,
    pub hands: Hands,
    pub setup: Setup,
}

/// What a run that failed has done.
#[derive(Clone, Debug)]
pub struct Failure {
    pub why: String,
    pub setup: Setup,
    pub actions: Vec<Action>,
}

impl Run {
    pub fn new(setup: Setup) -> Self {
        let config = Config::new(setup.sq)
            .cq_entries(setup.cq)
            .requests(setup.requests)
            .files(setup.files)
            .buffers(setup.buffers)
            .submit_all(setup.submit_all)
            .index_array(setup.array)
            .held(setup.held)
            .provided(setup.provided, setup.groups)
            .mode(match setup.drive {
                Drive::Inline => Mode::Inline,
                Drive::Polled => Mode::SqPoll { idle_ms: 1 },
                Drive::Served => Mode::Served,
            });
        let [rings, engine] = bases();
        // SAFETY: both last for ever, and are this thread's; the run before
        // this one is over, and nothing of it is used again.
        let (memory, at) =
            unsafe { (Memory::from_raw(engine, MEMORY), Memory::from_raw(rings, MEMORY)) };
        let parts = build(&config, memory, RingMemory::At(at), Place, |completer| {
            with(|world| world.device.completer = Some(completer));
            Simulated
        });
        let Parts { engine, sq, cq, remote } = parts.expect("a ring that can be");
        let offsets = config.offsets();
        with(|world| {
            world.rings = Some(Rings { base: rings, offsets, cq: setup.cq });
            world.cq = Some(cq);
        });
        Self { sq, hands: Hands::new(setup.drive, engine, remote), setup }
    }

    /// Does one thing.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Push(mut spec) => {
                let follows = with(|world| world.model.reqs.last().is_some_and(|r| r.spec.links()));
                if let Op::Timeout { repeats: 1.., .. } = spec.op {
                    // Which of its CQEs is the last is seen too late for what
                    // follows.
                    spec.flags = 0;
                }
                if let Op::Timeout { count, .. } = &mut spec.op
                    && (follows || spec.flags != 0)
                {
                    // Who counts cannot be seen to by what follows.
                    *count = 0;
                }
                // The simulated backend ends every wait that it is asked to.
                spec.can_end |= spec.polls();
                let id = with(|world| world.model.reqs.len() as u32);
                let mut queue = self.sq.queue();
                // SAFETY: the simulated backend touches no memory.
                if unsafe { queue.push(&spec.entry(id)) }.is_ok() {
                    with(|world| world.model.pushed(spec));
                } else {
                    with(|world| {
                        if world.model.waiting_entries() < world.model.setup.sq {
                            world.model.fail("the SQ has no room, and should");
                        }
                    });
                }
            }
            Action::Enter { count, want, wait, limit } => self.enter(count, want, wait, limit),
            Action::Reap(count) | Action::Cross { count, .. } => {
                with(|world| {
                    world.keep();
                    world.reap(count);
                });
            }
            Action::Drive => {
                drive::go();
            }
            Action::Control(spec) => self.control(spec, 1),
            Action::Twice(spec) => self.control(spec, 2),
            Action::Register(_) | Action::Fill { .. } if !self.is_known() => {}
            Action::Fill { group, count, len } => {
                with(|world| world.fill_ring(group, count, len));
            }
            Action::Register(call) => self.register(call),
            outside => with(|world| world.outside(outside)),
        }
    }

    /// Whether it is known what has started: otherwise it would be of the one
    /// table or the other.
    fn is_known(&self) -> bool {
        drive::rest();
        let takes = self.setup.drive == Drive::Polled;
        with(|world| {
            let model = &world.model;
            !(model.is_vague() || takes && model.waiting_entries() != 0)
        })
    }

    /// Submits a request about others, only where nothing is in between.
    pub fn control(&mut self, spec: Spec, times: u8) {
        let vague = |model: &Model| {
            // One of several CQEs that finds no room is the last.
            let most = model.due - model.reaped + model.active.len() as u32;
            let several = model.setup.timed || model.setup.polls;
            let full = several && most >= model.setup.cq;
            // Between two of them nothing comes home, if there are records.
            let times = u32::from(times);
            let reserve = u32::from(times == 1);
            let short = model.in_use() + times > model.setup.requests + reserve;
            let queued = model.waiting_entries() != 0 || model.mood || model.may_be_stuck();
            model.is_vague() || queued || full || short || times > model.setup.sq
        };
        drive::rest();
        if !with(|world| vague(&world.model)) {
            (0..times).for_each(|_| self.act(Action::Push(spec)));
            self.enter(times, 0, false, 0);
            if self.setup.drive == Drive::Polled {
                drive::rest();
            }
        }
    }

    pub fn enter(&mut self, count: u8, want: u8, wait: bool, limit: u32) {
        let count = u32::from(count);
        let deadline = (limit != 0).then(|| place::now() + u64::from(limit));
        let before = with(|world| {
            if self.setup.drive != Drive::Polled {
                world.model.enter(count);
            }
            world.crossed = 0;
            (world.waiting, world.parked, world.deadline) = (wait, None, deadline);
            world.want = if wait { u32::from(want).min(self.setup.cq) } else { 0 };
            (world.model.in_use(), world.model.fired)
        });
        let (before, fired) = before;
        let flags = if wait { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        let answer = self.hands.enter(count, want.into(), flags, deadline);
        let answer = answer.map_err(Errno::to_result);
        with(|world| {
            world.waiting = false;
            if self.setup.drive != Drive::Polled {
                world.model.entered(count, answer, before);
                world.look();
            }
            // Somebody else may have had to do something meanwhile.
            if self.setup.drive == Drive::Inline || world.is_served() && world.parked.is_none() {
                world.rest();
            } else {
                world.amid();
            }
            // And those that were there, and have been taken meanwhile.
            let left = world.rings.map_or(0, |rings| rings.unread());
            let unread = left + world.crossed;
            let cq = self.setup.cq;
            let late = deadline.is_some_and(|deadline| place::now() >= deadline);
            // A timeout that ends, ends every wait, as in Linux.
            let timed = world.model.fired != fired;
            let over = late
                || timed
                || matches!(world.parked, Some(Parked::TimedOut | Parked::Interrupted));
            let waited = wait && answer.unwrap_or(0) == count;
            if waited && unread < u32::from(want).min(cq) && !over {
                world.model.fail(format!("a wait for {want} CQEs ends with {unread}"));
            }
            let error = matches!(answer, Err(-62 | -4));
            if error && (!wait || left != 0) {
                world.model.fail("a wait that has something is said to have failed");
            }
            if wait && count == 0 && want != 0 && unread == 0 && !error && !timed {
                world.model.fail("a wait that has nothing is said to have succeeded");
            }
        });
    }

    pub fn register(&mut self, call: Register) {
        let number =
            |file: i8| if file < 0 { i32::from(file) } else { FIRST_FILE + i32::from(file) };
        let buffer = |place: u8, full: bool| Iovec {
            base: if full { buffer_base(place) as usize as *mut _ } else { core::ptr::null_mut() },
            len: if full { BUFFER as usize } else { 0 },
        };
        let full = |mask: u8, place: u8| mask >> (place % 8) & 1 != 0;
        if let Register::Ring { group, .. } = call
            && with(|world| world.model.becomes_ring(group))
        {
            provided::clear_ring(group);
        }
        let engine = &mut self.hands;
        let file =
            |mask: u8, place: u8| if full(mask, place) { number(place as i8 % 4) } else { -1 };
        // SAFETY: the simulated backend touches no memory.
        let answer = unsafe {
            match call {
                Register::Files { count, mask } => {
                    let fds: [i32; 8] = core::array::from_fn(|place| file(mask, place as u8));
                    engine.call(Call::RegisterFiles(&fds[..count.into()]))
                }
                Register::UpdateFile { place, file } => {
                    let offset = place.into();
                    engine.call(Call::UpdateFiles { offset, fds: &[number(file)] })
                }
                Register::NoFiles => engine.call(Call::UnregisterFiles),
                Register::Buffers { count, mask } => {
                    let all: [Iovec; 8] =
                        core::array::from_fn(|at| buffer(at as u8, full(mask, at as u8)));
                    engine.call(Call::RegisterBuffers(&all[..count.into()]))
                }
                Register::UpdateBuffer { place, full } => {
                    let offset = place.into();
                    engine.call(Call::UpdateBuffers { offset, buffers: &[buffer(place, full)] })
                }
                Register::NoBuffers => engine.call(Call::UnregisterBuffers),
                other => engine.call(provided::ring_call(other).expect("a ring's")),
            }
        };
        let answer = answer.map_or_else(Errno::to_result, |done| done as i32);
        with(|world| world.model.registered(call, answer));
    }

    /// Whether the run goes on.
    pub fn sound(&self) -> bool {
        with(|world| world.model.why.is_none())
    }
}

/// Runs what a source gives. How many steps it was.
///
/// # Errors
/// What went wrong; with the actions, if they are kept.
pub fn run(setup: Setup, source: Source, keep: bool) -> Result<u64, Failure> {
    with(|world| world.reset(setup, source, keep));
    let went = std::panic::catch_unwind(|| {
        let mut run = Run::new(setup);
        while run.sound()
            && let Some(action) = with(super::world::World::next)
        {
            run.act(action);
        }
        if run.sound() {
            let winds_down =
                with(|world| world.steps.is_multiple_of(4) || world.model.reqs.len() % 2 == 0);
            with(|world| world.source = Source::None);
            if winds_down {
                run.wind_down();
            }
        }
        if run.sound() {
            run.shut_down();
        }
    });
    with(|world| {
        let why = match went {
            Ok(()) => world.model.why.take(),
            Err(panic) => world.model.why.take().or_else(|| Some(panic_text(&*panic))),
        };
        match why {
            None => Ok(world.steps),
            Some(why) => {
                let actions = world.trace.take().unwrap_or_default();
                Err(Failure { why, setup, actions })
            }
        }
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let mut text = String::from("panic: ");
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or(panic.downcast_ref::<&str>().copied());
    // A string takes everything.
    let _ = text.write_str(said.unwrap_or("without a word"));
    text
}
