//! One run: a ring, and an application that does what the actions say.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use std::cell::Cell;
use std::fmt::Write;

use annulus::config::Config;
use annulus::engine::{EnterFlags, Memory, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::Parked;
use annulus::register::Call;
use annulus::types::Iovec;

use super::action::{Action, BUFFER, FIRST_FILE, Op, Register, Setup, Spec, buffer_base};
use super::device::Simulated;
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
    /// Not dropped: a run that has failed must not be ended by what failed.
    parts: ManuallyDrop<Parts<'static, Simulated, Place>>,
    setup: Setup,
}

/// What a run that failed has done.
#[derive(Clone, Debug)]
pub struct Failure {
    pub why: String,
    pub setup: Setup,
    pub actions: Vec<Action>,
}

impl Run {
    fn new(setup: Setup) -> Self {
        let config = Config::new(setup.sq)
            .cq_entries(setup.cq)
            .requests(setup.requests)
            .files(setup.files)
            .buffers(setup.buffers)
            .submit_all(setup.submit_all)
            .index_array(setup.array)
            .held(setup.held)
            .provided(setup.provided, setup.groups);
        let [rings, engine] = bases();
        // SAFETY: both last for ever, and are this thread's; the run before
        // this one is over, and nothing of it is used again.
        let (memory, at) =
            unsafe { (Memory::from_raw(engine, MEMORY), Memory::from_raw(rings, MEMORY)) };
        let parts = build(&config, memory, RingMemory::At(at), Place, |completer| {
            with(|world| world.device.completer = Some(completer));
            Simulated
        });
        let parts = ManuallyDrop::new(parts.expect("a ring that can be"));
        let offsets = config.offsets();
        with(|world| world.rings = Some(Rings { base: rings, offsets, cq: setup.cq }));
        Self { parts, setup }
    }

