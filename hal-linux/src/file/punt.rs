//! What follows a try that would have blocked: a worker, or a poll.

use annulus::hal::{Request, Start, Target, Token};
use annulus::worker::Class;

use super::held::HeldFile;
use super::job::{Hold, Op};
use super::kind::Kind;
use super::poller::Poller;
use super::rw::{NOWAIT, flags, number, vectored, with_iovecs};
use super::{File, FileBackend, Wait, out_of_descriptors};
use crate::sys;

/// Where a request's file is, and how it is kept.
#[derive(Clone, Copy)]
struct Place {
    fd: i32,
    kind: Kind,
    held: Option<HeldFile>,
    /// Goes past the page cache.
    direct: bool,
}

/// What of a request goes on after its try.
#[derive(Clone, Copy)]
pub(super) struct Rest {
    /// Where it goes on; -1: at the current position.
    pub off: i64,
    /// Bytes that count as moved.
    pub done: usize,
}

impl FileBackend {
    /// Hands what is left of a request to a worker or to the poller. `why`
    /// is the errno of the try, or 0 if it was short.
    ///
    /// # Safety
    /// As for `Backend::start`.
    pub(super) unsafe fn punt(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
        write: bool,
        rest: Rest,
        why: i32,
    ) -> Start {
        let place = match self.place(request.target) {
            Ok(place) => place,
            Err(e) => return Start::Done(without_descriptor(request, write, rest, e)),
        };
        let streams = place.kind.is_stream();
        let ready = streams && why == libc::EOPNOTSUPP && sys::ready_now(place.fd, write);
        if streams && !ready && request.fallback {
            // It may wait for ever, and the reserved slot must not.
            return Start::NoRoom;
        }
        match self.fill(token, request, write, rest) {
            Ok(true) => {}
            Ok(false) if rest.done > 0 => return Start::Done(rest.done as i32),
            Ok(false) => return Start::NoRoom,
            Err(_) if rest.done > 0 => return Start::Done(rest.done as i32),
            // The array of a vectored request: the kernel would have found it
            // before it began.
            Err(e) => return Start::Refused(e),
        }
        if !streams {
            // Where the try could not say whether it would block, and where the
            // application wants no try, the data may be there: then workers
            // side by side are faster than one after the other.
            self.hand_over(token, place, why != libc::EOPNOTSUPP);
            return Start::Pending;
        }
        let own = match request.target {
            Target::Fd(number) => self.batch.own(&self.workers.shared.held, number),
            // The same file may be waited for twice; an epoll set takes a
            // descriptor once.
            Target::Registered(file) => sys::duplicate(file.fd),
        };
        // SAFETY: the slot has just been taken, its record is the engine's.
        let job = unsafe { self.workers.shared.job(token.index()) };
        match own {
            Ok(fd) => (job.fd, job.hold) = (fd, Hold::Own),
            Err(e) => {
                job.let_go(&self.workers.shared.held, &self.workers.shared.blocks);
                return Start::Done(e);
            }
        }
        if ready {
            // It cannot be tried without blocking, but will not block now
            // either: a worker's for a moment.
            self.workers.push(Class::Unbounded, token.index());
            return Start::Pending;
        }
        match self.arm(token) {
            Start::Pending if self.waits[token.index()] == Wait::Armed => Start::Waiting,
            start => start,
        }
    }

    /// New memory for a read that waited without.
    pub(super) fn rebuffer(&mut self, token: Token, addr: u64, len: u32) {
        let index = token.index();
        if self.waits[index] != Wait::None {
            // SAFETY: armed, so the engine's.
            let job = unsafe { self.workers.shared.job(index) };
            job.set_buffer(addr as usize, len as usize);
        }
    }

    /// The file of a request that goes on after its submission.
    fn place(&mut self, target: Target<File>) -> Result<Place, i32> {
        let (fd, kind, held) = self.file(target)?;
        Ok(Place { fd, kind, held, direct: self.is_direct(target) })
    }

    /// Prepares the slot's record with what is left. False for want of room.
    fn fill(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
        write: bool,
        rest: Rest,
    ) -> Result<bool, i32> {
        let shared = &self.workers.shared;
        // SAFETY: the slot has just been taken, its record is the engine's.
        let job = unsafe { shared.job(token.index()) };
        if !vectored(request) {
            job.set_buffer(request.addr as usize, request.len as usize);
        } else if !job.set_iovecs(request.addr as usize, request.len as usize, &shared.blocks)? {
            return Ok(false);
        }
        (job.token, job.hold) = (token, Hold::Registered);
        job.op = if write { Op::Write } else { Op::Read };
        job.flags = flags(request) & !NOWAIT;
        (job.continues, job.inode) = (false, None);
        // Not to be moved by `advance`: `rest` says where it goes on.
        job.off = -1;
        job.advance(rest.done, &shared.blocks);
        job.off = rest.off;
        Ok(true)
    }

    /// Queues a filled record for a bounded worker. `waits`: a read has found
    /// its data missing, so those after it may just as well wait behind it.
    fn hand_over(&mut self, token: Token, place: Place, waits: bool) {
        let hold = self.keep(place.held);
        // SAFETY: filled just now, the engine's until it is pushed.
        let job = unsafe { self.workers.shared.job(token.index()) };
        (job.fd, job.hold) = (place.fd, hold);
        job.continues = !place.kind.is_stream();
        job.inode = match place.kind {
            // Direct writes do not need the inode's lock for long (most file
            // systems let them run side by side), and have no order. Nothing
            // is read ahead for direct reads.
            Kind::Regular(inode) if !place.direct && (waits || job.op == Op::Write) => Some(inode),
            _ => None,
        };
        self.workers.push(Class::Bounded, token.index());
    }

