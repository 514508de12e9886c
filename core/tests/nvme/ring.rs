//! A ring on the fake, and what was asked of it.

use crate::fake::Fake;
use crate::rig::{Backend, Place};
use annulus::engine::{EnterFlags, Parts};
use annulus::errno::Errno;
use annulus::nvme::BackendStats;
use annulus::opcode;
use annulus::register::Call;
use annulus::squeue::{Entry, Flags};
use annulus::types::{Fd, Fixed, Iovec, UseFd};
use std::alloc::Layout;
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

/// Memory of the application, which takes it away as soon as it may.
pub struct Chunk {
    base: *mut u8,
    layout: Layout,
}

impl Chunk {
    pub fn new(len: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), align).unwrap();
        // SAFETY: not of size 0.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!base.is_null());
        Self { base, layout }
    }

    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.layout.size());
        // SAFETY: inside, checked.
        unsafe { self.base.add(offset) }
    }

    pub fn addr(&self) -> usize {
        self.base.expose_provenance()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout. What is written late to memory
        // that has another owner by then must not go unnoticed.
        unsafe {
            self.base.write_bytes(0xee, self.layout.size());
            std::alloc::dealloc(self.base, self.layout);
        }
    }
}

/// Which memory a request uses.
#[derive(Clone, Debug)]
pub enum How {
    /// The registered buffer, so many bytes from a page boundary.
    Fixed(usize),
    /// Memory of its own, so many bytes from a page boundary.
    Plain(usize),
    /// Segments of these lengths; the last takes the rest.
    Vectored(Vec<usize>),
}

/// Which file a request means.
#[derive(Clone, Copy, Debug)]
pub enum On {
    Fd(i32),
    Fixed(u32),
}

/// A request that has not ended.
struct Request {
    /// Its data, in order.
    pieces: Vec<(*mut u8, usize)>,
    /// Memory of its own, given back when it ends.
    own: Vec<Chunk>,
    /// Where in the registered buffer.
    fixed: Option<(usize, usize)>,
}

/// One that has.
#[derive(Clone, Debug)]
pub struct Ended {
    pub res: i32,
    /// Of its CQE.
    pub flags: u32,
    pub data: Vec<u8>,
}

pub const REGISTERED: usize = if cfg!(any(miri, fuzzing)) { 256 << 10 } else { 4 << 20 };

pub struct Ring<const SYNC: bool = false> {
    pub fake: Arc<Fake>,
    /// In a box: what a function takes by value has its references protected until
    /// it returns, and `end` gives the memory behind them back before.
    pub parts: Option<Box<Parts<'static, Backend<SYNC>, &'static Place>>>,
    registered: Chunk,
    /// Ranges of it in use.
    used: Vec<(usize, usize)>,
    live: HashMap<u64, Request>,
    pub ended: HashMap<u64, Ended>,
    next: u64,
    /// Of what is pushed next.
    pub flags: Flags,
    /// In the SQ, not taken, and their arrays of vectors.
    pushed: u32,
    arrays: Vec<Vec<Iovec>>,
    polled: bool,
    /// Freed when the engine has ended.
    _lent: [Box<dyn Any>; 4],
}

impl<const SYNC: bool> Ring<SYNC> {
    pub fn new(
        fake: Arc<Fake>,
        parts: Parts<'static, Backend<SYNC>, &'static Place>,
        registered: Chunk,
        lent: [Box<dyn Any>; 4],
        polled: bool,
    ) -> Self {
        Self {
            fake,
            parts: Some(Box::new(parts)),
            registered,
            used: Vec::new(),
            live: HashMap::new(),
            ended: HashMap::new(),
            next: 1,
            flags: Flags::empty(),
            pushed: 0,
            arrays: Vec::new(),
            polled,
            _lent: lent,
        }
    }

    pub fn parts(&mut self) -> &mut Parts<'static, Backend<SYNC>, &'static Place> {
        self.parts.as_mut().unwrap()
    }

    pub fn stats(&self) -> BackendStats {
        *self.parts.as_ref().unwrap().engine.backend().stats()
    }

    /// Makes namespaces registered files.
    pub fn register(&mut self, nsids: &[i32]) -> Result<u32, Errno> {
        // SAFETY: no memory is named.
        unsafe { self.parts().engine.call(Call::RegisterFiles(nsids)) }
    }

    pub fn push(&mut self, entry: Entry) -> u64 {
        self.push_with(entry, Vec::new(), Vec::new(), None)
    }

