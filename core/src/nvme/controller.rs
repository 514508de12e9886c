//! A controller: brought up, shared by rings, reset, shut down (Base section
//! 3.5 and 3.6).

use super::admin::Admin;
use super::bring_up::{bring_up, check, configure_shadow, disable, give_up, wait_status};
use super::identify::ControllerInfo;
use super::memory::alloc_all;
use super::queue::{Doorbell, Shadow};
use super::regs::{self, Cap};
use super::{Error, Platform};
use crate::hal::device::{Coherent, PAGE};
use crate::sync::{AtomicU32, Mutex, Ordering};

/// How a controller is to be used.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Queue pairs to ask for; the controller may grant fewer.
    pub pairs: u16,
    /// After how long a command counts as lost, in ms. It is aborted then,
    /// and the controller reset after as long again.
    pub timeout_ms: u32,
    /// Shadow doorbells, where the controller has them. They save a register
    /// write where many small batches follow each other closely; where
    /// doorbells are rung once a batch anyway they cost more than they save.
    pub shadow_doorbells: bool,
    /// SGLs, where the controller has them, for what would need a PRP list or
    /// does not lie on a dword.
    pub sgl: bool,
}

impl Default for Options {
    fn default() -> Self {
        // 30 s is what Linux waits for a command.
        Self { pairs: 64, timeout_ms: 30_000, shadow_doorbells: false, sgl: true }
    }
}

/// What a controller allows.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Entries of the largest queue; one fewer can be outstanding.
    pub queue_entries: u32,
    /// Queue pairs granted.
    pub pairs: u16,
    /// The longest wait for the controller to become ready, in ns.
    pub ready_timeout_ns: u64,
}

/// What the state word says beside the incarnation.
pub(super) const RUNNING: u32 = 0;
pub(super) const RESETTING: u32 = 1;
/// It could not be reset; it does nothing any more.
pub(super) const DEAD: u32 = 2;
/// It was removed.
pub(super) const GONE: u32 = 3;
/// The kind of state in a state word.
pub(super) const KIND: u32 = 3;
const INCARNATION: u32 = 4;

pub(super) const OTHER: &str = "after a reset it is another controller";

/// For admin commands and shutdown.
pub(super) const ADMIN_TIMEOUT_NS: u64 = 5_000_000_000;

/// A controller that is running. Shared by the backends of all rings on it.
pub struct Controller<P: Platform> {
    platform: P,
    cap: Cap,
    info: ControllerInfo,
    limits: Limits,
    options: Options,
    /// Incarnation and kind of state. Its changes carry no data (what they
    /// tell of is under the admin lock, or in registers), so all accesses are
    /// Relaxed but where the lock is taken anyway.
    state: AtomicU32,
    admin: Mutex<Admin>,
    shadow: Option<[Coherent; 2]>,
    /// Memory given up because the device could not be made quiet, in pages.
    leaked: AtomicU32,
}

impl<P: Platform> core::fmt::Debug for Controller<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Controller")
            .field("info", &self.info)
            .field("limits", &self.limits)
            .finish()
    }
}

impl<P: Platform> Controller<P> {
    /// Brings a controller up: reset, admin queue, identify, queues.
    ///
    /// # Errors
    /// What is wrong with it. It is disabled then.
    pub fn new(platform: P, options: Options) -> Result<Self, Error> {
        if options.pairs == 0 || options.timeout_ms == 0 {
            return Err(Error::Argument("a controller needs a queue pair and a timeout above 0"));
        }
        let cap = check(&platform)?;
        let mut admin = Admin::new(&platform, cap.doorbell_stride())?;
        let mut shadow = None;
        let brought = disable(&platform, cap)
            .and_then(|()| bring_up(&platform, cap, &options, &mut admin, None))
            .and_then(|info| {
                // The pages have room for a pair's at least.
                let fits = 4 * cap.doorbell_stride() <= PAGE;
                if options.shadow_doorbells && info.shadow_doorbells && fits {
                    let pages = alloc_all(&platform, [PAGE; 2]).map_err(Error::Memory)?;
                    let pages = shadow.insert(pages);
                    configure_shadow(&platform, &mut admin, pages)?;
                }
                Ok(info)
            });
        let info = match brought {
            Ok(info) => info,
            Err(error) => {
                let shadow = shadow.into_iter().flatten();
                let own = [admin.sq.memory(), admin.cq.memory(), admin.data];
                give_up(&platform, cap, own.into_iter().chain(shadow));
                return Err(error);
            }
        };
        let limits = Limits {
            queue_entries: cap.max_queue_entries().min(4096 + 1),
            pairs: admin.pairs,
            ready_timeout_ns: cap.timeout_ns(),
        };
        admin.event_limit = info.async_events;
        admin.ask_for_events(&platform);
        Ok(Self {
            platform,
            cap,
            info,
            limits,
            options,
            state: AtomicU32::new(RUNNING),
            admin: Mutex::new(admin),
            shadow,
            leaked: AtomicU32::new(0),
        })
    }

