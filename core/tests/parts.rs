//! Row *provided buffers*: rings whose buffers are used up by parts.

mod common;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use annulus::config::{Config, Footprint};
use annulus::cqueue::{buffer_more, buffer_select};
use annulus::engine::{Completer, EnterFlags, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Request, Start, Target, Token};
use annulus::opcode;
use annulus::register::Call;
use annulus::squeue::{Entry, Flags};
use annulus::types::{BufRingEntry, Fd};
use annulus::uapi::IORING_OP_READ;
use common::{Place, TestHost, memory, no_handles, push};

const GROUP: u16 = 7;
/// Where the first buffer is; nobody looks there.
const FIRST: u64 = 0x1000;
/// A file that is storage, one that waits for readiness, and none.
const STORAGE: i32 = 3;
const STREAM: i32 = 4;
const NONE: i32 = -1;

/// What the backend answers, and what it was asked to read into.
#[derive(Default)]
struct Script {
    answers: VecDeque<Start>,
    asked: Vec<(u64, u32)>,
    last: Option<Token>,
}

impl Script {
    /// The next answer; without one there is no room.
    fn answer(&mut self) -> Start {
        self.answers.pop_front().unwrap_or(Start::NoRoom)
    }
}

#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Script>>);

impl Backend for Tape {
    no_handles!();

    fn supports(&self, opcode: u8) -> bool {
        opcode == IORING_OP_READ
    }

    fn is_open(&mut self, fd: i32) -> bool {
        fd != NONE
    }

    fn waits_for_readiness(&mut self, target: Target<()>) -> bool {
        target == Target::Fd(STREAM)
    }

    unsafe fn start(&mut self, token: Token, request: &Request<(), ()>) -> Start {
        if request.target == Target::Fd(NONE) {
            return Start::Done(Errno::EBADF.to_result());
        }
        let mut script = self.0.lock().unwrap();
        script.asked.push((request.addr, request.len));
        script.last = Some(token);
        script.answer()
    }

    unsafe fn resume(&mut self, _: Token) -> Start {
        self.0.lock().unwrap().answer()
    }

    fn rebuffer(&mut self, _: Token, addr: u64, len: u32) {
        self.0.lock().unwrap().asked.push((addr, len));
    }

    fn cancel_all(&mut self) {}
}

#[repr(C, align(4096))]
struct Page([BufRingEntry; 256]);

struct Rig {
    parts: Parts<'static, Tape, Place>,
    completer: Completer<'static, Place>,
    tape: Tape,
    page: *mut BufRingEntry,
    tail: u16,
}

/// What is in the CQ: user data, result, buffer, and whether there is more of it.
type Seen = Vec<(u64, i32, Option<u16>, bool)>;

impl Rig {
    /// A ring with buffers of these lengths, numbered from 10 on.
    fn new(buffers: &[u32]) -> Self {
        Self::with(buffers, true)
    }

    /// The same, its buffers used up by parts or not.
    fn with(buffers: &[u32], incremental: bool) -> Self {
        let config = Config::new(8).provided(4, 1).files(1);
        let need = Footprint::of::<Tape, Place>(&config).total();
        let tape = Tape::default();
        let mut completer = None;
        let host = Place(TestHost::new());
        let parts = build(&config, memory(need), RingMemory::Inside, host, |given| {
            completer = Some(given);
            tape.clone()
        });
        let page = Box::leak(Box::new(Page([const { BufRingEntry::new() }; 256])));
        let page = (&raw mut page.0).cast::<BufRingEntry>();
        let (parts, completer) = (parts.unwrap(), completer.unwrap());
        let mut rig = Self { parts, completer, tape, page, tail: 0 };
        rig.register(incremental);
        buffers.iter().for_each(|&len| rig.fill(len));
        rig
    }

    /// Makes the group a ring.
    fn register(&mut self, incremental: bool) {
        let call = Call::RegisterBufRing { base: self.page, entries: 4, group: GROUP, incremental };
        // SAFETY: the page is leaked.
        assert_eq!(unsafe { self.parts.engine.call(call) }, Ok(0));
    }

    fn call(&mut self, call: Call<'_>) {
        // SAFETY: nothing in it is memory that lasts.
        assert!(unsafe { self.parts.engine.call(call) }.is_ok());
    }

