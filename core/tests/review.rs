//! Promises that a second pair of eyes found broken, each with the case that
//! showed it.
#![cfg(not(loom))]
// `unsafe` that is not needed would mean that a function became safe to call.
#![deny(unused_unsafe)]

mod common;

use annulus::config::{Config, Footprint, Mode};
use annulus::engine::{Completer, Engine, EnterFlags, Memory, Parts, Remote, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Clock, Host, Request, Start, Token};
use annulus::register::Call;
use annulus::ring::CqHalf;
use annulus::served::Served;
use annulus::squeue::Flags;
use annulus::sync::{AtomicU32, Ordering};
use annulus::uapi::*;
use common::*;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const GETEVENTS: EnterFlags = EnterFlags::GETEVENTS;
const MS: u64 = 1_000_000;

/// Waits for what another thread does; panics after five seconds.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[repr(align(64))]
struct Line(#[allow(dead_code)] [MaybeUninit<u8>; 64]);

/// Memory for a ring that another process could write, and its start.
fn shared_memory(bytes: usize) -> (RingMemory<'static>, NonNull<u8>) {
    let lines: &'static mut [Line] =
        Box::leak((0..bytes / 64).map(|_| Line([MaybeUninit::uninit(); 64])).collect());
    let base = NonNull::from(lines).cast();
    // SAFETY: leaked, and used through the ring and as another process would.
    (RingMemory::At(unsafe { Memory::from_raw(base, bytes) }), base)
}

/// A ring in such memory.
fn shared_rig(config: Config) -> (Parts<'static, Disk<'static>, Place>, NonNull<u8>) {
    let need = Footprint::of::<Disk<'static>, Place>(&config);
    let (rings, base) = shared_memory(need.rings);
    let host = Place(TestHost::new());
    let parts = build(&config, memory(need.engine()), rings, host, |completer| {
        Disk::new(Default::default(), completer)
    });
    (parts.unwrap(), base)
}

/// A word of the ring, as another process reaches it.
fn word(base: NonNull<u8>, offset: usize) -> &'static AtomicU32 {
    // SAFETY: one of the ring's offsets, in memory that lasts for ever.
    unsafe { base.add(offset).cast().as_ref() }
}

#[test]
fn row_enter_a_wait_that_finds_fewer_than_wanted_ends_well() {
    let mut rig = rig(Config::new(4));
    rig.push(&[nop(1)]);
    assert_eq!(rig.parts.engine.enter(1, 0, EnterFlags::empty(), None), Ok(1));
    let deadline = Some(Place(rig.host.clone()).now() + MS);
    // Linux: ETIME only if there is nothing to reap.
    assert_eq!(rig.parts.engine.enter(0, 2, GETEVENTS, deadline), Ok(0));
    assert_eq!(rig.reap(), [(1, 0)]);
    assert_eq!(rig.parts.engine.enter(0, 1, GETEVENTS, deadline), Err(Errno::ETIME));
}

#[test]
fn row_enter_a_wait_under_sqpoll_that_finds_fewer_than_wanted_ends_well() {
    let mut rig = rig(Config::new(4).mode(Mode::SqPoll { idle_ms: 1 }));
    rig.push(&[nop(1)]);
    let (remote, mut engine) = (rig.parts.remote, rig.parts.engine);
    let driver = thread::spawn(move || engine.poll_loop());
    let deadline = |ms| Some(Place(rig.host.clone()).now() + ms * MS);
    assert_eq!(remote.enter(0, 1, GETEVENTS, deadline(5_000)), Ok(0));
    assert_eq!(remote.enter(0, 2, GETEVENTS, deadline(1)), Ok(0));
    assert_eq!(rig.parts.cq.queue().count(), 1);
    assert_eq!(remote.enter(0, 1, GETEVENTS, deadline(1)), Err(Errno::ETIME));
    remote.stop();
    driver.join().unwrap();
}

#[test]
fn row_sqpoll_an_ended_engine_asks_to_be_woken_so_that_the_end_is_learnt() {
    let rig = rig(Config::new(4).mode(Mode::SqPoll { idle_ms: 1 }));
    let (remote, mut engine) = (rig.parts.remote, rig.parts.engine);
    let driver = thread::spawn(move || engine.poll_loop());
    remote.stop();
    driver.join().unwrap();
    // A program that enters only when told to would wait for ever otherwise.
    assert!(remote.need_wakeup());
    assert_eq!(remote.enter(1, 0, EnterFlags::SQ_WAKEUP, None), Err(Errno::EOWNERDEAD));
}