    /// Where it is.
    #[inline(always)]
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// What it is.
    pub fn info(&self) -> &ControllerInfo {
        &self.info
    }

    /// What it allows.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How it is used.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether shadow doorbells are in use.
    pub fn has_shadow(&self) -> bool {
        self.shadow.is_some()
    }

    /// Pages of memory that were given up since the controller could neither
    /// be made quiet nor cut off. 0 unless something is very wrong.
    pub fn leaked_pages(&self) -> u32 {
        // Relaxed: a statistic.
        self.leaked.load(Ordering::Relaxed)
    }

    /// How often it was reset.
    pub fn resets(&self) -> u32 {
        self.state() / INCARNATION
    }

    #[inline(always)]
    pub(super) fn state(&self) -> u32 {
        // Relaxed: see the field.
        self.state.load(Ordering::Relaxed)
    }

    /// Runs `f` under the admin lock, waiting for it politely.
    pub(super) fn with_admin<R>(&self, mut f: impl FnMut(&P, &mut Admin) -> R) -> R {
        loop {
            if let Some(result) = self.try_admin(&mut f) {
                return result;
            }
            self.platform.relax();
        }
    }

    /// Runs `f` under the admin lock if it is free.
    pub(super) fn try_admin<R>(&self, mut f: impl FnMut(&P, &mut Admin) -> R) -> Option<R> {
        self.admin.try_with(|admin| f(&self.platform, admin))
    }

    /// Runs admin commands on the controller, with the state that it is in
    /// for all of them.
    ///
    /// One that does not end in time may still end, at any time: with its
    /// data, or with a queue that it has made. So the controller is reset
    /// before this comes back.
    pub(super) fn command<R>(
        &self,
        mut f: impl FnMut(&P, &mut Admin, u32) -> Result<R, Error>,
    ) -> Result<R, Error> {
        loop {
            let done = self.with_admin(|platform, admin| {
                let state = self.state();
                let result = match state & KIND {
                    // Whoever resets it is about to take the lock.
                    RESETTING => return None,
                    GONE => Err(Error::Gone),
                    DEAD => Err(Error::Fatal { csts: platform.read32(regs::CSTS) }),
                    _ => f(platform, admin, state),
                };
                Some((result, state))
            });
            match done {
                Some((result, state)) => {
                    if let Err(Error::Timeout { .. }) = result {
                        self.reset(state);
                    }
                    return result;
                }
                None => self.platform.relax(),
            }
        }
    }

    /// Waits until nobody resets the controller. Answers whether the device
    /// surely uses no memory of a ring that has no queue pair in its present
    /// incarnation.
    pub(super) fn is_quiet(&self) -> bool {
        while self.state() & KIND == RESETTING {
            self.platform.relax();
        }
        self.with_admin(|_, admin| !admin.restless)
    }

    /// Looks for asynchronous events and the answers to aborts, if nobody
    /// else is at the admin queue: how many changes of namespaces there have
    /// been so far.
    pub(super) fn look_after(&self) -> Option<u32> {
        let (changes, pages) = self.try_admin(|platform, admin| {
            admin.poll(platform);
            admin.ask_for_events(platform);
            (admin.changes, core::mem::take(&mut admin.pages))
        })?;
        if pages != 0 {
            self.read_logs(pages);
        }
        Some(changes)
    }

    pub(super) fn doorbell(&self, qid: u16, completion: bool) -> Doorbell {
        let stride = self.cap.doorbell_stride();
        let shadow = self.shadow.as_ref().map(|[doorbells, events]| {
            let at = (2 * usize::from(qid) + usize::from(completion)) * stride;
            assert!(at + 4 <= PAGE, "as many pairs as the pages have places");
            // SAFETY: inside the pages, checked above.
            unsafe {
                Shadow { doorbell: doorbells.ptr.add(at).cast(), event: events.ptr.add(at).cast() }
            }
        });
        Doorbell::new(qid, completion, stride, shadow)
    }