    fn fill(&mut self, len: u32) {
        let id = 10 + self.tail;
        // SAFETY: one of the four; the tail is a word that the ring loads.
        unsafe {
            let entry = self.page.add(usize::from(self.tail % 4));
            (*entry).set_addr(FIRST + u64::from(id) * 0x1000);
            (*entry).set_len(len);
            (*entry).set_bid(id);
            self.tail += 1;
            let word = BufRingEntry::tail(self.page).cast_mut();
            AtomicU16::from_ptr(word).store(self.tail, Ordering::Release);
        }
    }

    fn answers(&self, answers: impl IntoIterator<Item = Start>) {
        self.tape.0.lock().unwrap().answers.extend(answers);
    }

    fn reap(&mut self) -> Seen {
        let queue = self.parts.cq.queue();
        let all = queue.map(|cqe| {
            let flags = cqe.flags();
            (cqe.user_data(), cqe.result(), buffer_select(flags), buffer_more(flags))
        });
        all.collect()
    }

    fn run(&mut self, entries: &[Entry]) -> Seen {
        push(&mut self.parts.sq, entries);
        let count = self.parts.sq.ready();
        self.parts.engine.enter(count, 0, EnterFlags::GETEVENTS, None).unwrap();
        self.reap()
    }

    /// What the backend was asked for since the last time: which buffer, where in
    /// it, how much.
    fn asked(&self) -> Vec<(u64, u64, u32)> {
        let asked = std::mem::take(&mut self.tape.0.lock().unwrap().asked);
        let place = |addr: u64| ((addr - FIRST) / 0x1000, (addr - FIRST) % 0x1000);
        asked.into_iter().map(|(addr, len)| (place(addr).0, place(addr).1, len)).collect()
    }

    fn last(&self) -> Token {
        self.tape.0.lock().unwrap().last.expect("one that was started")
    }

    fn ready(&self) {
        self.completer.ready(self.last()).unwrap();
    }

    fn head(&mut self) -> Result<u32, Errno> {
        // SAFETY: it registers no memory.
        unsafe { self.parts.engine.call(Call::BufRingHead(GROUP)) }
    }
}

fn read(fd: i32, len: u32, user_data: u64) -> Entry {
    let entry = opcode::Read::new(Fd(fd), std::ptr::null_mut(), len);
    entry.buf_group(GROUP).build().flags(Flags::BUFFER_SELECT).user_data(user_data)
}

#[test]
fn row_provided_buffers_by_parts_reads_follow_each_other_in_a_buffer() {
    let mut rig = Rig::new(&[100, 50]);
    rig.answers([Start::Done(10), Start::Done(60), Start::Done(30), Start::Done(50)]);
    let reads = [10, 60, 40, 0].map(|len| read(STORAGE, len, len.into()));
    assert_eq!(
        rig.run(&reads),
        [
            (10, 10, Some(10), true),
            (60, 60, Some(10), true),
            (40, 30, Some(10), false),
            (0, 50, Some(11), false)
        ]
    );
    assert_eq!(rig.asked(), [(10, 0, 10), (10, 10, 60), (10, 70, 30), (11, 0, 50)]);
    assert_eq!(rig.head(), Ok(2));
    assert_eq!(rig.run(&[read(STORAGE, 1, 1)]), [(1, Errno::ENOBUFS.to_result(), None, false)]);
}

#[test]
fn row_provided_buffers_by_parts_storage_uses_what_it_was_asked_for() {
    let mut rig = Rig::new(&[100]);
    rig.answers([Start::Done(3), Start::Done(Errno::EIO.to_result()), Start::Pending]);
    let seen = rig.run(&[read(STORAGE, 10, 1), read(STORAGE, 20, 2), read(STORAGE, 30, 3)]);
    assert_eq!(seen[0], (1, 3, Some(10), true));
    assert_eq!((seen[1].0, seen[1].1, seen.len()), (2, Errno::EIO.to_result(), 2));
    // What is under way has its part to itself.
    let under_way = rig.last();
    rig.answers([Start::Done(40)]);
    assert_eq!(rig.run(&[read(STORAGE, 0, 4)]), [(4, 40, Some(10), false)]);
    assert_eq!(rig.asked(), [(10, 0, 10), (10, 10, 20), (10, 30, 30), (10, 60, 40)]);
    assert_eq!(rig.head(), Ok(1));
    rig.completer.complete(under_way, 30).unwrap();
    assert_eq!(rig.run(&[]), [(3, 30, Some(10), true)]);
}

