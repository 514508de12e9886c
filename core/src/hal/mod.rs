//! The seams: what a place (Linux, bare metal, a test) gives to a ring.
//!
//! Everything here is instance-based and dispatched statically; two rings in
//! one process may run on two different places.

pub mod device;

use crate::engine::Inbox;
use crate::errno::Errno;
pub use crate::slot::Token;
use crate::stats::Stats;
use crate::sync::AtomicU32;

/// Monotonic time.
pub trait Clock {
    /// Nanoseconds since some fixed point; never goes back.
    ///
    /// The engine reads it only around waits and idle periods, never per
    /// operation (DESIGN invariant 6).
    fn now(&self) -> u64;

    /// Nanoseconds of another clock, if there is one here. Timeouts by a clock
    /// that there is not are refused (`-EINVAL`).
    fn time(&self, clock: OtherClock) -> Option<u64> {
        let _ = clock;
        None
    }
}

/// Clocks besides the monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherClock {
    /// The wall clock, since 1970; it may be set (`CLOCK_REALTIME`).
    Wall,
    /// As the monotonic one, but runs on while the machine is suspended
    /// (`CLOCK_BOOTTIME`).
    Boot,
}

/// Why [`Park::park`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// The word changed, somebody unparked, or for no reason at all.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// A signal (or the place's like) asks the waiter to look around;
    /// [`Engine::enter`](crate::engine::Engine::enter) answers `-EINTR`.
    Interrupted,
}

/// Sleeping on a word, as a futex does.
pub trait Park {
    /// Blocks while `*word == expected`, until [`unpark`](Park::unpark) on the
    /// same word, the deadline (on [`Clock::now`]'s scale) or an interruption.
    /// May wake spuriously.
    ///
    /// The comparison and the sleep must be one step towards `unpark`: a word
    /// changed before an `unpark` that comes after the comparison wakes the
    /// sleeper. On bare metal: compare with interrupts off, then sleep with
    /// the instruction that ends on a pending one.
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked;

    /// Wakes everyone parked on `word`.
    fn unpark(&self, word: &AtomicU32);
}

/// A place that a ring runs in.
pub trait Host: Park + Clock {
    /// Called once for each batch of completions made visible, after they are.
    ///
    /// A place rings the application's bell here (an eventfd, an interrupt).
    #[inline]
    fn cqes_posted(&self) {}

    /// Takes a reference to the counter `fd`, for
    /// [`ring_eventfd`](Host::ring_eventfd); the engine has none so far.
    ///
    /// # Errors
    /// `EBADF` if there is no such file, `EINVAL` if it is no counter, or if
    /// there are none in this place.
    fn bind_eventfd(&self, fd: i32) -> Result<(), Errno> {
        let _ = fd;
        Err(Errno::EINVAL)
    }

    /// Gives that reference back.
    fn unbind_eventfd(&self) {}

    /// Adds to the counter, for as long as there is one. From any thread.
    fn ring_eventfd(&self) {}

    /// Whether rings of this place can send each other messages; PROBE says of
    /// MSG_RING what this says.
    fn sends_messages(&self) -> bool {
        false
    }

    /// Finds the ring that file number `fd` names, has `give` give it something,
    /// and answers what that says. Whoever drives a ring calls this, also of the
    /// ring that `fd` names.
    ///
    /// # Errors
    /// `EBADF` if there is no such file, `EBADFD` if it is no ring; otherwise
    /// `give`'s.
    fn reach(
        &self,
        fd: i32,
        give: &mut dyn FnMut(Inbox<'_>) -> Result<i32, Errno>,
    ) -> Result<i32, Errno> {
        let _ = (fd, give);
        Err(Errno::EBADFD)
    }

    /// [`park`](Park::park) of whoever drives an engine. A place whose devices
    /// tell of completions in a way of their own (an interrupt's eventfd)
    /// waits for those as well.
    fn sleep(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        self.park(word, expected, deadline)
    }

    /// [`unpark`](Park::unpark) of whoever drives an engine, so of
    /// [`sleep`](Host::sleep).
    fn rouse(&self, word: &AtomicU32) {
        self.unpark(word);
    }
}

/// A host as whoever drives an engine sleeps in it.
pub(crate) struct Driver<'a, H>(pub &'a H);

impl<H: Host> Park for Driver<'_, H> {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        self.0.sleep(word, expected, deadline)
    }

    fn unpark(&self, word: &AtomicU32) {
        self.0.rouse(word);
    }
}

impl<H: Clock> Clock for &H {
    fn now(&self) -> u64 {
        (**self).now()
    }