    /// IOSQE_ASYNC: storage goes straight to a worker. None if the request
    /// is to be tried first after all: a stream.
    pub(super) fn start_async(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
        write: bool,
    ) -> Option<Start> {
        if let Err(e) = self.prepared(request) {
            return Some(Start::Refused(e));
        }
        let place = match self.place(request.target) {
            Ok(place) => place,
            Err(e) if out_of_descriptors(e) => return None,
            Err(e) => return Some(Start::Done(e)),
        };
        // A worker would block where the request said not to.
        if place.kind.is_stream() || flags(request) & NOWAIT != 0 {
            return None;
        }
        let rest = Rest { off: request.off as i64, done: 0 };
        Some(match self.fill(token, request, write, rest) {
            Ok(true) => {
                self.hand_over(token, place, false);
                Start::Pending
            }
            Ok(false) => Start::NoRoom,
            Err(e) => Start::Refused(e),
        })
    }

    /// Arms a poll for a filled record with a descriptor of its own.
    fn arm(&mut self, token: Token) -> Start {
        match self.armed(token) {
            Ok(()) => {}
            // It says EAGAIN but cannot be polled: some character devices.
            Err(libc::EPERM) => self.workers.push(Class::Unbounded, token.index()),
            // As many watches as the kernel allows: no memory for one more.
            Err(_) => {
                let shared = &self.workers.shared;
                // SAFETY: it was not armed, so the engine's.
                let job = unsafe { shared.job(token.index()) };
                job.let_go(&shared.held, &shared.blocks);
                return Start::Done(-libc::ENOMEM);
            }
        }
        Start::Pending
    }

    /// Has the poller watch the file of a filled record, which it makes if
    /// this is the first one.
    ///
    /// # Errors
    /// `EPERM` if the file wakes nobody; otherwise there is no room, of
    /// whatever kind.
    pub(super) fn armed(&mut self, token: Token) -> Result<(), i32> {
        let shared = &self.workers.shared;
        // SAFETY: filled just now, the engine's.
        let job = unsafe { shared.job(token.index()) };
        let poller = match &mut self.poller {
            Some(poller) => poller,
            none => none.insert(Poller::new(shared.lane).map_err(|_| libc::ENOMEM)?),
        };
        // Before it can be woken.
        self.waits[token.index()] = Wait::Armed;
        poller.arm(job.fd, job.op, token).map_err(|errno| {
            self.waits[token.index()] = Wait::None;
            errno.raw_os_error()
        })
    }

    /// A wait is over: tries again.
    ///
    /// # Safety
    /// As for `Backend::resume`.
    pub(super) unsafe fn try_again(&mut self, token: Token) -> Start {
        let index = token.index();
        let shared = &self.workers.shared;
        let (wait, Some(poller)) = (self.waits[index], &self.poller) else {
            return Start::Pending;
        };
        if wait == Wait::None {
            // A notice for a request that has gone to a worker since.
            return Start::Pending;
        }
        // SAFETY: armed, so the engine's.
        let job = unsafe { shared.job(index) };
        if wait == Wait::Cancelled {
            return self.end_wait(index, -libc::ECANCELED);
        }
        if let Op::Poll { .. } = job.op {
            return self.poll_woken(index);
        }
        // SAFETY: the caller's promise.
        let result = unsafe { job.attempt(NOWAIT, &shared.blocks) };
        if result == -libc::EAGAIN {
            // Somebody else was faster. It waits on.
            match poller.rearm(job.fd, job.op, token) {
                Ok(()) => return Start::Waiting,
                Err(_) => return self.end_wait(index, -libc::ENOMEM),
            }
        }
        if result == -libc::EOPNOTSUPP {
            // Ready, but not to be tried without blocking.
            poller.disarm(job.fd);
            self.waits[index] = Wait::None;
            self.workers.push(Class::Unbounded, index);
            return Start::Pending;
        }
        self.end_wait(index, result)
    }

    pub(super) fn end_wait(&mut self, index: usize, result: i32) -> Start {
        let shared = &self.workers.shared;
        // SAFETY: armed, so the engine's.
        let job = unsafe { shared.job(index) };
        if let Some(poller) = &self.poller {
            poller.disarm(job.fd);
        }
        self.waits[index] = Wait::None;
        job.let_go(&shared.held, &shared.blocks);
        Start::Done(result)
    }
}

/// The file cannot be held (`e`). Storage is done here and now, late but
/// right; a stream would block for ever.
fn without_descriptor(request: &Request<File, ()>, write: bool, rest: Rest, e: i32) -> i32 {
    let fd = number(request.target);
    if rest.done > 0 {
        return rest.done as i32;
    }
    if !out_of_descriptors(e) || !Kind::is_storage(fd) {
        return e;
    }
    // SAFETY: the memory is promised until the request ends, which is here.
    with_iovecs(request, |iovecs, count| unsafe {
        sys::transfer(write, fd, iovecs, count, rest.off, flags(request))
    })
}
