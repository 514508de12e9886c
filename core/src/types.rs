//! Small types of the interface: files, times, vectors of buffers and flags of operations.

use crate::uapi;
use bitflags::bitflags;
use core::mem::{offset_of, size_of};
use core::time::Duration;
use static_assertions::const_assert_eq;

/// The `RWF_*` flags of a read or write, in [`uapi`].
pub type RwFlags = i32;

/// An ordinary file descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Fd(pub i32);

/// An index into the ring's registered files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Fixed(pub u32);

mod sealed {
    /// How a file stands in an entry; out of reach so that only this module's types name files.
    pub trait IntoSqe {
        /// The entry's `fd`, and whether it is an index into the registered files.
        fn into_sqe(self) -> (i32, bool);
    }

    /// What can be closed, in the same way.
    pub trait IntoTarget {
        /// The entry's `fd` and `file_index`.
        fn into_target(self) -> (i32, u32);
    }
}

/// What can name a request's file: [`Fd`] or [`Fixed`], and nothing else.
pub trait UseFd: sealed::IntoSqe + Copy {}

/// What can be closed: as [`UseFd`], but a registered file is named as a place, not as the request's file.
pub trait UseTarget: sealed::IntoTarget + Copy {}

impl UseTarget for Fd {}
impl UseTarget for Fixed {}

impl sealed::IntoTarget for Fd {
    #[inline]
    fn into_target(self) -> (i32, u32) {
        (self.0, 0)
    }
}

impl sealed::IntoTarget for Fixed {
    #[inline]
    fn into_target(self) -> (i32, u32) {
        // The last number has no place after it; as none it is refused, with a descriptor that is no file.
        if self.0 == u32::MAX { (-1, 0) } else { (0, self.0 + 1) }
    }
}

/// Where a file goes that a ring registers itself: a place of its table, or the next empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationSlot(u32);

impl DestinationSlot {
    /// The next empty place.
    #[inline]
    #[must_use]
    pub const fn auto_target() -> DestinationSlot {
        DestinationSlot(uapi::IORING_FILE_INDEX_ALLOC)
    }

    /// This place, whatever is there.
    ///
    /// # Errors
    /// The number, if it is too large for any place: beyond `u32::MAX - 2`.
    #[inline]
    pub const fn try_from_slot_target(target: u32) -> Result<DestinationSlot, u32> {
        if target > uapi::IORING_FILE_INDEX_ALLOC - 2 {
            return Err(target);
        }
        Ok(DestinationSlot(target + 1))
    }

    /// As it stands in an entry.
    pub(crate) const fn file_index(self) -> u32 {
        self.0
    }
}

/// Room for the attributes that [`Statx`](crate::opcode::Statx) asks for; a pointer to the system's own `struct statx`
/// can be cast to a pointer to this.
#[allow(non_camel_case_types)] // C's name
#[repr(C)]
#[derive(Debug)]
pub struct statx {
    opaque: [u8; 0],
}

impl UseFd for Fd {}
impl UseFd for Fixed {}

impl sealed::IntoSqe for Fd {
    #[inline]
    fn into_sqe(self) -> (i32, bool) {
        (self.0, false)
    }
}

impl sealed::IntoSqe for Fixed {
    #[inline]
    fn into_sqe(self) -> (i32, bool) {
        // Keeps the bits: the ring reads the field back as u32, so an index beyond i32 is refused and not misread.
        (self.0 as i32, true)
    }
}

bitflags! {
    /// How far an [`Fsync`](crate::opcode::Fsync) goes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct FsyncFlags: u32 {
        /// Only the data, and the metadata without which it could not be read, as `fdatasync(2)`.
        const DATASYNC = uapi::IORING_FSYNC_DATASYNC;
    }
}

bitflags! {
    /// What kind of time a [`Timeout`](crate::opcode::Timeout) has.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct TimeoutFlags: u32 {
        /// A point in time, on the ring's clock (`CLOCK_MONOTONIC` in Linux).
        const ABS = uapi::IORING_TIMEOUT_ABS;
        /// By the clock that runs on while the machine is suspended.
        const BOOTTIME = uapi::IORING_TIMEOUT_BOOTTIME;
        /// By the wall clock. It makes a difference to a point in time only; that it has been set is seen within a
        /// second.
        const REALTIME = uapi::IORING_TIMEOUT_REALTIME;
        /// Of an update: the time of a [`LinkTimeout`](crate::opcode::LinkTimeout).
        const LINK_TIMEOUT_UPDATE = uapi::IORING_LINK_TIMEOUT_UPDATE;
        /// That its time is over does not break its chain.
        const ETIME_SUCCESS = uapi::IORING_TIMEOUT_ETIME_SUCCESS;
        /// Fires again and again, each time after its span.
        const MULTISHOT = uapi::IORING_TIMEOUT_MULTISHOT;
    }
}

/// Which requests a cancellation means; those of all the conditions set.
#[derive(Debug, Clone, Copy)]
#[must_use = "it says what an AsyncCancel2 means"]
pub struct CancelBuilder {
    pub(crate) flags: u32,
    pub(crate) user_data: u64,
    pub(crate) file: i32,
    pub(crate) opcode: u8,
}