    /// The most queue pairs whose doorbells can be reached.
    pub(super) fn most_pairs(&self) -> u16 {
        let window = (self.platform.len() - regs::DOORBELLS).min(match self.shadow {
            Some(_) => PAGE,
            None => usize::MAX,
        });
        let pairs = window / (2 * self.cap.doorbell_stride()) - 1;
        self.limits.pairs.min(pairs.min(usize::from(u16::MAX)) as u16)
    }

    /// Counts memory that is not given back.
    pub(super) fn leak(&self, pages: usize) {
        // Relaxed: a statistic.
        self.leaked.fetch_add(pages as u32, Ordering::Relaxed);
    }

    /// Stops the controller for good: it was removed or is to be taken away
    /// ([`GONE`]), or is of no use ([`DEAD`]). Only then do others see that.
    pub(super) fn retire(&self, seen: u32, kind: u32) {
        if self.claim(seen) {
            self.with_admin(|_, admin| self.quieten(admin));
            // Relaxed: see the field.
            self.state.store(seen.wrapping_add(INCARNATION) & !KIND | kind, Ordering::Relaxed);
        }
    }

    /// Whatever it is doing, it does it without our memory from here on.
    fn quieten(&self, admin: &mut Admin) {
        if !give_up(&self.platform, self.cap, core::iter::empty()) && !admin.restless {
            admin.restless = true;
            self.leak(3 + self.shadow.as_ref().map_or(0, |pages| pages.len()));
        }
    }

    /// Whether the caller is the one to change the state from `seen`.
    fn claim(&self, seen: u32) -> bool {
        let next = seen & !KIND | RESETTING;
        // Relaxed, both: see the field.
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        seen & KIND == RUNNING && self.state.compare_exchange(seen, next, success, failure).is_ok()
    }

    /// Resets the controller, unless somebody else does or did since `seen`
    /// was its state. When it comes back the device does not use any memory
    /// of the old incarnation, or [`leaked_pages`](Self::leaked_pages) tells.
    pub(super) fn reset(&self, seen: u32) {
        if !self.claim(seen) {
            return;
        }
        let result = self.with_admin(|platform, admin| {
            if let Err(error) = disable(platform, self.cap) {
                // It may still reach memory: cut it off before anything of
                // the old incarnation is given back.
                if error == Error::Gone {
                    return Err(error);
                }
                platform.isolate();
                if !platform.reset_function() {
                    return Err(error);
                }
                disable(platform, self.cap)?;
            }
            if platform.read64(regs::CAP) != self.cap.0 {
                return Err(match regs::is_gone(platform) {
                    true => Error::Gone,
                    false => Error::Identify { why: OTHER },
                });
            }
            let limit = admin.event_limit;
            admin.event_limit = 0;
            bring_up(platform, self.cap, &self.options, admin, Some(&self.info))?;
            if let Some(pages) = &self.shadow {
                configure_shadow(platform, admin, pages)?;
            }
            admin.event_limit = limit;
            admin.ask_for_events(platform);
            Ok(())
        });
        if result.is_err() {
            self.with_admin(|_, admin| self.quieten(admin));
        }
        let next = seen.wrapping_add(INCARNATION) & !KIND;
        let state = next
            | match result {
                Ok(()) => RUNNING,
                Err(Error::Gone) => GONE,
                Err(_) => DEAD,
            };
        // Relaxed: see the field.
        self.state.store(state, Ordering::Relaxed);
    }
}

impl<P: Platform> Drop for Controller<P> {
    /// Shuts the controller down (Base section 3.6.2). No backend is left:
    /// each of them holds on to the controller.
    fn drop(&mut self) {
        let platform = &self.platform;
        if self.state() & KIND == RUNNING {
            let cc = platform.read32(regs::CC);
            platform.write32(regs::CC, cc & !regs::CC_SHN | regs::CC_SHN_NORMAL);
            let done = regs::CSTS_SHST_DONE;
            // Late or not, it is disabled next.
            let _ = wait_status(platform, regs::CSTS_SHST, done, "shut down", ADMIN_TIMEOUT_NS);
        }
        let shadow = self.shadow.take().into_iter().flatten();
        self.admin.with(|admin| {
            let data = Coherent { ..admin.data };
            let own = [admin.sq.memory(), admin.cq.memory(), data];
            give_up(platform, self.cap, own.into_iter().chain(shadow));
        });
    }
}
