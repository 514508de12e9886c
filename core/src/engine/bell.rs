//! The eventfd that an application has registered: every CQE is followed by a
//! signal, for all CQEs or for those only that come late.

use super::{Engine, Shared};
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host};
use crate::sync::Ordering;
use crate::uapi::IORING_CQ_EVENTFD_DISABLED;

/// What the engine knows of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bell {
    /// There is one.
    pub on: bool,
    /// Only for CQEs that do not come of taking SQEs.
    pub only_late: bool,
    /// CQEs since the last look that came of taking SQEs.
    early: u32,
    /// The CQ's total at the last look.
    seen: u32,
}

impl<H: Host> Shared<'_, H> {
    /// Rings the application's eventfd, unless it does not want to hear of it
    /// now. Does nothing where there is none.
    pub fn ring_eventfd(&self) {
        // Relaxed: whoever registers it does so before the requests that it is
        // to tell of, and those come here by lanes that order more.
        if self.bell.load(Ordering::Relaxed) == 0 {
            return;
        }
        // Relaxed: a wish of the application's, which sets it when it looks at
        // the CQ by itself.
        let flags = self.ring.cq_flags.load(Ordering::Relaxed);
        if flags & IORING_CQ_EVENTFD_DISABLED == 0 || fault::on(Fault::EventfdAlwaysRings) {
            self.host.ring_eventfd();
        }
    }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    pub(super) fn register_eventfd(&mut self, fd: i32, only_late: bool) -> Result<u32, Errno> {
        if self.bell.on && !fault::on(Fault::SecondEventfdTaken) {
            return Err(Errno::EBUSY);
        }
        self.shared.host.bind_eventfd(fd)?;
        // What has been posted is not this one's business.
        self.publish();
        self.bell = Bell { on: true, only_late, early: 0, seen: self.cq.total() };
        // Relaxed: see `ring_eventfd`.
        self.shared.bell.store(1, Ordering::Relaxed);
        self.note_engaged();
        self.short = self.may_be_short();
        Ok(0)
    }

    pub(super) fn unregister_eventfd(&mut self) -> Result<u32, Errno> {
        if !self.bell.on {
            return Err(Errno::ENXIO);
        }
        self.publish();
        self.bell = Bell::default();
        // Relaxed: as above.
        self.shared.bell.store(0, Ordering::Relaxed);
        self.shared.host.unbind_eventfd();
        self.short = self.may_be_short();
        Ok(0)
    }

    /// CQEs have come of taking SQEs, `early` of them (modulo 2^32).
    pub(super) fn posted_early(&mut self, early: u32) {
        if self.bell.only_late && !fault::on(Fault::EarlyEventfdRings) {
            self.bell.early = self.bell.early.wrapping_add(early);
        }
    }

    /// CQEs have been made visible.
    #[cold]
    pub(super) fn ring_bell(&mut self) {
        let total = self.cq.total();
        let posted = total.wrapping_sub(self.bell.seen);
        if posted != core::mem::take(&mut self.bell.early) {
            self.shared.ring_eventfd();
        }
        self.bell.seen = total;
    }
}
