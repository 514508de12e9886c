//! The simulated backend: it does with each request what its entry's fate and
//! the actions say, and watches that the engine keeps its side of the contract.

use annulus::engine::Completer;
use annulus::errno::Errno;
use annulus::hal::{Backend, Cancel, Request, Start, Target, Token};
use annulus::uapi::*;

use super::action::{FIRST_FILE, Fate, OPEN_FILES, Outcome, TIME, TIMES};
use super::drive::{self, Way};
use super::model::{By, Verdict};
use super::place::{self, Place, with};

/// How a request in flight will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Somebody else brings its completion.
    Running,
    /// It is found by polling, once it has this result.
    Polled(Option<i32>),
    /// It waits to be woken, so often.
    Asleep(u8),
    /// It waits for these events, once or on and on, unless it is over.
    Poll { events: u32, once: bool, over: Option<i32> },
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    pub id: u32,
    pub token: Token,
    pub file: Option<u32>,
    pub buffer: Option<u32>,
    pub phase: Phase,
}

/// What the backend has.
pub struct Device {
    pub completer: Option<Completer<'static, Place>>,
    /// By slot.
    pub flights: Vec<Option<Flight>>,
    pub flying: usize,
    /// By slot: it has been woken, and not resumed since.
    pub woken: Vec<bool>,
    /// Tokens of requests that have ended.
    pub ended: [u32; 8],
    pub ends: usize,
    pub polled: bool,
    /// Files and buffers that are held, by handle.
    pub files: Vec<u32>,
    pub buffers: Vec<u32>,
    pub handles: u32,
    /// The engine is being shut down.
    pub closing: bool,
    /// Calls since the last action.
    pub calls: u32,
}

impl Device {
    pub const fn new() -> Self {
        Self {
            completer: None,
            flights: Vec::new(),
            flying: 0,
            woken: Vec::new(),
            ended: [0; 8],
            ends: 0,
            polled: false,
            files: Vec::new(),
            buffers: Vec::new(),
            handles: 0,
            closing: false,
            calls: 0,
        }
    }

    /// An empty one for so many slots.
    pub fn reset(&mut self, slots: usize, polled: bool) {
        self.completer = None;
        self.flights.clear();
        self.flights.resize(slots, None);
        self.woken.clear();
        self.woken.resize(slots, false);
        (self.flying, self.ends, self.handles, self.calls) = (0, 0, 0, 0);
        self.files.clear();
        self.buffers.clear();
        (self.polled, self.closing) = (polled, false);
    }

    /// The `nth` of the flights that are as wanted.
    pub fn nth(&self, nth: u8, wanted: impl Fn(&Flight) -> bool) -> Option<usize> {
        let fits = |slot: &usize| self.flights[*slot].as_ref().is_some_and(&wanted);
        let count = (0..self.flights.len()).filter(fits).count();
        if count == 0 {
            return None;
        }
        (0..self.flights.len()).filter(fits).nth(usize::from(nth) % count)
    }

    /// A request has come to its end here.
    pub fn land(&mut self, slot: usize) {
        if let Some(flight) = self.flights[slot].take() {
            self.flying -= 1;
            self.woken[slot] = false;
            self.ended[self.ends % 8] = flight.token.to_raw();
            self.ends += 1;
        }
    }
}

/// The backend as the engine has it.
pub struct Simulated;

impl Backend for Simulated {
    type File = u32;
    type Buffer = u32;

    fn supports(&self, opcode: u8) -> bool {
        matches!(
            opcode,
            IORING_OP_READ
                | IORING_OP_WRITE
                | IORING_OP_READ_FIXED
                | IORING_OP_WRITE_FIXED
                | IORING_OP_FSYNC
                | IORING_OP_POLL_ADD
        )
    }

    fn is_open(&mut self, fd: i32) -> bool {
        (FIRST_FILE..FIRST_FILE + i32::from(OPEN_FILES)).contains(&fd)
    }

    fn open(&mut self, fd: i32) -> Result<u32, Errno> {
        if !self.is_open(fd) {
            return Err(Errno::EBADF);
        }
        with(|world| {
            let device = &mut world.device;
            device.handles += 1;
            device.files.push(device.handles);
            world.model.opened(device.handles);
            Ok(device.handles)
        })
    }

