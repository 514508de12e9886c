//! Fixed reads and writes of registered files over a device that is polled:
//! the engine's short way, beside everything that can happen on it.
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, Footprint};
use annulus::engine::{EnterFlags, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Request, Start, Target, Token};
use annulus::opcode::{ReadFixed, WriteFixed};
use annulus::register::Call;
use annulus::squeue::Entry;
use annulus::types::{Fd, Fixed, Iovec};
use annulus::uapi::{IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED};
use common::{Place, TestHost, memory, nop, push};
use proptest::prelude::*;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// What the device was asked for, and what it is to answer.
#[derive(Default)]
struct Log {
    under_way: Vec<(Token, Request<u32, usize>)>,
    /// What the next starts answer; then Pending.
    answers: VecDeque<Start>,
    /// What the next poll tells of.
    found: Vec<(Token, i32)>,
    closed: Vec<u32>,
    unmapped: Vec<usize>,
    opened: u32,
}

struct Device(Arc<Mutex<Log>>);

impl Device {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap()
    }
}

impl Backend for Device {
    type File = u32;
    type Buffer = usize;

    fn supports(&self, opcode: u8) -> bool {
        matches!(opcode, IORING_OP_READ_FIXED | IORING_OP_WRITE_FIXED)
    }

    fn open(&mut self, _: i32) -> Result<u32, Errno> {
        self.log().opened += 1;
        Ok(self.log().opened)
    }

    fn close(&mut self, file: u32) {
        self.log().closed.push(file);
    }

    unsafe fn map(&mut self, addr: usize, _: usize) -> Result<usize, Errno> {
        Ok(addr)
    }

    fn unmap(&mut self, buffer: usize) {
        self.log().unmapped.push(buffer);
    }

    unsafe fn start(&mut self, token: Token, request: &Request<u32, usize>) -> Start {
        let start = self.log().answers.pop_front().unwrap_or(Start::Pending);
        if start == Start::Pending {
            self.log().under_way.push((token, *request));
        }
        start
    }

    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        let found = std::mem::take(&mut self.log().found);
        found.into_iter().for_each(|(token, result)| done(token, result));
    }

    fn polling(&self) -> bool {
        !self.log().found.is_empty()
    }

    fn cancel_all(&mut self) {
        let mut log = self.log();
        let under_way: Vec<_> = log.under_way.drain(..).collect();
        log.found.extend(under_way.iter().map(|(token, _)| (*token, Errno::ECANCELED.to_result())));
    }
}

struct Rig {
    parts: Parts<'static, Device, Place>,
    log: Arc<Mutex<Log>>,
}

/// Buffers are 4096 bytes each from here on, back to back.
const BASE: usize = 0x10_0000;

fn rig(config: Config) -> Rig {
    let config = config.files(4).buffers(4);
    let log = Arc::new(Mutex::new(Log::default()));
    let need = Footprint::of::<Device, Place>(&config).total();
    let host = Place(TestHost::new());
    let device = Device(log.clone());
    let mut parts = build(&config, memory(need), RingMemory::Inside, host, |_| device).unwrap();
    let buffers = [0, 1].map(|i| iovec(BASE + i * 4096));
    // SAFETY: the device touches no memory.
    unsafe {
        parts.engine.call(Call::RegisterFiles(&[7, 8])).unwrap();
        parts.engine.call(Call::RegisterBuffers(&buffers)).unwrap();
    }
    Rig { parts, log }
}

fn iovec(at: usize) -> Iovec {
    Iovec::new(std::ptr::without_provenance_mut(at), 4096)
}

fn read(file: u32, buffer: u16, user_data: u64) -> Entry {
    let at = std::ptr::without_provenance_mut(BASE + usize::from(buffer) * 4096);
    ReadFixed::new(Fixed(file), at, 512, buffer).offset(user_data).build().user_data(user_data)
}

fn write(file: u32, buffer: u16, user_data: u64) -> Entry {
    let at = std::ptr::without_provenance(BASE + usize::from(buffer) * 4096);
    WriteFixed::new(Fixed(file), at, 512, buffer).offset(user_data).build().user_data(user_data)
}

impl Rig {
    fn submit(&mut self, entries: &[Entry]) -> Result<u32, Errno> {
        push(&mut self.parts.sq, entries);
        self.enter()
    }