    fn time(&self, clock: OtherClock) -> Option<u64> {
        (**self).time(clock)
    }
}

impl<H: Park> Park for &H {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        (**self).park(word, expected, deadline)
    }

    fn unpark(&self, word: &AtomicU32) {
        (**self).unpark(word);
    }
}

impl<H: Host> Host for &H {
    #[inline]
    fn cqes_posted(&self) {
        (**self).cqes_posted();
    }

    fn bind_eventfd(&self, fd: i32) -> Result<(), Errno> {
        (**self).bind_eventfd(fd)
    }

    fn unbind_eventfd(&self) {
        (**self).unbind_eventfd();
    }

    fn ring_eventfd(&self) {
        (**self).ring_eventfd();
    }

    fn sends_messages(&self) -> bool {
        (**self).sends_messages()
    }

    fn reach(
        &self,
        fd: i32,
        give: &mut dyn FnMut(Inbox<'_>) -> Result<i32, Errno>,
    ) -> Result<i32, Errno> {
        (**self).reach(fd, give)
    }

    fn sleep(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        (**self).sleep(word, expected, deadline)
    }

    fn rouse(&self, word: &AtomicU32) {
        (**self).rouse(word);
    }
}

/// Which file a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<F> {
    /// An ordinary file number, as the SQE gave it; the backend resolves it
    /// and answers `-EBADF` if there is none.
    Fd(i32),
    /// A registered file. The engine holds it until the request ends.
    Registered(F),
}

/// A request, copied out of its SQE and checked.
///
/// Ranges of registered buffers, flags and fields that must be zero have been
/// checked when a backend sees it; addresses of unregistered memory have not.
#[derive(Clone, Copy, Debug)]
pub struct Request<F, M> {
    /// `IORING_OP_*`.
    pub opcode: u8,
    /// `IOSQE_*`.
    pub flags: u8,
    /// The request sits in the ring's reserved slot: if it may have to wait
    /// for ever, answer [`Start::NoRoom`] and leave no trace.
    pub fallback: bool,
    /// The file.
    pub target: Target<F>,
    /// The registered buffer that `addr` and `len` lie in. The engine holds it
    /// until the request ends.
    pub buffer: Option<M>,
    /// Buffer address, or the address of an array of `iovec`; for FALLOCATE
    /// the bytes of the range, for FADVISE too unless it is 0; for OPENAT and
    /// STATX the address of the path.
    pub addr: u64,
    /// Bytes, or the number of `iovec`s; for FSYNC, SYNC_FILE_RANGE and
    /// FADVISE the bytes of the range; for FALLOCATE and OPENAT the mode; for
    /// STATX the mask.
    pub len: u32,
    /// File offset in bytes; `u64::MAX` is the current position. For STATX the
    /// address where the attributes go.
    pub off: u64,
    /// `rw_flags`, `fsync_flags` and the like; for FADVISE the advice; for
    /// POLL_ADD the events that are waited
    /// for, those included that always are, and
    /// [`EPOLLONESHOT`](crate::uapi::EPOLLONESHOT) if the first one ends the
    /// wait. Its result is those of them that have come.
    pub op_flags: u32,
    /// OPENAT: the file goes into the engine's table, not to the application.
    /// The result is then whatever [`Backend::adopt`] makes of it, if it is
    /// not negative.
    pub direct: bool,
}

/// What became of [`Backend::start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Finished: the CQE's `res`.
    Done(i32),
    /// Under way, and the only answer (besides [`More`](Self::More)) once
    /// somebody else has the token. It will come back, once, by
    /// [`Completer::complete`](crate::engine::Completer::complete) or
    /// [`Backend::poll`].
    Pending,
    /// One of several results, after which the request goes on: a CQE with
    /// `IORING_CQE_F_MORE`. If there is no room for it, the request ends with
    /// it, and [`Backend::end`] tells so.
    More(i32),
    /// The SQE itself cannot be taken (an `iovec` array that is not there, a
    /// segment length beyond `isize::MAX`): the CQE's `res`, and the batch
    /// ends here unless `IORING_SETUP_SUBMIT_ALL`.
    Refused(i32),
    /// As [`Pending`](Start::Pending), but it waits for readiness, and has no
    /// use for the request's memory before
    /// [`Completer::ready`](crate::engine::Completer::ready): to a request with
    /// `IOSQE_BUFFER_SELECT`, whose buffer others can have meanwhile, the engine
    /// may give other memory then ([`Backend::rebuffer`]).
    Waiting,
    /// Nothing happened for want of room. The SQE stays in the ring and is
    /// tried again after a completion; so only answer this while another
    /// request of this backend is in flight.
    NoRoom,
}