#[test]
fn row_provided_buffers_by_parts_a_stream_uses_what_it_moved() {
    let mut rig = Rig::new(&[100]);
    rig.answers([Start::Done(3), Start::Done(Errno::EIO.to_result()), Start::Done(97)]);
    let seen = rig.run(&[read(STREAM, 10, 1), read(STREAM, 20, 2), read(STREAM, 0, 3)]);
    let failed = (2, Errno::EIO.to_result(), None, false);
    assert_eq!(seen, [(1, 3, Some(10), true), failed, (3, 97, Some(10), false)]);
    assert_eq!(rig.asked(), [(10, 0, 10), (10, 3, 20), (10, 3, 97)]);
    assert_eq!(rig.head(), Ok(1));
}

#[test]
fn row_provided_buffers_by_parts_what_is_asynchronous_uses_what_it_asked_for() {
    let mut rig = Rig::new(&[100]);
    let read = |len, n| read(STREAM, len, n).flags(Flags::BUFFER_SELECT | Flags::ASYNC);
    rig.answers([Start::Done(3), Start::Done(Errno::EIO.to_result()), Start::Waiting]);
    let failed = (2, Errno::EIO.to_result(), Some(10), true);
    assert_eq!(rig.run(&[read(10, 1), read(20, 2)]), [(1, 3, Some(10), true), failed]);
    // And keeps it while it waits.
    assert_eq!(rig.run(&[read(30, 3)]), []);
    let waiting = rig.last();
    rig.answers([Start::Done(40)]);
    assert_eq!(rig.run(&[read(0, 4)]), [(4, 40, Some(10), false)]);
    rig.answers([Start::Done(1)]);
    rig.completer.ready(waiting).unwrap();
    assert_eq!(rig.run(&[]), [(3, 1, Some(10), true)]);
    assert_eq!(rig.asked(), [(10, 0, 10), (10, 10, 20), (10, 30, 30), (10, 60, 40)]);
}

#[test]
fn row_provided_buffers_by_parts_who_waits_has_none() {
    let mut rig = Rig::new(&[100]);
    rig.answers([Start::Waiting]);
    assert_eq!(rig.run(&[read(STREAM, 10, 1)]), []);
    let waiting = rig.last();
    rig.answers([Start::Done(60)]);
    assert_eq!(rig.run(&[read(STORAGE, 60, 2)]), [(2, 60, Some(10), true)]);
    // Woken in vain, and then with something.
    for answer in [Start::Waiting, Start::Done(7)] {
        rig.answers([answer]);
        rig.completer.ready(waiting).unwrap();
        let seen = rig.run(&[]);
        let done = answer != Start::Waiting;
        assert_eq!(seen, [(1, 7, Some(10), true)][..usize::from(done)]);
    }
    assert_eq!(rig.asked(), [(10, 0, 10), (10, 0, 60), (10, 60, 10), (10, 60, 10)]);
    rig.answers([Start::Done(33)]);
    assert_eq!(rig.run(&[read(STORAGE, 0, 3)]), [(3, 33, Some(10), false)]);
    assert_eq!(rig.asked(), [(10, 67, 33)]);
}

#[test]
fn row_provided_buffers_by_parts_one_that_goes_on_elsewhere_keeps_what_it_asked_for() {
    let mut rig = Rig::new(&[100]);
    rig.answers([Start::Waiting, Start::Pending, Start::Done(90)]);
    assert_eq!(rig.run(&[read(STREAM, 10, 1)]), []);
    let waiting = rig.last();
    rig.ready();
    assert_eq!(rig.run(&[]), []);
    assert_eq!(rig.run(&[read(STREAM, 0, 2)]), [(2, 90, Some(10), false)]);
    rig.completer.complete(waiting, 4).unwrap();
    assert_eq!(rig.run(&[]), [(1, 4, Some(10), true)]);
    assert_eq!(rig.asked(), [(10, 0, 10), (10, 0, 10), (10, 10, 90)]);
}