    fn enter(&mut self) -> Result<u32, Errno> {
        self.parts.engine.enter(self.parts.sq.ready(), 0, EnterFlags::GETEVENTS, None)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// The request of this user data is done.
    fn found(&self, user_data: u64, result: i32) -> Token {
        let mut log = self.log();
        let at = log.under_way.iter().position(|(_, r)| r.off == user_data).expect("under way");
        let (token, _) = log.under_way.remove(at);
        log.found.push((token, result));
        token
    }

    /// Those requests are done, in this order.
    fn all_found(&self, user_data: &[u64], result: i32) {
        for &user_data in user_data {
            self.found(user_data, result);
        }
    }

    /// Files closed and buffers unmapped.
    fn gone(&self) -> (Vec<u32>, Vec<usize>) {
        let log = self.log();
        (log.closed.clone(), log.unmapped.clone())
    }

    fn reap(&mut self) -> Vec<(u64, i32)> {
        self.parts.cq.queue().map(|cqe| (cqe.user_data(), cqe.result())).collect()
    }
}

#[test]
fn a_run_tells_the_backend_all_of_each_request() {
    let mut rig = rig(Config::new(8));
    let entries = [read(0, 0, 1), read(0, 0, 2), read(0, 1, 3), write(0, 1, 4), read(1, 0, 5)];
    assert_eq!(rig.submit(&entries), Ok(5));
    let seen: Vec<_> = rig.log().under_way.iter().map(|(_, r)| *r).collect();
    let expected = [(4, 1, 0), (4, 1, 0), (4, 1, 1), (5, 1, 1), (4, 2, 0)];
    assert_eq!(seen.len(), expected.len());
    for (i, (request, (opcode, file, buffer))) in seen.iter().zip(expected).enumerate() {
        let at = BASE + buffer * 4096;
        assert_eq!((request.opcode, request.target), (opcode, Target::Registered(file)));
        assert_eq!((request.buffer, request.addr, request.len), (Some(at), at as u64, 512));
        assert_eq!((request.off, request.op_flags, request.fallback), (i as u64 + 1, 0, false));
    }
    for user_data in [3, 1, 5, 4, 2] {
        rig.found(user_data, user_data as i32 * 10);
    }
    rig.enter().unwrap();
    assert_eq!(rig.reap(), [(3, 30), (1, 10), (5, 50), (4, 40), (2, 20)]);
    assert_eq!(rig.parts.engine.pending(), 0);
}

#[test]
fn what_is_out_of_the_ordinary_leaves_the_run_and_the_rest_goes_on() {
    let mut rig = rig(Config::new(16).submit_all(true));
    let with = |change: &dyn Fn(&mut Entry), user_data| {
        let mut entry = read(0, 0, user_data);
        change(&mut entry);
        entry
    };
    let entries = [
        read(0, 0, 1),
        with(&|sqe| sqe.personality = 1, 2),
        read(0, 0, 3),
        with(&|sqe| sqe.pad2 = 1, 4),
        with(&|sqe| sqe.ioprio = 1, 5),
        with(&|sqe| sqe.fd = 3, 6),
        with(&|sqe| sqe.fd = -1, 7),
        with(&|sqe| sqe.buf_index = 3, 8),
        with(&|sqe| sqe.addr += 4096 - 511, 9),
        with(&|sqe| sqe.addr -= 1, 10),
        nop(11),
        read(0, 1, 12),
        with(&|sqe| sqe.flags |= 1 << 4, 13),
    ];
    assert_eq!(rig.submit(&entries), Ok(13));
    let under_way: Vec<_> = rig.log().under_way.iter().map(|(_, r)| r.off).collect();
    assert_eq!(under_way, [1, 3, 12, 13]);
    let errors = [(2, -22), (4, -22), (5, -22), (6, -9), (7, -9), (8, -14), (9, -14), (10, -14)];
    assert_eq!(rig.reap()[..8], errors);
    rig.all_found(&under_way, 0);
    rig.enter().unwrap();
    assert_eq!(rig.reap(), [(1, 0), (3, 0), (12, 0), (13, 0)]);
}

#[test]
fn a_start_may_answer_anything_within_a_run() {
    let mut rig = rig(Config::new(8));
    let answers = [Start::Done(1), Start::Pending, Start::Done(2), Start::Pending];
    rig.log().answers.extend(answers);
    rig.log().answers.extend([Start::Refused(-14)]);
    let entries: Vec<_> = (1..=6).map(|i| read(0, 0, i)).collect();
    assert_eq!(rig.submit(&entries), Ok(5), "the batch stops after the refused one");
    assert_eq!(rig.reap(), [(1, 1), (3, 2), (5, -14)]);
    rig.log().answers.extend([Start::NoRoom]);
    assert_eq!(rig.enter(), Err(Errno::EBUSY));
    assert_eq!(rig.parts.sq.ready(), 1, "it stays");
    rig.found(2, 20);
    assert_eq!(rig.enter(), Ok(1));
    assert_eq!(rig.reap(), [(2, 20)]);
    let tokens: HashSet<_> = rig.log().under_way.iter().map(|(token, _)| token.index()).collect();
    assert_eq!(tokens.len(), 2, "4 and 6 have a slot each");
}

#[test]
fn row_request_pool_a_run_ends_with_the_last_record() {
    let mut rig = rig(Config::new(8).requests(2));
    let entries: Vec<_> = (1..=4).map(|i| read(0, 0, i)).collect();
    assert_eq!(rig.submit(&entries), Ok(3), "two and the reserved one");
    let fallback: Vec<_> = rig.log().under_way.iter().map(|(_, r)| r.fallback).collect();
    assert_eq!(fallback, [false, false, true]);
    rig.found(3, 3);
    rig.found(1, 1);
    assert_eq!(rig.enter(), Ok(1));
    assert_eq!(rig.reap(), [(3, 3), (1, 1)]);
    rig.found(2, 2);
    rig.found(4, 4);
    rig.enter().unwrap();
    assert_eq!(rig.reap(), [(2, 2), (4, 4)]);
}

#[test]
fn row_cq_full_what_a_poll_finds_waits_in_order() {
    let mut rig = rig(Config::new(4).cq_entries(4).requests(16));
    for round in 0..2 {
        let entries: Vec<_> = (0..4).map(|i| read(0, 0, 4 * round + i)).collect();
        assert_eq!(rig.submit(&entries), Ok(4));
    }
    let order = [6, 1, 3, 7, 0, 2, 5];
    rig.all_found(&order, 1);
    rig.enter().unwrap();
    assert!(rig.parts.sq.queue().cq_overflow());
    rig.found(4, 1);
    rig.enter().unwrap();
    let mut seen = vec![];
    while seen.len() < 8 {
        let reaped = rig.reap();
        assert!(!reaped.is_empty());
        seen.extend(reaped.iter().map(|(user_data, _)| *user_data));
        rig.enter().unwrap();
    }
    assert_eq!(seen, [&order[..], &[4]].concat());
    assert!(!rig.parts.sq.queue().cq_overflow());
}

#[test]
fn what_a_device_invents_or_repeats_is_counted_and_nothing_else() {
    let mut rig = rig(Config::new(4).requests(4));
    rig.submit(&[read(0, 0, 1), read(0, 0, 2)]).unwrap();
    let token = rig.found(1, 10);
    let never = Token::from_raw(token.to_raw() ^ 3);
    let outside = Token::from_raw(99);
    let flags = Token::from_raw(token.to_raw() | 1 << 16);
    rig.log().found.extend([(token, 11), (never, 12), (outside, 13), (flags, 14)]);
    rig.enter().unwrap();
    assert_eq!(rig.reap(), [(1, 10)]);
    assert_eq!(rig.parts.engine.stats().stale, 4);
    assert_eq!(rig.parts.engine.pending(), 1);
    rig.found(2, 20);
    rig.enter().unwrap();
    assert_eq!(rig.reap(), [(2, 20)]);
}

#[test]
fn row_registered_files_and_buffers_go_with_their_last_request() {
    let mut rig = rig(Config::new(8));
    rig.submit(&[read(0, 0, 1), read(0, 1, 2), read(1, 0, 3), read(1, 1, 4)]).unwrap();
    // SAFETY: the device touches no memory.
    unsafe {
        let engine = &mut rig.parts.engine;
        assert_eq!(engine.call(Call::UpdateFiles { offset: 0, fds: &[9] }), Ok(1));
        let buffers = &[iovec(BASE)];
        assert_eq!(engine.call(Call::UpdateBuffers { offset: 0, buffers }), Ok(1));
    }
    rig.submit(&[read(0, 0, 5)]).unwrap();
    assert!(matches!(rig.log().under_way[4].1.target, Target::Registered(3)), "the new one");
    // SAFETY: as above.
    unsafe {
        let engine = &mut rig.parts.engine;
        assert_eq!(engine.call(Call::UnregisterFiles), Ok(0));
        assert_eq!(engine.call(Call::UnregisterBuffers), Ok(0));
        assert_eq!(engine.call(Call::RegisterFiles(&[7])), Ok(0), "a table of its own");
    }
    assert_eq!(rig.gone(), (vec![], vec![]));
    let [first, second] = [BASE, BASE + 4096];
    let ends: [(u64, &[u32], &[usize]); 5] = [
        (3, &[], &[]),
        (1, &[], &[first]),
        (2, &[1], &[first]),
        (4, &[1, 2], &[first, second]),
        (5, &[1, 2, 3], &[first, second, first]),
    ];
    for (user_data, closed, unmapped) in ends {
        rig.found(user_data, 0);
        rig.enter().unwrap();
        assert_eq!(rig.reap(), [(user_data, 0)]);
        assert_eq!(rig.gone(), (closed.to_vec(), unmapped.to_vec()));
    }
    let log = rig.log.clone();
    drop(rig);
    assert_eq!(log.lock().unwrap().closed, [1, 2, 3, 4]);
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of (file, buffer, what its start answers).
    Batch(Vec<(u32, u16, u8)>),
    /// So many of those under way are done, from that one on.
    Found(usize, usize),
    Reap,
    Replace(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let entry = (0u32..3, 0u16..2, 0u8..8);
    prop::collection::vec(
        prop_oneof![
            3 => prop::collection::vec(entry, 1..5).prop_map(Step::Batch),
            3 => (0usize..8, 1usize..6).prop_map(|(from, count)| Step::Found(from, count)),
            2 => Just(Step::Reap),
            1 => (0u32..2).prop_map(Step::Replace),
        ],
        1..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, ..<_>::default() })]