    fn close(&mut self, file: u32) {
        with(|world| {
            let device = &mut world.device;
            let used = device.flights.iter().flatten().find(|flight| flight.file == Some(file));
            if let Some(flight) = used {
                world.model.fail(format!("a file is closed that request {} uses", flight.id));
            }
            match device.files.iter().position(|&open| open == file) {
                Some(at) => drop(device.files.swap_remove(at)),
                None => world.model.fail("a file is closed that is not open"),
            }
        });
    }

    unsafe fn read_memory(&mut self, addr: usize, to: &mut [u8]) -> Result<(), Errno> {
        let id = (addr as u64).wrapping_sub(TIMES) / TIME;
        let time = with(|world| world.model.spec(id as u32).time);
        // Seconds, and nanoseconds.
        let [sec, nsec] = [0, i64::from(time)].map(i64::to_ne_bytes);
        to[..8].copy_from_slice(&sec);
        to[8..16].copy_from_slice(&nsec);
        Ok(())
    }

    unsafe fn map(&mut self, _: usize, _: usize) -> Result<u32, Errno> {
        with(|world| {
            let device = &mut world.device;
            device.handles += 1;
            device.buffers.push(device.handles);
            world.model.opened(device.handles);
            Ok(device.handles)
        })
    }

    fn unmap(&mut self, buffer: u32) {
        with(|world| {
            let device = &mut world.device;
            let used = device.flights.iter().flatten().find(|flight| flight.buffer == Some(buffer));
            if let Some(flight) = used {
                world.model.fail(format!("a buffer is unmapped that request {} uses", flight.id));
            }
            match device.buffers.iter().position(|&mapped| mapped == buffer) {
                Some(at) => drop(device.buffers.swap_remove(at)),
                None => world.model.fail("a buffer is unmapped that is not mapped"),
            }
        });
    }

    unsafe fn start(&mut self, token: Token, request: &Request<u32, u32>) -> Start {
        place::called();
        with(|world| {
            let id = match request.opcode {
                IORING_OP_POLL_ADD => world.model.marked(request.op_flags),
                _ => request.off as u32,
            };
            let file = match request.target {
                Target::Registered(file) => Some(file),
                Target::Fd(_) => None,
            };
            let device = &mut world.device;
            if file.is_some_and(|file| !device.files.contains(&file)) {
                world.model.fail(format!("request {id} is started with a file that is closed"));
            }
            if request.buffer.is_some_and(|buffer| !device.buffers.contains(&buffer)) {
                world.model.fail(format!("request {id} is started with a buffer that is unmapped"));
            }
            let slot = token.index();
            match device.flights.get(slot) {
                Some(None) => {}
                Some(Some(other)) => {
                    let what = format!("request {id} has the slot of {}", other.id);
                    world.model.fail(what);
                }
                None => world.model.fail("a slot that there is not"),
            }
            let Verdict::Go(spec) = world.model.started(id, request) else {
                return Start::Done(-9);
            };
            if spec.polls() {
                let phase = Phase::Running;
                let flight = Flight { id, token, file, buffer: None, phase };
                return world.start_poll(flight, spec, request);
            }
            let has_fallback_to_wait = request.fallback && matches!(spec.fate, Fate::Wakes(_));
            let others = device.flying != 0;
            let phase = match spec.fate {
                Fate::Now(outcome) => {
                    world.vain = 0;
                    let result = spec.result_at_once(outcome);
                    world.model.ended(id, result, By::Start);
                    return Start::Done(result);
                }
                Fate::Refused => {
                    world.vain = 0;
                    world.model.ended(id, -14, By::Refusal);
                    return Start::Refused(-14);
                }
                Fate::Wakes(_) | Fate::NoRoom(_)
                    if world.model.setup.timed && world.model.is_held(id) =>
                {
                    Phase::Running
                }
                _ if has_fallback_to_wait && others => {
                    world.model.no_room(id);
                    return Start::NoRoom;
                }
                Fate::NoRoom(times) if others && world.model.refusals(id) < times => {
                    world.model.no_room(id);
                    return Start::NoRoom;
                }
                Fate::Wakes(_) if spec.selects() && !spec.is_open() && !device.polled => {
                    Phase::Running
                }
                Fate::Wakes(times) if !device.polled => Phase::Asleep(times),
                _ if device.polled => Phase::Polled(None),
                _ => Phase::Running,
            };
            world.vain = 0;
            let device = &mut world.device;
            let flight = Flight { id, token, file, buffer: request.buffer, phase };
            if let Some(place) = device.flights.get_mut(slot) {
                *place = Some(flight);
                device.flying += 1;
            }
            if let (Fate::Early(outcome), Phase::Running) = (spec.fate, phase) {
                world.complete(slot, outcome);
            }
            if let (Phase::Asleep(_), true) = (phase, spec.selects()) {
                world.model.lends(id);
                return Start::Waiting;
            }
            Start::Pending
        })
    }