#[test]
fn row_provided_buffers_by_parts_without_a_file_or_room_nothing_is_used() {
    let mut rig = Rig::new(&[100]);
    let gone = (1, Errno::EBADF.to_result(), None, false);
    assert_eq!(rig.run(&[read(NONE, 10, 1)]), [gone]);
    rig.answers([Start::Pending]);
    assert_eq!(rig.run(&[read(STORAGE, 10, 2)]), []);
    let first = rig.last();
    // Held as they are, such reads are taken and tried again.
    assert_eq!(rig.run(&[read(STORAGE, 20, 3)]), []);
    rig.answers([Start::Done(20)]);
    assert_eq!(rig.run(&[]), [(3, 20, Some(10), true)]);
    rig.completer.complete(first, 10).unwrap();
    assert_eq!(rig.run(&[]), [(2, 10, Some(10), true)]);
    let asked = rig.asked();
    assert!(asked.len() > 2 && asked[0] == (10, 0, 10), "{asked:?}");
    assert!(asked[1..].iter().all(|&asked| asked == (10, 10, 20)), "{asked:?}");
}

#[test]
fn row_provided_buffers_by_parts_a_ring_that_ends_takes_nothing_back() {
    let mut rig = Rig::new(&[100]);
    rig.answers([Start::Pending]);
    assert_eq!(rig.run(&[read(STORAGE, 10, 1)]), []);
    // SAFETY: it registers no memory.
    let ended = unsafe { rig.parts.engine.call(Call::UnregisterBufRing(GROUP)) };
    assert_eq!((ended, rig.head()), (Ok(0), Err(Errno::ENOENT)));
    rig.completer.complete(rig.last(), 10).unwrap();
    assert_eq!(rig.run(&[]), [(1, 10, Some(10), true)]);
}

#[test]
fn row_provided_buffers_one_of_a_list_stays_with_who_waits_when_its_group_becomes_a_ring() {
    let mut rig = Rig::with(&[], false);
    rig.call(Call::UnregisterBufRing(GROUP));
    let at = std::ptr::without_provenance_mut(FIRST as usize);
    let provide = opcode::ProvideBuffers::new(at, 64, 1, GROUP, 3).build().user_data(1);
    assert_eq!(rig.run(&[provide]), [(1, 0, None, false)]);
    rig.answers([Start::Waiting]);
    assert_eq!(rig.run(&[read(STREAM, 10, 2)]), []);
    let waiting = rig.last();
    // The list is empty, so its group may become a ring.
    rig.register(false);
    rig.answers([Start::Waiting]);
    rig.completer.ready(waiting).unwrap();
    assert_eq!(rig.run(&[]), []);
    assert_eq!(rig.head(), Ok(0), "nothing has been given back to the ring");
    rig.answers([Start::Done(10)]);
    let none = Errno::ENOBUFS.to_result();
    assert_eq!(rig.run(&[read(STORAGE, 1, 3)]), [(3, none, None, false)]);
    rig.completer.ready(waiting).unwrap();
    assert_eq!(rig.run(&[]), [(2, 10, Some(3), false)]);
}

#[test]
fn row_provided_buffers_who_waits_has_its_file_and_a_late_failure_gives_nothing_back() {
    let mut rig = Rig::with(&[64, 64], false);
    rig.call(Call::RegisterFiles(&[STREAM]));
    let fixed = |user_data| read(0, 10, user_data).flags(Flags::BUFFER_SELECT | Flags::FIXED_FILE);
    rig.answers([Start::Waiting]);
    assert_eq!(rig.run(&[fixed(1)]), []);
    let waiting = rig.last();
    rig.answers([Start::Pending]);
    assert_eq!(rig.run(&[fixed(2)]), []);
    let under_way = rig.last();
    rig.answers([Start::Done(10)]);
    assert_eq!(rig.run(&[fixed(3)]), [(3, 10, Some(11), false)]);
    rig.call(Call::UpdateFiles { offset: 0, fds: &[-1] });
    // It has a file, but no buffer.
    rig.completer.ready(waiting).unwrap();
    assert_eq!(rig.run(&[]), [(1, Errno::ENOBUFS.to_result(), None, false)]);
    // Whatever it says of a file: what the ring gave last is somebody else's.
    let gone = Errno::EBADF.to_result();
    rig.completer.complete(under_way, gone).unwrap();
    assert_eq!(rig.run(&[]), [(2, gone, Some(10), false)]);
    assert_eq!(rig.head(), Ok(2));
}