/// What became of [`Backend::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It had not begun (it waited for readiness, for a worker, for room), and
    /// comes home with `-ECANCELED`, once, by the completer or by
    /// [`Backend::poll`].
    Ended,
    /// It is under way and ends by itself: `-EALREADY` for who wanted to
    /// cancel it.
    Running,
}

/// What [`Backend::keep`] has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The request's `addr` when it starts: where the data, or the copy of the
    /// array or path, is. What it was, if the backend finds its copy by the slot.
    pub addr: u64,
    /// The bytes of all buffers together; `u32::MAX` if there are more.
    pub bytes: u32,
}

/// Where a request of a [`Run`] differs from the others.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Its token.
    pub token: Token,
    /// See [`Request::addr`].
    pub addr: u64,
    /// See [`Request::len`].
    pub len: u32,
    /// See [`Request::off`].
    pub off: u64,
}

/// What the requests of a [`Run`] have in common: they read or write a
/// registered file by a registered buffer, in a slot that is not the reserve,
/// and ask for nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Alike<'a, F, M> {
    /// `IORING_OP_READ_FIXED` or `IORING_OP_WRITE_FIXED`.
    pub opcode: u8,
    /// See [`Target::Registered`].
    pub file: &'a F,
    /// See [`Request::buffer`].
    pub buffer: &'a M,
}

impl<F: Copy, M: Copy> Alike<'_, F, M> {
    /// One of the requests.
    #[inline(always)]
    pub fn request(&self, piece: &Piece) -> Request<F, M> {
        let &Piece { addr, len, off, .. } = piece;
        Request {
            opcode: self.opcode,
            flags: crate::uapi::IOSQE_FIXED_FILE,
            fallback: false,
            target: Target::Registered(*self.file),
            buffer: Some(*self.buffer),
            addr,
            len,
            off,
            op_flags: 0,
            direct: false,
        }
    }
}

/// Requests that follow each other in the SQ, are [alike](Alike), and differ in
/// nothing but what a [`Piece`] has.
pub trait Run {
    /// The next request, to be started and [answered](Self::answer) before
    /// this is called again.
    fn next(&mut self) -> Option<Piece>;

    /// What became of it. False: the run is over.
    fn answer(&mut self, start: Start) -> bool;

    /// [`next`](Self::next) gives no more than `most` from here on. A backend
    /// that has found out how many it has room for need not look at each.
    fn limit(&mut self, most: u32);

    /// Forgets the last [`next`](Self::next), instead of an answer to it; the
    /// next one looks at that request anew.
    fn take_back(&mut self);
}

/// What carries requests out: files, an NVMe controller, a virtio disk.
///
/// Owned by the engine and called by whoever drives it, never from two
/// threads at once. NOP and refused SQEs do not reach it.
pub trait Backend {
    /// What a registered file slot holds.
    type File: Copy;
    /// What a registered buffer slot holds.
    type Buffer: Copy;

    /// Whether `opcode` is carried out here; PROBE answers exactly this.
    fn supports(&self, opcode: u8) -> bool;

    /// `IORING_FEAT_*` promises that this backend keeps beyond the engine's.
    fn features(&self) -> u32 {
        0
    }

    /// Whether `fd` is the number of an open file. Asked only where another
    /// error would hide that it is not (`-EBADF` comes first in Linux).
    fn is_open(&mut self, fd: i32) -> bool {
        let _ = fd;
        true
    }

    /// Whether a file's reads wait for readiness, as those of pipes and sockets,
    /// and so may move less than they ask for: that is what they use of a buffer
    /// that is used up by parts. Asked when such a read has ended within its
    /// start, and not as it should.
    fn waits_for_readiness(&mut self, target: Target<Self::File>) -> bool {
        let _ = target;
        false
    }

    /// Takes a reference to file number `fd`, which outlives the number.
    ///
    /// # Errors
    /// The errno for the registration, `EBADF` if there is no such file.
    fn open(&mut self, fd: i32) -> Result<Self::File, Errno>;

    /// Gives back a reference taken by [`open`](Backend::open) or
    /// [`adopt`](Backend::adopt).
    fn close(&mut self, file: Self::File);

    /// Makes a registered file of what a [direct](Request::direct) OPENAT has
    /// opened, `opened` being its result; or of a number that a backend of the
    /// place has [given away](Backend::share), if only to close it. Called once
    /// for each.
    ///
    /// # Errors
    /// The errno for the request; what was opened is closed then.
    fn adopt(&mut self, opened: i32) -> Result<Self::File, Errno> {
        let _ = opened;
        Err(Errno::EINVAL)
    }