    fn rebuffer(&mut self, token: Token, addr: u64, len: u32) {
        with(|world| world.rebuffer(token, addr, len));
    }

    unsafe fn resume(&mut self, token: Token) -> Start {
        place::called();
        with(|world| {
            world.vain = 0;
            let slot = token.index();
            let device = &mut world.device;
            let Some(Some(flight)) = device.flights.get_mut(slot) else {
                world.model.fail("a request is resumed that is not in flight");
                return Start::Pending;
            };
            device.woken[slot] = false;
            let req = world.model.req(flight.id);
            (req.woken, req.overdue) = (false, false);
            match flight.phase {
                Phase::Poll { .. } => world.resume_poll(slot),
                Phase::Asleep(left) if req.spec.selects() => {
                    let id = flight.id;
                    world.resume_read(slot, id, left)
                }
                Phase::Asleep(left) if left > 1 => {
                    flight.phase = Phase::Asleep(left - 1);
                    Start::Pending
                }
                _ => {
                    let id = flight.id;
                    let result = world.model.spec(id).result(Outcome::Whole);
                    world.model.ended(id, result, By::Resume);
                    device.land(slot);
                    Start::Done(result)
                }
            }
        })
    }

    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        with(|world| {
            let device = &mut world.device;
            if device.flying == 0 || !device.polled {
                return;
            }
            for slot in 0..device.flights.len() {
                if let Some(Flight { id, token, phase: Phase::Polled(Some(result)), .. }) =
                    device.flights[slot]
                {
                    device.land(slot);
                    world.vain = 0;
                    world.model.ended(id, result, By::Poll);
                    done(token, result);
                    // A device that says it twice, and one that invents.
                    if id.is_multiple_of(4) {
                        done(token, result);
                        done(Token::from_raw(id.wrapping_mul(0x9e37_79b9) | 0xffff), 1);
                    }
                }
            }
        });
    }

    fn polling(&self) -> bool {
        let driven = drive::runs();
        place::called();
        let (busy, vain) = with(|world| {
            let busy = world.device.polled && world.device.flying != 0;
            let by_driver = busy && driven && !world.device.closing;
            if busy && !by_driver {
                world.poll_goes_on();
            }
            (busy, by_driver && world.polls_in_vain())
        });
        if vain {
            drive::give_way(Way::Idle);
        }
        busy
    }

    fn cancel(&mut self, token: Token) -> Cancel {
        with(|world| {
            let slot = token.index();
            let Some(Some(flight)) = world.device.flights.get(slot).copied() else {
                world.model.fail("a request is cancelled that is not in flight");
                return Cancel::Running;
            };
            world.model.asked_to_end(flight.id);
            if let Phase::Poll { .. } = flight.phase {
                return world.end_wait(slot, -125);
            }
            if !world.model.spec(flight.id).can_end || world.device.polled {
                return Cancel::Running;
            }
            world.complete(slot, Outcome::Cancelled);
            Cancel::Ended
        })
    }

    fn update_poll(&mut self, token: Token, events: Option<u32>) {
        with(|world| world.update_poll(token, events));
    }

    fn end(&mut self, token: Token) {
        with(|world| world.end_early(token));
    }

    fn cancel_all(&mut self) {
        with(|world| {
            world.device.closing = true;
            for slot in 0..world.device.flights.len() {
                let Some(flight) = world.device.flights[slot] else { continue };
                if world.model.spec(flight.id).can_end && !world.device.polled {
                    world.complete(slot, Outcome::Cancelled);
                }
            }
        });
    }
}