impl CancelBuilder {
    const NONE: Self = Self { flags: 0, user_data: 0, file: -1, opcode: 0 };

    /// Every request.
    pub const fn any() -> Self {
        Self { flags: uapi::IORING_ASYNC_CANCEL_ANY, ..Self::NONE }
    }

    /// Those with this user data.
    pub const fn user_data(user_data: u64) -> Self {
        Self { flags: uapi::IORING_ASYNC_CANCEL_USERDATA, user_data, ..Self::NONE }
    }

    /// Those with this file: as they named it, by number or as a registered one.
    pub fn fd(file: impl UseFd) -> Self {
        let (file, fixed) = file.into_sqe();
        let fixed = if fixed { uapi::IORING_ASYNC_CANCEL_FD_FIXED } else { 0 };
        Self { flags: uapi::IORING_ASYNC_CANCEL_FD | fixed, file, ..Self::NONE }
    }

    /// Those of this opcode.
    pub const fn op(opcode: u8) -> Self {
        Self { flags: uapi::IORING_ASYNC_CANCEL_OP, opcode, ..Self::NONE }
    }

    /// All that match, not only the first.
    pub const fn all(mut self) -> Self {
        self.flags |= uapi::IORING_ASYNC_CANCEL_ALL;
        self
    }
}

/// One thing that a ring which was set up disabled may do when it is enabled,
/// laid out as Linux's `io_uring_restriction`.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restriction(pub(crate) uapi::io_uring_restriction);

impl Restriction {
    const fn new(what: u32, arg: u8) -> Self {
        let restriction =
            uapi::io_uring_restriction { opcode: what as u16, arg, resv: 0, resv2: [0; 3] };
        Self(restriction)
    }

    /// This register operation.
    #[must_use]
    pub const fn register_op(op: u8) -> Self {
        Self::new(uapi::IORING_RESTRICTION_REGISTER_OP, op)
    }

    /// Requests of this opcode.
    #[must_use]
    pub const fn sqe_op(op: u8) -> Self {
        Self::new(uapi::IORING_RESTRICTION_SQE_OP, op)
    }

    /// Requests with any of these flags.
    #[must_use]
    pub const fn sqe_flags_allowed(flags: u8) -> Self {
        Self::new(uapi::IORING_RESTRICTION_SQE_FLAGS_ALLOWED, flags)
    }

    /// Requests with all of these flags only.
    #[must_use]
    pub const fn sqe_flags_required(flags: u8) -> Self {
        Self::new(uapi::IORING_RESTRICTION_SQE_FLAGS_REQUIRED, flags)
    }
}

/// A time as Linux passes it to a ring: seconds and nanoseconds, 64 bits each on every machine.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Timespec {
    tv_sec: i64,
    tv_nsec: i64,
}

const_assert_eq!(size_of::<Timespec>(), 16);
const_assert_eq!(offset_of!(Timespec, tv_sec), 0);
const_assert_eq!(offset_of!(Timespec, tv_nsec), 8);

impl Timespec {
    /// Zero.
    #[inline]
    #[must_use]
    pub const fn new() -> Timespec {
        Timespec { tv_sec: 0, tv_nsec: 0 }
    }

    /// Sets the seconds. More than `i64::MAX` count as that many.
    #[inline]
    #[must_use]
    pub const fn sec(mut self, sec: u64) -> Timespec {
        self.tv_sec = if sec > i64::MAX as u64 { i64::MAX } else { sec as i64 };
        self
    }

    /// Sets the nanoseconds.
    #[inline]
    #[must_use]
    pub const fn nsec(mut self, nsec: u32) -> Timespec {
        self.tv_nsec = nsec as i64;
        self
    }

    /// The whole in nanoseconds; 0 if it lies in the past, `u64::MAX` if it does not fit.
    #[inline]
    #[must_use]
    pub const fn as_nanos(&self) -> u64 {
        const NANOS_PER_SEC: i128 = 1_000_000_000;
        let nanos = self.tv_sec as i128 * NANOS_PER_SEC + self.tv_nsec as i128;
        if nanos < 0 {
            0
        } else if nanos > u64::MAX as i128 {
            u64::MAX
        } else {
            nanos as u64
        }
    }
}

impl Timespec {
    /// The time of these bytes, as they lie in memory.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Timespec {
        let word = |at: usize| core::array::from_fn(|i| bytes[at + i]);
        Timespec { tv_sec: i64::from_ne_bytes(word(0)), tv_nsec: i64::from_ne_bytes(word(8)) }
    }

    /// The time of these parts, whatever they are.
    pub(crate) const fn from_parts(tv_sec: i64, tv_nsec: i64) -> Timespec {
        Timespec { tv_sec, tv_nsec }
    }

    /// The whole in nanoseconds, `u64::MAX` if it does not fit; none if one of
    /// its parts is negative.
    pub(crate) fn checked_nanos(&self) -> Option<u64> {
        (self.tv_sec >= 0 && self.tv_nsec >= 0).then(|| self.as_nanos())
    }
}