    /// Does one thing.
    fn act(&mut self, action: Action) {
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
                let mut queue = self.parts.sq.queue();
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
            Action::Reap(count) => {
                let count = self.parts.cq.queue().take(count.into()).count() as u32;
                with(|world| world.model.reaped += count);
            }
            Action::Control(spec) => self.control(spec, 1),
            Action::Twice(spec) => self.control(spec, 2),
            // What may have started, unseen, would be of the one table or the other.
            Action::Register(_) if with(|world| world.model.is_vague()) => {}
            Action::Fill { .. } if with(|world| world.model.is_vague()) => {}
            Action::Fill { group, count, len } => {
                with(|world| world.fill_ring(group, count, len));
            }
            Action::Register(call) => self.register(call),
            outside => with(|world| world.outside(outside)),
        }
    }

    /// Submits a request about others, only where nothing is in between.
    fn control(&mut self, spec: Spec, times: u8) {
        let vague = |model: &Model| {
            // One of several CQEs that finds no room is the last.
            let most = model.due - model.reaped + model.active.len() as u32;
            let full = model.setup.timed && most >= model.setup.cq;
            // Between two of them nothing comes home, if there are records.
            let times = u32::from(times);
            let short = times > 1 && model.in_use() + times > model.setup.requests;
            let queued = model.waiting_entries() != 0 || model.mood;
            model.is_vague() || queued || full || short || times > model.setup.sq
        };
        if !with(|world| vague(&world.model)) {
            (0..times).for_each(|_| self.act(Action::Push(spec)));
            self.enter(times, 0, false, 0);
        }
    }

    fn enter(&mut self, count: u8, want: u8, wait: bool, limit: u32) {
        let count = u32::from(count);
        let deadline = (limit != 0).then(|| place::now() + u64::from(limit));
        let before = with(|world| {
            world.model.enter(count);
            (world.waiting, world.parked, world.deadline) = (wait, None, deadline);
            (world.model.in_use(), world.model.fired)
        });
        let (before, fired) = before;
        let flags = if wait { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        let answer = self.parts.engine.enter(count, want.into(), flags, deadline);
        let answer = answer.map_err(Errno::to_result);
        with(|world| {
            world.waiting = false;
            world.model.entered(count, answer, before);
            world.look();
            world.rest();
            let (unread, cq) = (world.rings.map_or(0, |rings| rings.unread()), self.setup.cq);
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
            if error && (!wait || unread != 0) {
                world.model.fail("a wait that has something is said to have failed");
            }
            if wait && count == 0 && want != 0 && unread == 0 && !error && !timed {
                world.model.fail("a wait that has nothing is said to have succeeded");
            }
        });
    }

    fn register(&mut self, call: Register) {
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
        let engine = &mut self.parts.engine;
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
    fn sound(&self) -> bool {
        with(|world| world.model.why.is_none())
    }

    /// Everything comes to its end, and everything comes back.
    fn wind_down(&mut self) {
        // More rounds than the longest chain of requests that wait for others.
        for _ in 0..2_000 {
            let done = with(|world| {
                world.model.active.is_empty()
                    && world.model.waiting_entries() == 0
                    && world.model.due == world.model.seen
            });
            if done || !self.sound() {
                break;
            }
            let mut left = 1_000;
            while with(|world| world.device.flying != 0) && self.sound() {
                left -= 1;
                if left == 0 {
                    with(|world| world.model.fail("requests stay in flight whatever comes"));
                }
                with(|world| world.device.closing = true);
                let action = with(|world| world.meanwhile(None));
                if let Some(action) = action {
                    with(|world| world.outside(action));
                }
                with(|world| world.device.closing = false);
                self.enter(0, 0, false, 0);
                self.act(Action::Reap(64));
            }
            // The time of everything that has one passes.
            place::set_now(place::now() + 10_000);
            let ready = with(|world| world.model.waiting_entries());
            self.enter(ready as u8, 0, false, 0);
            self.act(Action::Reap(64));
        }
        with(|world| {
            let (active, left) = (world.model.active.len(), world.model.waiting_entries());
            if active != 0 || left != 0 {
                let first = world.model.active.first().map(|&id| world.model.reqs[id as usize]);
                let what =
                    format!("{active} requests never end, {left} are never taken: {first:?}");
                world.model.fail(what);
            }
        });
        if !self.sound() {
            return;
        }
        self.all_buffers_are_there();
        let mut dump = String::new();
        // A string takes everything.
        let _ = self.parts.engine.dump(&mut dump);
        let free = format!("requests: 0 of {} in use, reserve free, 0 CQEs", self.setup.requests);
        if !dump.contains(&free) || self.parts.engine.pending() != 0 {
            with(|world| world.model.fail(format!("a request's record is lost:\n{dump}")));
        }
        for call in [Register::NoFiles, Register::NoBuffers] {
            let known = with(|world| match call {
                Register::NoFiles => world.model.tables.files.len(),
                _ => world.model.tables.buffers.len(),
            });
            if known != 0 {
                self.register(call);
            }
        }
        self.nothing_is_held();
    }

    /// Groups have what the model says, and there is room for as many as ever.
    fn all_buffers_are_there(&mut self) {
        let groups = if self.setup.groups == 0 { 0 } else { provided::GROUPS };
        for group in 0..groups {
            self.register(Register::Head { group });
            self.register(Register::NoRing { group });
        }
        let all = [Op::Unprovide { count: 200 }, Op::Provide { count: 9 }];
        for op in all.into_iter().chain([Op::Unprovide { count: 200 }]) {
            for buffer in 0..groups {
                self.control(Spec { op, buffer, ..Spec::NOP }, 1);
                self.act(Action::Reap(64));
            }
        }
    }

    fn nothing_is_held(&self) {
        with(|world| {
            let (files, buffers) = (world.device.files.len(), world.device.buffers.len());
            if files + buffers + world.device.flying != 0 {
                world.model.fail(format!("{files} files and {buffers} buffers never come back"));
            }
        });
    }

    fn shut_down(&mut self) {
        self.parts.engine.shutdown();
        self.nothing_is_held();
        if self.parts.engine.pending() != 0 {
            with(|world| world.model.fail("requests are in flight after the end"));
        }
        let answer = self.parts.engine.enter(1, 0, EnterFlags::empty(), None);
        if answer != Err(Errno::EOWNERDEAD) {
            with(|world| world.model.fail(format!("an engine that has ended answers {answer:?}")));
        }
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
            Err(panic) => Some(panic_text(&*panic)),
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