    fn push_with(
        &mut self,
        entry: Entry,
        pieces: Vec<(*mut u8, usize)>,
        own: Vec<Chunk>,
        fixed: Option<(usize, usize)>,
    ) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut tries = 0;
        let entry = entry.user_data(id).flags(self.flags);
        // SAFETY: the memory stays until the completion.
        while unsafe { self.parts().sq.queue().push(&entry) }.is_err() {
            self.nudge(&mut tries, "room in the SQ");
        }
        self.pushed += 1;
        self.live.insert(id, Request { pieces, own, fixed });
        id
    }

    /// Goes on a little, for want of something.
    fn nudge(&mut self, tries: &mut u32, wanted: &str) {
        *tries += 1;
        assert!(*tries < 100_000, "{wanted}: waited for in vain");
        self.turn();
        self.fake.run(1);
        if tries.is_multiple_of(64) {
            self.pass_ms(50);
        }
    }

    fn place(&mut self, len: usize, offset: usize) -> Option<usize> {
        let mut at = offset;
        while at + len <= REGISTERED {
            match self.used.iter().find(|(start, bytes)| *start < at + len && at < start + bytes) {
                None => return Some(at),
                Some((start, bytes)) => at = (start + bytes).next_multiple_of(4096) + offset,
            }
        }
        None
    }

    fn transfer(
        &mut self,
        on: On,
        pos: u64,
        len: usize,
        how: &How,
        write: Option<(&[u8], i32)>,
    ) -> u64 {
        let mut own = Vec::new();
        let mut pieces = Vec::new();
        let mut fixed = None;
        match how {
            How::Fixed(offset) => {
                let mut tries = 0;
                let at = loop {
                    match self.place(len, *offset) {
                        Some(at) => break at,
                        None => self.nudge(&mut tries, "registered memory"),
                    }
                };
                self.used.push((at, len));
                fixed = Some((at, len));
                pieces.push((self.registered.at(at), len));
            }
            How::Plain(offset) => {
                let chunk = Chunk::new(offset + len, 4096);
                pieces.push((chunk.at(*offset), len));
                own.push(chunk);
            }
            How::Vectored(cuts) => {
                let mut left = len;
                for (at, cut) in cuts.iter().map(|&cut| cut.min(len)).chain([len]).enumerate() {
                    let piece = cut.min(left);
                    left -= piece;
                    let chunk = Chunk::new(piece + at % 7, 8);
                    pieces.push((chunk.at(at % 7), piece));
                    own.push(chunk);
                }
            }
        }
        let mut done = 0;
        for (base, bytes) in &pieces {
            // SAFETY: ours, and no request has begun on it.
            unsafe {
                match write {
                    Some((data, _)) => {
                        let data = &data[done..done + bytes];
                        base.copy_from_nonoverlapping(data.as_ptr(), *bytes);
                    }
                    None => base.write_bytes(0x5a, *bytes),
                }
            }
            done += bytes;
        }
        let flags = write.map_or(0, |(_, flags)| flags);
        let iovecs: Vec<Iovec> =
            pieces.iter().map(|&(base, len)| Iovec { base: base.cast(), len }).collect();
        let (base, len32) = (pieces[0].0, len as u32);
        let entry = match (on, write.is_some()) {
            (On::Fd(fd), false) => entry_read(Fd(fd), how, base, len32, &iovecs, pos, flags),
            (On::Fixed(at), false) => entry_read(Fixed(at), how, base, len32, &iovecs, pos, flags),
            (On::Fd(fd), true) => entry_write(Fd(fd), how, base, len32, &iovecs, pos, flags),
            (On::Fixed(at), true) => entry_write(Fixed(at), how, base, len32, &iovecs, pos, flags),
        };
        let vectored = matches!(how, How::Vectored(_));
        let id = self.push_with(entry, pieces, own, fixed);
        if vectored {
            self.arrays.push(iovecs);
        }
        if vectored && self.flags.is_empty() {
            let mut tries = 0;
            while self.pushed != 0 {
                self.nudge(&mut tries, "an SQE to be taken");
            }
        }
        id
    }

    pub fn read(&mut self, on: On, pos: u64, len: usize, how: &How) -> u64 {
        self.transfer(on, pos, len, how, None)
    }

    pub fn write(&mut self, on: On, pos: u64, data: &[u8], how: &How) -> u64 {
        self.write_flags(on, pos, data, how, 0)
    }

    pub fn write_flags(&mut self, on: On, pos: u64, data: &[u8], how: &How, flags: i32) -> u64 {
        self.transfer(on, pos, data.len(), how, Some((data, flags)))
    }

    pub fn fsync(&mut self, on: On) -> u64 {
        self.push(match on {
            On::Fd(fd) => opcode::Fsync::new(Fd(fd)).build(),
            On::Fixed(at) => opcode::Fsync::new(Fixed(at)).build(),
        })
    }

    pub fn fallocate(&mut self, nsid: i32, mode: i32, pos: u64, len: u64) -> u64 {
        self.push(opcode::Fallocate::new(Fd(nsid), len).offset(pos).mode(mode).build())
    }

    /// Submits what was pushed, and takes what has come.
    pub fn turn(&mut self) {
        let pushed = self.pushed;
        match self.parts().engine.enter(pushed, 0, EnterFlags::GETEVENTS, None) {
            Ok(taken) => self.pushed -= taken,
            Err(errno) => assert_eq!(errno, Errno::EBUSY),
        }
        if self.pushed == 0 {
            // An array is needed until its SQE is taken.
            for mut array in self.arrays.drain(..) {
                array.fill(Iovec { base: std::ptr::null_mut(), len: usize::MAX });
                std::hint::black_box(array);
            }
        }
        self.reap();
    }

    /// Submits what was pushed, and sleeps until `count` have ended.
    pub fn enter(&mut self, count: u32) {
        let pushed = std::mem::take(&mut self.pushed);
        let taken = self.parts().engine.enter(pushed, count, EnterFlags::GETEVENTS, None);
        assert_eq!(taken, Ok(pushed));
        self.reap();
    }

    pub fn reap(&mut self) {
        let cqes: Vec<_> = self.parts().cq.queue().collect();
        for cqe in cqes {
            let request = self.live.remove(&cqe.user_data()).expect("a request that is in flight");
            if let Some((at, len)) = request.fixed {
                self.used.retain(|used| *used != (at, len));
                self.fake.device().released(self.registered.addr() + at, len);
            }
            let mut data = Vec::new();
            for (base, len) in &request.pieces {
                // SAFETY: ours again, and initialised.
                data.extend_from_slice(unsafe { std::slice::from_raw_parts(*base, *len) });
            }
            drop(request.own);
            let ended = Ended { res: cqe.result(), flags: cqe.flags(), data };
            assert!(self.ended.insert(cqe.user_data(), ended).is_none(), "it has ended before");
        }
    }

    /// Lets time pass, with the ring looking after its requests.
    pub fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            self.fake.advance_ms(50);
            self.look();
        }
    }

    /// Has the ring look at the clock.
    pub fn look(&mut self) {
        if self.polled {
            let before = self.fake.device().waits;
            for _ in 0..1024 {
                self.turn();
                if self.fake.device().waits != before {
                    break;
                }
            }
        } else {
            let now = self.fake.device().now;
            let flags = EnterFlags::GETEVENTS;
            let unread = self.live.len() as u32;
            match self.parts().engine.enter(0, unread.max(1), flags, Some(now)) {
                Ok(_) | Err(Errno::ETIME) => {}
                Err(errno) => panic!("{errno:?}"),
            }
            self.turn();
        }
    }

    /// Drives ring and device until nothing is in flight.
    pub fn finish(&mut self) {
        let mut quiet = 0;
        for _ in 0..200_000 {
            let before = self.live.len();
            self.turn();
            if self.live.is_empty() && self.pushed == 0 {
                return;
            }
            self.fake.run(3);
            quiet = if self.live.len() == before { quiet + 1 } else { 0 };
            if quiet % 64 == 63 {
                self.pass_ms(50);
            }
        }
        panic!("{} requests do not end", self.live.len());
    }

    /// The same, and the result of one.
    pub fn result(&mut self, id: u64) -> i32 {
        self.finish();
        self.ended[&id].res
    }

    /// One that has ended well, and was not to tell.
    pub fn skipped(&mut self, id: u64) -> Vec<u8> {
        self.turn();
        let request = self.live.remove(&id).expect("no CQE");
        let mut data = Vec::new();
        for (base, len) in &request.pieces {
            // SAFETY: as the test knows, nobody uses it any more.
            data.extend_from_slice(unsafe { std::slice::from_raw_parts(*base, *len) });
        }
        data
    }

    pub fn in_flight(&self) -> usize {
        self.live.len()
    }

    /// The results of all that have ended, in the order of submission.
    pub fn results(&self) -> Vec<i32> {
        let mut ids: Vec<_> = self.ended.iter().map(|(id, ended)| (*id, ended.res)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, res)| res).collect()
    }

    /// The engine ends; its memory is used no more.
    pub fn end(mut self) {
        self.fake.patience();
        self.parts = None;
    }
}