    /// Whether files can be sent from ring to ring: [`share`](Backend::share)
    /// gives numbers, not negative, that [`adopt`](Backend::adopt) takes, on any
    /// backend of the place that says so as well.
    const SENDS_FILES: bool = false;

    /// A number for a registered file that has not been given away before, for
    /// another ring's table. Somebody [adopts](Backend::adopt) it, once.
    ///
    /// # Errors
    /// The errno for the request; `EINVAL` where files cannot be sent.
    fn share(&mut self, file: Self::File) -> Result<i32, Errno> {
        let _ = file;
        Err(Errno::EINVAL)
    }

    /// Copies `to.len()` bytes from memory that an SQE names, for an operation
    /// of the engine's own. A place that can tell whether there is memory
    /// overrides this.
    ///
    /// # Errors
    /// `EFAULT` if not all of it can be read.
    ///
    /// # Safety
    /// There is memory, unless this place can tell.
    unsafe fn read_memory(&mut self, addr: usize, to: &mut [u8]) -> Result<(), Errno> {
        let from = core::ptr::with_exposed_provenance::<u8>(addr);
        if from.is_null() {
            return Err(Errno::EFAULT);
        }
        // SAFETY: the caller's promise; `to` is the engine's own, so they do
        // not overlap.
        unsafe { core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies `from` to memory that an SQE names; otherwise as
    /// [`read_memory`](Backend::read_memory).
    ///
    /// # Errors
    /// `EFAULT` if not all of it can be written.
    ///
    /// # Safety
    /// There is memory that nobody else uses, unless this place can tell.
    unsafe fn write_memory(&mut self, addr: usize, from: &[u8]) -> Result<(), Errno> {
        let to = core::ptr::with_exposed_provenance_mut::<u8>(addr);
        if to.is_null() {
            return Err(Errno::EFAULT);
        }
        // SAFETY: as in `read_memory`.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    /// Makes memory ready for device or kernel access, once for many I/Os.
    ///
    /// # Errors
    /// The errno for the registration, `EFAULT` if it is not all accessible.
    ///
    /// # Safety
    /// The caller keeps the memory valid until [`unmap`](Backend::unmap).
    unsafe fn map(&mut self, addr: usize, len: usize) -> Result<Self::Buffer, Errno>;

    /// Gives back a mapping made by [`map`](Backend::map).
    fn unmap(&mut self, buffer: Self::Buffer);

    /// Whether a buffer costs nothing where a live one covers it already.
    /// Of buffers that follow each other in memory and are registered in one
    /// call the engine then maps the whole first, and unmaps that when its
    /// parts are mapped: they take one mapping.
    const SHARES_MAPPINGS: bool = false;

    /// Starts a request without blocking. An array of `iovec`s is the
    /// application's again when this returns (`IORING_FEAT_SUBMIT_STABLE`):
    /// what is needed later has to be copied.
    ///
    /// # Safety
    /// The memory that the request names is valid, and for reads not used by
    /// anybody else, until the request has ended.
    unsafe fn start(&mut self, token: Token, request: &Request<Self::File, Self::Buffer>) -> Start;

    /// [`start`](Backend::start)s the requests of a run, for as long as it
    /// lasts. A backend that overrides this may do once what is the same for
    /// all of them.
    ///
    /// # Safety
    /// As for [`start`](Backend::start), for each.
    #[inline(always)]
    unsafe fn start_run(&mut self, alike: Alike<'_, Self::File, Self::Buffer>, run: &mut impl Run) {
        while let Some(piece) = run.next() {
            let request = alike.request(&piece);
            // SAFETY: the caller's promise.
            let start = unsafe { self.start(piece.token, &request) };
            if !run.answer(start) {
                break;
            }
        }
    }

    /// Goes on with a pending request after
    /// [`Completer::ready`](crate::engine::Completer::ready).
    /// Answers [`Start::Done`], [`Start::Pending`], [`Start::Waiting`] or
    /// [`Start::More`]. One more
    /// notice may cross a `Done`; it has no effect.
    ///
    /// # Safety
    /// As for [`start`](Backend::start).
    unsafe fn resume(&mut self, token: Token) -> Start {
        let _ = token;
        Start::Pending
    }

    /// A request with `IOSQE_BUFFER_SELECT` that has answered [`Start::Waiting`] is about to be
    /// [resumed](Backend::resume), with this memory.
    fn rebuffer(&mut self, token: Token, addr: u64, len: u32) {
        let _ = (token, addr, len);
    }

    /// A pending POLL_ADD waits for other `events`, as in
    /// [`Request::op_flags`] (the flag stays as it was), or for the same. What
    /// is ready now counts as an event, told as any other.
    fn update_poll(&mut self, token: Token, events: Option<u32>) {
        let _ = (token, events);
    }

    /// A request ends with the [`Start::More`] that has just been answered,
    /// for want of room in the CQ, or instead of a
    /// [`rebuffer`](Backend::rebuffer): lets go of what it holds. A notice may
    /// cross the end.
    fn end(&mut self, token: Token) {
        let _ = token;
    }

    /// Called once after a batch of [`start`](Backend::start)s.
    #[inline]
    fn kick(&mut self) {}

    /// Reports requests found complete by looking. A notice of
    /// [`Completer::ready`](crate::engine::Completer::ready) may have come before
    /// (it has no effect then), not at the same time from another thread.
    #[inline]
    fn poll(&mut self, done: impl FnMut(Token, i32)) {
        let _ = done;
    }

    /// Whether everything that it starts is found by [`poll`](Backend::poll), so
    /// that a ring may be set up for that
    /// ([`Config::iopoll`](crate::config::Config::iopoll)).
    fn iopoll(&self) -> bool {
        false
    }

    /// Whether something in flight will only be found by
    /// [`poll`](Backend::poll), so that the engine must not sleep.
    ///
    /// Asked again between a driver's announcement that it sleeps and its
    /// sleep: a backend with interrupts answers from what their handler has
    /// set, which then calls [`Completer::wake`](crate::engine::Completer::wake).
    #[inline]
    fn polling(&self) -> bool {
        false
    }

    /// When the engine must look again, on [`Clock::now`]'s scale, though
    /// nothing wakes it: it calls [`poll`](Backend::poll) then. Asked only
    /// before a sleep, so that deadlines cost a running ring nothing.
    #[inline]
    fn deadline(&mut self) -> Option<u64> {
        None
    }

    /// Adds what it counts itself.
    fn count(&self, stats: &mut Stats) {
        let _ = stats;
    }

    /// Sets how many bounded and how many unbounded workers there may be, where
    /// it is not 0, and tells what it was before (at most `i32::MAX` each).
    ///
    /// # Errors
    /// `EINVAL`: there are no workers here.
    fn max_workers(&mut self, counts: &mut [u32; 2]) -> Result<(), Errno> {
        let _ = counts;
        Err(Errno::EINVAL)
    }

    /// Whether something waits for the ring to be driven and will never come
    /// home by itself (a worker that could not be made yet). An application
    /// that drives its ring inline, and is outside of it, is asked to come
    /// back ([`Completer::call_in`](crate::engine::Completer::call_in)); this
    /// says whether it still has to, when it has done so.
    fn unattended(&mut self) -> bool {
        false
    }

    /// Prepares a request that will start later, after others: a read or write
    /// without a registered buffer, OPENAT or STATX; `addr` and `len` as in
    /// [`Request`]. An array of `iovec`s and a path are the application's again
    /// when this returns (`IORING_FEAT_SUBMIT_STABLE`), so they are copied; the
    /// request in slot `index` has the copy until [`forget`](Backend::forget).
    ///
    /// # Errors
    /// What the request is refused with; `EINVAL` where copies are not built.
    ///
    /// # Safety
    /// The elements of an array, or the path, are valid for reads, for all that
    /// the place cannot find out.
    unsafe fn keep(
        &mut self,
        index: usize,
        opcode: u8,
        addr: u64,
        len: u32,
    ) -> Result<Kept, Errno> {
        let _ = index;
        match opcode {
            crate::uapi::IORING_OP_READ | crate::uapi::IORING_OP_WRITE => {
                Ok(Kept { addr, bytes: len })
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether a [direct](Request::direct) OPENAT may have these flags (`O_*` of
    /// the system). One in a chain, or behind a drain, is asked for as it is taken:
    /// an entry that cannot be carried out ends its chain before that has begun.
    fn opens_registered(&self, flags: u32) -> bool {
        let _ = flags;
        true
    }

    /// Gives back what [`keep`](Backend::keep) took.
    fn forget(&mut self, index: usize) {
        let _ = index;
    }

    /// Ends a pending request if it has not begun. Not after a
    /// [`resume`](Backend::resume) that answered [`Start::Done`].
    fn cancel(&mut self, token: Token) -> Cancel {
        let _ = token;
        Cancel::Running
    }

    /// Ends everything that has not begun to run with `-ECANCELED`, through
    /// the completer. Called at teardown; running work is awaited after it.
    fn cancel_all(&mut self) {}
}