#[test]
fn row_sqpoll_an_sqe_that_must_wait_is_not_tried_again_and_again() {
    let config = Config::new(4).requests(1).mode(Mode::SqPoll { idle_ms: 10_000 });
    let mut rig = rig(config);
    rig.push(&[read(FOR_EVER, 1, 1), read(FOR_EVER, 2, 2)]);
    let (remote, mut engine) = (rig.parts.remote, rig.parts.engine);
    let driver = thread::spawn(move || engine.poll_loop());
    until("the first is under way", || rig.log.lock().unwrap().pending.len() == 1);
    thread::sleep(Duration::from_millis(20));
    let mut stats = annulus::Stats::default();
    // SAFETY: no buffer is registered.
    unsafe { remote.call(Call::Stats(&mut stats)) }.unwrap();
    assert!((1..10).contains(&stats.busy), "{stats:?}");
    let (token, _) = rig.log.lock().unwrap().pending.remove(0);
    rig.completer.complete(token, 1).unwrap();
    until("the second is under way", || rig.log.lock().unwrap().pending.len() == 1);
    remote.stop();
    driver.join().unwrap();
}

#[test]
fn row_rings_naming_an_entry_is_a_promise_about_its_memory() {
    let mut rig = rig(Config::new(4));
    // SAFETY: a NOP points to nothing. That the call must stand in an
    // `unsafe` block is the point: an index may name an entry whose buffer
    // is gone.
    unsafe { rig.parts.sq.queue().set_next_index(1) };
}

#[test]
fn row_rings_a_head_that_lies_leaves_the_sq_full() {
    let config = Config::new(4);
    let (mut parts, base) = shared_rig(config);
    push(&mut parts.sq, &[nop(1), nop(2), nop(3), nop(4)]);
    let head = word(base, config.offsets().sq_head);
    head.store(1_000, Ordering::Relaxed);
    let mut queue = parts.sq.queue();
    for _ in 0..2 {
        // SAFETY: NOPs point to nothing.
        assert!(unsafe { queue.push(&nop(5)) }.is_err());
        queue.sync();
        assert_eq!(queue.len(), 4);
    }
    head.store(1, Ordering::Relaxed);
    // SAFETY: as above.
    assert!(unsafe { queue.push(&nop(5)) }.is_ok());
}

#[test]
fn a_flag_that_lies_about_overflow_does_not_keep_a_server_busy() {
    let config = Config::new(4).mode(Mode::Served);
    let (parts, base) = shared_rig(config);
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    word(base, config.offsets().sq_flags).fetch_or(IORING_SQ_CQ_OVERFLOW, Ordering::Relaxed);
    let entered = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let (served, entered) = (served.clone(), entered.clone());
        move || {
            served.enter(0, 0, EnterFlags::empty(), None).unwrap();
            entered.store(true, Ordering::Release);
        }
    });
    until("enter comes back", || entered.load(Ordering::Acquire));
}

#[test]
fn a_tail_that_lies_about_room_does_not_keep_a_server_busy() {
    let config = Config::new(4).cq_entries(4).mode(Mode::Served);
    let (mut parts, base) = shared_rig(config);
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    for entries in [&[1, 2, 3, 4].map(nop)[..], &[nop(5)]] {
        push(&mut parts.sq, entries);
        let count = entries.len() as u32;
        assert_eq!(served.enter(count, 0, EnterFlags::empty(), None), Ok(count));
    }
    // One waits for room, of which there seems to be some.
    let tail = word(base, config.offsets().cq_tail);
    assert_eq!(tail.swap(1, Ordering::Relaxed), 4);
    let done = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let (served, done) = (served.clone(), done.clone());
        move || {
            served.serve();
            done.store(true, Ordering::Release);
        }
    });
    until("serve comes back", || done.load(Ordering::Acquire));
    assert_eq!(tail.load(Ordering::Relaxed), 4, "put right");
}

#[test]
fn a_flag_that_lies_again_and_again_does_not_keep_a_server_from_its_end() {
    let config = Config::new(4).mode(Mode::Served);
    let (parts, base) = shared_rig(config);
    let remote = parts.remote;
    let served = Arc::new(Served::new(parts.engine, remote));
    let over = Arc::new(AtomicBool::new(false));
    let liar = thread::spawn({
        let over = over.clone();
        let flags = word(base, config.offsets().sq_flags);
        move || {
            while !over.load(Ordering::Relaxed) {
                flags.store(IORING_SQ_CQ_OVERFLOW, Ordering::Relaxed);
            }
        }
    });
    let helper = thread::spawn(move || served.help());
    thread::sleep(Duration::from_millis(5));
    remote.stop();
    until("the helper ends", || helper.is_finished());
    over.store(true, Ordering::Relaxed);
    liar.join().unwrap();
}

#[test]
fn row_references_every_result_ends_its_request() {
    let mut rig = rig(Config::new(4));
    rig.push(&[read(LATER, 1, 1)]);
    rig.parts.engine.enter(1, 0, EnterFlags::empty(), None).unwrap();
    // The number that stands for READY inside is nobody's errno.
    rig.complete_first(i32::MIN);
    rig.parts.engine.enter(0, 0, GETEVENTS, None).unwrap();
    let cqes = rig.reap();
    assert_eq!(cqes.len(), 1);
    assert!(cqes[0].1 < -4095);
}