    /// Whatever comes in whatever order: one CQE for each SQE taken, no slot
    /// twice in use, nothing closed too early or never.
    #[test]
    fn every_sqe_taken_has_one_cqe(steps in steps()) {
        let mut rig = rig(Config::new(4).cq_entries(4).requests(3).submit_all(true));
        let (mut pushed, mut taken, mut reaped) = (0u64, 0u64, vec![]);
        for step in steps {
            match step {
                Step::Batch(entries) => {
                    for (file, buffer, answer) in entries {
                        if rig.parts.sq.ready() == 4 {
                            break;
                        }
                        push(&mut rig.parts.sq, &[read(file, buffer, pushed)]);
                        pushed += 1;
                        let answer = match answer {
                            0 => Start::Done(5),
                            1 => Start::Refused(-14),
                            2 => Start::NoRoom,
                            _ => Start::Pending,
                        };
                        rig.log().answers.push_back(answer);
                    }
                    taken += u64::from(rig.enter().unwrap_or(0));
                    rig.log().answers.clear();
                }
                Step::Found(from, count) => {
                    let ready: Vec<_> = rig.log().under_way.iter().map(|(_, r)| r.off).collect();
                    let some: Vec<_> = ready.into_iter().skip(from).take(count).collect();
                    rig.all_found(&some, 6);
                    taken += u64::from(rig.enter().unwrap_or(0));
                }
                Step::Reap => reaped.extend(rig.reap()),
                Step::Replace(place) => {
                    let update = Call::UpdateFiles { offset: place, fds: &[7] };
                    // SAFETY: the device touches no memory.
                    prop_assert_eq!(unsafe { rig.parts.engine.call(update) }, Ok(1));
                }
            }
            let log = rig.log();
            let slots: HashSet<_> = log.under_way.iter().map(|(token, _)| token.index()).collect();
            prop_assert_eq!(slots.len(), log.under_way.len());
            for (_, request) in &log.under_way {
                let Target::Registered(file) = request.target else { unreachable!() };
                prop_assert!(!log.closed.contains(&file));
            }
        }
        while reaped.len() < pushed as usize {
            let under_way: Vec<_> = rig.log().under_way.iter().map(|(_, r)| r.off).collect();
            rig.all_found(&under_way, 6);
            taken += u64::from(rig.enter().unwrap_or(0));
            reaped.extend(rig.reap());
        }
        prop_assert_eq!(taken, pushed);
        let mut user_data: Vec<_> = reaped.iter().map(|(user_data, _)| *user_data).collect();
        user_data.sort_unstable();
        prop_assert!(user_data.into_iter().eq(0..pushed));
        prop_assert_eq!((rig.parts.engine.pending(), rig.parts.engine.stats().stale), (0, 0));
        let log = rig.log.clone();
        drop(rig);
        let mut log = log.lock().unwrap();
        log.closed.sort_unstable();
        prop_assert!((1..=log.opened).eq(log.closed.iter().copied()));
    }
}

#[test]
fn an_ordinary_file_takes_the_long_way_to_the_same_end() {
    let mut rig = rig(Config::new(4));
    let at = std::ptr::without_provenance_mut(BASE);
    let entry = ReadFixed::new(Fd(3), at, 512, 0).offset(2).build().user_data(2);
    assert_eq!(rig.submit(&[read(0, 0, 1), entry, read(0, 0, 3)]), Ok(3));
    assert_eq!(rig.log().under_way[1].1.target, Target::Fd(3));
    rig.all_found(&[2, 1, 3], 7);
    rig.enter().unwrap();
    assert_eq!(rig.reap(), [(2, 7), (1, 7), (3, 7)]);
}