impl<const SYNC: bool> Drop for Ring<SYNC> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let device = self.fake.device();
            eprintln!("faults: {:#?} {:#?}", device.faults, device.memory.faults);
        }
        // Before the memory of its requests.
        self.parts = None;
    }
}

fn entry_read(
    file: impl UseFd,
    how: &How,
    base: *mut u8,
    len: u32,
    iovecs: &[Iovec],
    pos: u64,
    flags: i32,
) -> Entry {
    match how {
        How::Fixed(_) => {
            opcode::ReadFixed::new(file, base, len, 0).offset(pos).rw_flags(flags).build()
        }
        How::Plain(_) => opcode::Read::new(file, base, len).offset(pos).rw_flags(flags).build(),
        How::Vectored(_) => opcode::Readv::new(file, iovecs.as_ptr(), iovecs.len() as u32)
            .offset(pos)
            .rw_flags(flags)
            .build(),
    }
}

fn entry_write(
    file: impl UseFd,
    how: &How,
    base: *mut u8,
    len: u32,
    iovecs: &[Iovec],
    pos: u64,
    flags: i32,
) -> Entry {
    match how {
        How::Fixed(_) => {
            opcode::WriteFixed::new(file, base, len, 0).offset(pos).rw_flags(flags).build()
        }
        How::Plain(_) => opcode::Write::new(file, base, len).offset(pos).rw_flags(flags).build(),
        How::Vectored(_) => opcode::Writev::new(file, iovecs.as_ptr(), iovecs.len() as u32)
            .offset(pos)
            .rw_flags(flags)
            .build(),
    }
}