/// Files that belong to one thread.
#[derive(Clone, Copy)]
struct Mine(#[allow(dead_code)] *const u8);

/// What a test backend is asked to report.
#[derive(Default)]
struct Found {
    started: Vec<Token>,
    ended: Vec<(Token, i32)>,
    /// Ends by a notice when the engine asks whether to poll while it has SQEs.
    ends_at_a_look: Option<(Token, Remote<'static, Place>)>,
    full: bool,
    /// Ends without a notice, to be found when the engine asks whether to poll
    /// and has taken all SQEs.
    ends_at_last: Option<(Token, Remote<'static, Place>)>,
    /// An application that reaps whenever the engine asks whether to poll.
    reaps: Option<CqHalf<'static>>,
    reaped: Vec<u64>,
}

impl Found {
    fn reap(&mut self) {
        let new = self.reaps.iter_mut().flat_map(|cq| cq.queue());
        self.reaped.extend(new.map(|cqe| cqe.user_data()));
    }
}

/// A backend that is polled, and sends a READY notice just before each result.
struct Polled<'m, H> {
    found: Arc<Mutex<Found>>,
    completer: Completer<'m, H>,
}

impl<H: Host> Backend for Polled<'_, H> {
    type File = Mine;
    type Buffer = ();

    fn supports(&self, _: u8) -> bool {
        true
    }

    fn open(&mut self, _: i32) -> Result<Mine, Errno> {
        Ok(Mine(std::ptr::null()))
    }

    fn close(&mut self, _: Mine) {}

    unsafe fn map(&mut self, _: usize, _: usize) -> Result<(), Errno> {
        Ok(())
    }

    fn unmap(&mut self, (): ()) {}

    unsafe fn start(&mut self, token: Token, _: &Request<Mine, ()>) -> Start {
        let mut found = self.found.lock().unwrap();
        if found.full {
            return Start::NoRoom;
        }
        found.started.push(token);
        Start::Pending
    }

    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        let mut found = self.found.lock().unwrap();
        for (token, result) in std::mem::take(&mut found.ended) {
            self.completer.ready(token).unwrap();
            done(token, result);
        }
        if let Some((token, _)) = found.ends_at_last.take() {
            done(token, 1);
        }
    }

    fn cancel_all(&mut self) {
        for token in std::mem::take(&mut self.found.lock().unwrap().started) {
            self.completer.complete(token, Errno::ECANCELED.to_result()).unwrap();
        }
    }

    fn polling(&self) -> bool {
        let mut found = self.found.lock().unwrap();
        if let Some((token, _)) = found.ends_at_a_look.take_if(|(_, ring)| ring.sq_ready() != 0) {
            self.completer.complete(token, 1).unwrap();
        }
        found.reap();
        let last = found.ends_at_last.as_ref().is_some_and(|(_, ring)| ring.sq_ready() == 0);
        last || !found.ended.is_empty() || found.reaps.is_some()
    }
}

#[test]
fn row_references_a_notice_may_cross_a_polled_end() {
    let config = Config::new(4).requests(1);
    let need = Footprint::of::<Polled<'static, Place>, Place>(&config).total();
    let found = Arc::new(Mutex::new(Found::default()));
    let mut completer = None;
    let mut parts =
        build(&config, memory(need), RingMemory::Inside, Place(TestHost::new()), |given| {
            completer = Some(given);
            Polled { found: found.clone(), completer: given }
        })
        .unwrap();
    let mut enter = |to_submit, want| parts.engine.enter(to_submit, want, GETEVENTS, None).unwrap();
    let started = || found.lock().unwrap().started.pop().unwrap();
    for round in 0..3 {
        push(&mut parts.sq, &[read(LATER, 1, 1)]);
        enter(1, 0);
        let first = started();
        found.lock().unwrap().ended.push((first, round));
        // The next request comes before the notice is looked at.
        push(&mut parts.sq, &[read(LATER, 1, 2)]);
        enter(1, 1);
        completer.unwrap().complete(started(), 10 + round).unwrap();
        enter(0, 2);
        let cqes: Vec<_> = parts.cq.queue().map(|cqe| (cqe.user_data(), cqe.result())).collect();
        assert_eq!(cqes, [(1, round), (2, 10 + round)]);
    }
    // The reserve is free too: nothing was left behind.
    assert_eq!(parts.engine.pending(), 0);
}

