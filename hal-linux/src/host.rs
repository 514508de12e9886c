//! A Linux process as a place: monotonic time, futexes, an eventfd.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use annulus::engine::Inbox;
use annulus::errno::Errno;
use annulus::hal::{Clock, Host, OtherClock, Park, Parked};
use annulus::sync::{AtomicU32, Ordering};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::own::Own;
use crate::rings;

const NANOS: u64 = 1_000_000_000;

/// Linux as the place that a ring runs in.
#[derive(Debug, Default)]
pub struct LinuxHost {
    eventfd: Option<Own>,
    /// Registered by the application, and rung by whoever has something for it.
    registered: Mutex<Option<Counter>>,
    interrupt: Option<Interrupt>,
}

/// An eventfd of the application's.
#[derive(Debug)]
struct Counter {
    fd: Own,
    /// A write waits while the counter is full.
    blocks: bool,
}

impl Counter {
    /// A reference to number `fd`.
    fn open(fd: RawFd) -> Result<Self, Errno> {
        use rustix::fs::{OFlags, fcntl_getfl};
        if fd < 0 {
            return Err(Errno::EBADF);
        }
        // SAFETY: not kept, and a number that is no file is an error.
        let given = unsafe { BorrowedFd::borrow_raw(fd) };
        let flags = fcntl_getfl(given).map_err(|_| Errno::EBADF)?;
        let fd = given.try_clone_to_owned().map_err(|e| {
            e.raw_os_error().and_then(|raw| Errno::from_result(-raw)).unwrap_or(Errno::EMFILE)
        })?;
        // Nothing else says of a descriptor that it counts.
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if !std::fs::read_link(link).is_ok_and(|is| is.as_os_str() == "anon_inode:[eventfd]") {
            return Err(Errno::EINVAL);
        }
        Ok(Self { fd: fd.into(), blocks: !flags.contains(OFlags::NONBLOCK) })
    }

    fn ring(&self) {
        if self.blocks {
            // One that is full is readable: whoever waits for it is told.
            let mut list = [PollFd::new(&self.fd, PollFlags::OUT)];
            if !matches!(poll(&mut list, Some(&Timespec::default())), Ok(1)) {
                return;
            }
        }
        ring(&self.fd);
    }
}

/// What the driver of a ring sleeps on if its device has interrupts: a futex
/// is nothing that could be waited for together with a descriptor.
#[derive(Debug)]
struct Interrupt {
    /// The device's eventfd.
    device: Own,
    /// Ours, rung by [`Host::rouse`].
    wake: Own,
}

impl LinuxHost {
    /// A place that rings `eventfd`, if there is one, whenever CQEs were
    /// posted.
    pub fn new(eventfd: Option<OwnedFd>) -> Self {
        Self { eventfd: eventfd.map(Own::from), ..Self::default() }
    }

    /// As [`new`](Self::new), for a device whose interrupts count in
    /// `interrupt`, an eventfd that nobody else reads: whoever drives the ring
    /// ([`Host::sleep`]) is woken by it too.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE` or `ENOMEM`: there is no other eventfd, for
    /// [`Host::rouse`].
    pub fn with_interrupt(eventfd: Option<OwnedFd>, interrupt: OwnedFd) -> io::Result<Self> {
        let wake = self::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let interrupt = Interrupt { device: interrupt.into(), wake: wake.into() };
        let eventfd = eventfd.map(Own::from);
        Ok(Self { eventfd, interrupt: Some(interrupt), ..Self::default() })
    }

    fn registered(&self) -> MutexGuard<'_, Option<Counter>> {
        // Whoever panicked with it had not changed it.
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The eventfd that is rung.
    pub fn eventfd(&self) -> Option<BorrowedFd<'_>> {
        self.eventfd.as_ref().map(AsFd::as_fd)
    }
}

impl Clock for LinuxHost {
    fn now(&self) -> u64 {
        nanos(clock_gettime(ClockId::Monotonic))
    }

    fn time(&self, clock: OtherClock) -> Option<u64> {
        let id = match clock {
            OtherClock::Wall => ClockId::Realtime,
            OtherClock::Boot => ClockId::Boottime,
        };
        Some(nanos(clock_gettime(id)))
    }
}