impl From<Duration> for Timespec {
    fn from(duration: Duration) -> Timespec {
        Timespec::new().sec(duration.as_secs()).nsec(duration.subsec_nanos())
    }
}

/// How long a submission waits for completions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SubmitArgs {
    timeout: Option<Timespec>,
    min_wait: u32,
}

impl SubmitArgs {
    /// Waits without a limit.
    #[inline]
    #[must_use]
    pub const fn new() -> SubmitArgs {
        SubmitArgs { timeout: None, min_wait: 0 }
    }

    /// Limits the wait to this span from now; the call ends with `ETIME` when it has passed.
    #[inline]
    #[must_use]
    pub const fn timespec(mut self, timespec: &Timespec) -> SubmitArgs {
        self.timeout = Some(*timespec);
        self
    }

    /// After so many microseconds, any number of completions is enough, and if there is none then, the next one. Without
    /// a limit the wait is over then, whatever has come. 0, unless set, is no such time.
    #[inline]
    #[must_use]
    pub const fn min_wait_usec(mut self, microseconds: u32) -> SubmitArgs {
        self.min_wait = microseconds;
        self
    }

    /// The limit, if one was set.
    #[inline]
    #[must_use]
    pub const fn timeout(&self) -> Option<Timespec> {
        self.timeout
    }

    /// The microseconds after which any completion is enough, or 0.
    #[inline]
    #[must_use]
    pub const fn min_wait(&self) -> u32 {
        self.min_wait
    }
}

/// One element of a vector of buffers, as C's `struct iovec`: `*const libc::iovec` can be cast to `*const Iovec`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iovec {
    /// Start of the buffer.
    pub base: *mut u8,
    /// Its length in bytes.
    pub len: usize,
}

const_assert_eq!(size_of::<Iovec>(), 2 * size_of::<usize>());
const_assert_eq!(offset_of!(Iovec, base), 0);
const_assert_eq!(offset_of!(Iovec, len), size_of::<usize>());

impl Iovec {
    /// The element for `len` bytes from `base` on.
    #[inline]
    #[must_use]
    pub const fn new(base: *mut u8, len: usize) -> Iovec {
        Iovec { base, len }
    }
}

/// An entry of a ring of provided buffers (`struct io_uring_buf`).
///
/// A ring is an array of them, a power of two, on a multiple of 4,096 bytes;
/// its 16-bit tail lies in its first entry. The application fills the entry at
/// the tail, modulo the ring's length, and publishes it by storing the tail
/// plus one.
#[repr(C)]
#[derive(Debug)]
pub struct BufRingEntry {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) bid: u16,
    pub(crate) tail: u16,
}

const_assert_eq!(size_of::<BufRingEntry>(), 16);
const_assert_eq!(offset_of!(BufRingEntry, bid), 12);
const_assert_eq!(offset_of!(BufRingEntry, tail), 14);

impl BufRingEntry {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { addr: 0, len: 0, bid: 0, tail: 0 }
    }

    /// Where the buffer is.
    pub fn set_addr(&mut self, addr: u64) {
        self.addr = addr;
    }

    /// Its length in bytes.
    pub fn set_len(&mut self, len: u32) {
        self.len = len;
    }

    /// Its number, which the CQE tells.
    pub fn set_bid(&mut self, bid: u16) {
        self.bid = bid;
    }

    /// The number that was set.
    #[must_use]
    pub fn bid(&self) -> u16 {
        self.bid
    }

    /// The tail of the ring that begins at `ring_base`, to be stored with
    /// Release and by an atomic access, for the engine loads it with Acquire.
    ///
    /// # Safety
    /// `ring_base` is the first entry of a ring.
    #[allow(unsafe_code)]
    #[must_use]
    pub unsafe fn tail(ring_base: *const BufRingEntry) -> *const u16 {
        // SAFETY: the caller's promise.
        unsafe { &raw const (*ring_base).tail }
    }
}

impl Default for BufRingEntry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_nanoseconds() {
        let time = Timespec::from(Duration::new(2, 500));
        assert_eq!(time, Timespec::new().sec(2).nsec(500));
        assert_eq!(time.as_nanos(), 2_000_000_500);
        assert_eq!(Timespec::from(Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!(Timespec { tv_sec: -1, tv_nsec: 0 }.as_nanos(), 0);
        assert_eq!(Timespec { tv_sec: i64::MIN, tv_nsec: i64::MIN }.as_nanos(), 0);
    }

    #[test]
    fn arguments_keep_their_own_copy_of_the_time() {
        assert_eq!(SubmitArgs::new().timeout(), None);
        let args = SubmitArgs::new().timespec(&Timespec::new().nsec(9));
        assert_eq!(args.timeout().map(|time| time.as_nanos()), Some(9));
    }

    #[test]
    fn a_large_index_keeps_its_bits() {
        use sealed::IntoSqe;
        assert_eq!(Fixed(u32::MAX).into_sqe(), (-1, true));
        assert_eq!(Fd(-1).into_sqe(), (-1, false));
    }
}