#[test]
fn row_sqpoll_a_cqe_found_by_a_batch_that_takes_nothing_is_posted() {
    let config = Config::new(4).requests(2).mode(Mode::SqPoll { idle_ms: 10_000 });
    let need = Footprint::of::<Polled<'static, Place>, Place>(&config).total();
    let found = Arc::new(Mutex::new(Found::default()));
    let place = Place(TestHost::new());
    let Parts { mut engine, mut sq, mut cq, remote } =
        build(&config, memory(need), RingMemory::Inside, place.clone(), |completer| Polled {
            found: found.clone(),
            completer,
        })
        .unwrap();
    let application = thread::spawn(move || {
        push(&mut sq, &[read(LATER, 1, 1), read(LATER, 1, 2)]);
        until("both are under way", || found.lock().unwrap().started.len() == 2);
        {
            let mut found = found.lock().unwrap();
            found.full = true;
            found.ends_at_a_look = Some((found.started.remove(0), remote));
        }
        push(&mut sq, &[read(LATER, 1, 3)]);
        let waited = remote.wait_cqes(1, Some(place.now() + 1_000 * MS));
        let cqes: Vec<_> = cq.queue().map(|cqe| cqe.user_data()).collect();
        // The end, well or not.
        let mut found = found.lock().unwrap();
        found.full = false;
        let last = found.started.remove(0);
        found.ended.push((last, 0));
        drop(found);
        remote.stop();
        (waited, cqes)
    });
    engine.poll_loop();
    assert_eq!(application.join().unwrap(), (Ok(()), vec![1]));
}

#[test]
fn row_cq_full_nothing_passes_a_waiting_cqe_while_the_application_reaps() {
    let config = Config::new(4).cq_entries(4).requests(3);
    let need = Footprint::of::<Polled<'static, Place>, Place>(&config).total();
    let found = Arc::new(Mutex::new(Found::default()));
    let host = Place(TestHost::new());
    let Parts { mut engine, mut sq, cq, .. } =
        build(&config, memory(need), RingMemory::Inside, host, |completer| Polled {
            found: found.clone(),
            completer,
        })
        .unwrap();
    // Something in flight, for which room is looked for; and 5 finds none.
    push(&mut sq, &[read(LATER, 1, 99)]);
    assert_eq!(engine.enter(1, 0, EnterFlags::empty(), None), Ok(1));
    push(&mut sq, &[1, 2, 3, 4].map(nop));
    assert_eq!(engine.enter(4, 0, EnterFlags::empty(), None), Ok(4));
    push(&mut sq, &[nop(5)]);
    assert_eq!(engine.enter(1, 0, EnterFlags::empty(), None), Ok(1));
    // While these are taken there is room, which is 5's.
    found.lock().unwrap().reaps = Some(cq);
    push(&mut sq, &[nop(6), nop(7)]);
    let taken = engine.enter(2, 0, EnterFlags::empty(), None).unwrap();
    engine.enter(2 - taken, 0, GETEVENTS, None).unwrap();
    let mut found = found.lock().unwrap();
    found.reap();
    assert_eq!(found.reaped, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn what_follows_an_end_that_a_wait_finds_does_not_wait_for_the_next_wait() {
    let config = Config::new(4);
    let need = Footprint::of::<Polled<'static, Place>, Place>(&config).total();
    let found = Arc::new(Mutex::new(Found::default()));
    let host = Place(TestHost::new());
    let mut parts = build(&config, memory(need), RingMemory::Inside, host, |completer| Polled {
        found: found.clone(),
        completer,
    })
    .unwrap();
    push(&mut parts.sq, &[read(LATER, 1, 1).flags(Flags::IO_LINK), nop(2)]);
    assert_eq!(parts.engine.enter(2, 0, EnterFlags::empty(), None), Ok(2));
    let mut works = found.lock().unwrap();
    let token = works.started.pop().unwrap();
    works.ends_at_last = Some((token, parts.remote));
    drop(works);
    // 1 ends when the engine looks at last, and makes two with 3.
    push(&mut parts.sq, &[nop(3)]);
    assert_eq!(parts.engine.enter(1, 2, GETEVENTS, None), Ok(1));
    // These ask for nothing but themselves.
    for user_data in [4, 5] {
        push(&mut parts.sq, &[nop(user_data)]);
        assert_eq!(parts.engine.enter(1, 1, GETEVENTS, None), Ok(1));
    }
    let cqes: Vec<_> = parts.cq.queue().map(|cqe| cqe.user_data()).collect();
    assert_eq!(cqes, [3, 1, 2, 4, 5]);
}

// A server's engine is driven by many threads: what a backend lets it keep
// must be able to move with it.
static_assertions::assert_not_impl_any!(Served<'static, Polled<'static, Place>, Place>: Send, Sync);
static_assertions::assert_impl_all!(Served<'static, Disk<'static>, Place>: Send, Sync);
static_assertions::assert_impl_all!(Engine<'static, Disk<'static>, Place>: Send);