/// Nanoseconds; 0 for a time before the clock's beginning.
fn nanos(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).map_or(0, |seconds| seconds * NANOS + time.tv_nsec as u64)
}

impl Park for LinuxHost {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        // Always with a deadline, on the monotonic clock: then a signal
        // handler makes the kernel answer EINTR even where it was installed
        // with SA_RESTART, and a wait for CQEs can be interrupted as
        // io_uring_enter can. 68 years stand for ever.
        let until = match deadline {
            Some(at) => Timespec { tv_sec: (at / NANOS) as _, tv_nsec: (at % NANOS) as _ },
            None => Timespec { tv_sec: i32::MAX as _, tv_nsec: 0 },
        };
        let flags = futex::Flags::PRIVATE;
        match futex::wait_bitset(word, flags, expected, Some(&until), NonZeroU32::MAX) {
            Err(rustix::io::Errno::INTR) => Parked::Interrupted,
            Err(rustix::io::Errno::TIMEDOUT) if deadline.is_some() => Parked::TimedOut,
            // Woken, or EAGAIN: the word had changed.
            _ => Parked::Woken,
        }
    }

    fn unpark(&self, word: &AtomicU32) {
        // Fails for a word that is not memory only, which a reference is.
        let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

impl Host for LinuxHost {
    #[inline]
    fn cqes_posted(&self) {
        if let Some(eventfd) = &self.eventfd {
            ring(eventfd);
        }
    }

    fn bind_eventfd(&self, fd: i32) -> Result<(), Errno> {
        let counter = Counter::open(fd)?;
        *self.registered() = Some(counter);
        Ok(())
    }

    fn unbind_eventfd(&self) {
        *self.registered() = None;
    }

    fn ring_eventfd(&self) {
        if let Some(counter) = &*self.registered() {
            counter.ring();
        }
    }

    fn sends_messages(&self) -> bool {
        true
    }

    fn reach(
        &self,
        fd: i32,
        give: &mut dyn FnMut(Inbox<'_>) -> Result<i32, Errno>,
    ) -> Result<i32, Errno> {
        rings::reach(fd, give)
    }

    fn sleep(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        let Some(Interrupt { device, wake }) = &self.interrupt else {
            return self.park(word, expected, deadline);
        };
        // Acquire, as a futex's own look: what was written before the word is
        // seen with it. A change after this look is followed by a `rouse`,
        // whose count stays in the eventfd until it is drained here: so the
        // comparison and the sleep need not be one step.
        if word.load(Ordering::Acquire) != expected {
            return Parked::Woken;
        }
        let left = deadline.map(|at| at.saturating_sub(self.now()));
        let left = left.map(|left| Timespec {
            tv_sec: (left / NANOS).try_into().unwrap_or(i64::from(i32::MAX)),
            tv_nsec: (left % NANOS) as _,
        });
        let mut list = [device, wake].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut list, left.as_ref()) {
            // Never restarted, whatever SA_RESTART says: see park.
            Err(rustix::io::Errno::INTR) => Parked::Interrupted,
            Ok(0) if deadline.is_some() => Parked::TimedOut,
            _ => {
                // Drained before the driver looks at anything: what is rung
                // after this wakes its next sleep. There is one driver at a
                // time, so nobody else waits for what is taken here.
                for (fd, ready) in [device, wake].into_iter().zip(&list) {
                    if ready.revents().contains(PollFlags::IN) {
                        // Takes the whole counter.
                        let _ = rustix::io::read(fd, &mut [0; 8]);
                    }
                }
                Parked::Woken
            }
        }
    }

    fn rouse(&self, word: &AtomicU32) {
        match &self.interrupt {
            Some(interrupt) => ring(&interrupt.wake),
            None => self.unpark(word),
        }
    }
}

fn ring(eventfd: impl AsFd) {
    // The only failure is a counter that is full, so non-zero, so readable:
    // whoever is rung is told already.
    let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn event() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
    }

    /// A host, and the other end of its device's interrupt.
    fn host() -> (LinuxHost, OwnedFd) {
        let device = event();
        let far = device.try_clone().expect("a duplicate");
        (LinuxHost::with_interrupt(None, device).expect("a host"), far)
    }

    /// Long enough that a test that waits for it has failed.
    const LONG: u64 = 30 * NANOS;

    #[test]
    fn a_word_that_has_changed_is_not_slept_on() {
        let (host, _device) = host();
        let word = AtomicU32::new(1);
        assert_eq!(host.sleep(&word, 0, None), Parked::Woken);
    }

    #[test]
    fn a_deadline_ends_a_sleep() {
        let (host, _device) = host();
        let word = AtomicU32::new(0);
        let at = host.now() + 20_000_000;
        assert_eq!(host.sleep(&word, 0, Some(at)), Parked::TimedOut);
        assert!(host.now() >= at);
        // One that has passed, too.
        assert_eq!(host.sleep(&word, 0, Some(0)), Parked::TimedOut);
    }

    #[test]
    fn an_interrupt_wakes_once() {
        let (host, device) = host();
        let word = AtomicU32::new(0);
        ring(&device);
        ring(&device);
        assert_eq!(host.sleep(&word, 0, Some(host.now() + LONG)), Parked::Woken);
        assert_eq!(host.sleep(&word, 0, Some(host.now() + 1_000_000)), Parked::TimedOut);
    }

    #[test]
    fn a_rouse_before_the_sleep_is_not_lost() {
        let (host, _device) = host();
        let word = AtomicU32::new(0);
        // Between the driver's look at the word and its poll: the word is as
        // it was when it looked, so this is what it meets.
        host.rouse(&word);
        assert_eq!(host.sleep(&word, 0, Some(host.now() + LONG)), Parked::Woken);
    }

    #[test]
    fn no_wake_is_lost_between_two_threads() {
        let (host, device) = host();
        let shared = Arc::new((host, AtomicU32::new(0)));
        let rounds = 20_000;
        let driver = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (host, word) = &*shared;
                let mut seen = 0;
                while seen < rounds {
                    let deadline = host.now() + LONG;
                    let woken = host.sleep(word, seen, Some(deadline));
                    assert_ne!(woken, Parked::TimedOut, "a wake was lost after {seen}");
                    seen = word.load(Ordering::Acquire);
                }
            })
        };
        for n in 0..rounds {
            shared.1.fetch_add(1, Ordering::Release);
            // By either way, and so that the driver sleeps now and then.
            if n % 3 == 0 {
                ring(&device)
            } else {
                shared.0.rouse(&shared.1)
            }
            if n % 64 == 0 {
                thread::sleep(Duration::from_micros(50));
            }
        }
        driver.join().expect("the driver ends");
    }

    #[test]
    fn a_signal_interrupts_both_ways_of_sleeping() {
        extern "C" fn nothing(_: libc::c_int) {}
        let handler: extern "C" fn(libc::c_int) = nothing;
        // SAFETY: an empty handler, restarting what it interrupts, which must
        // not matter; the signal is nobody else's in this process.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
        }
        for host in [LinuxHost::new(None), host().0] {
            let ready = Arc::new(AtomicU32::new(0));
            let sleeper = {
                let ready = ready.clone();
                thread::spawn(move || {
                    let word = AtomicU32::new(0);
                    ready.store(1, Ordering::Release);
                    host.sleep(&word, 0, Some(host.now() + LONG))
                })
            };
            let thread = std::os::unix::thread::JoinHandleExt::as_pthread_t(&sleeper);
            while ready.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            // It may not sleep yet, so more than once.
            while !sleeper.is_finished() {
                // SAFETY: a thread that has not been joined.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(sleeper.join().expect("it ends"), Parked::Interrupted);
        }
    }

    #[test]
    fn without_an_interrupt_the_driver_sleeps_on_the_futex() {
        let shared = Arc::new((LinuxHost::new(None), AtomicU32::new(0)));
        let other = shared.clone();
        let driver = thread::spawn(move || {
            while other.1.load(Ordering::Acquire) == 0 {
                other.0.sleep(&other.1, 0, None);
            }
        });
        shared.1.store(1, Ordering::Release);
        shared.0.rouse(&shared.1);
        driver.join().expect("it ends");
    }
}
