//! Slots in the engine's hands, for a run over requests that keeps them in
//! registers.

use super::{QUEUED, SharedSlot, Token};
use crate::fault::{self, Fault};
use crate::sync::Ordering;

/// What [`Run::end`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The slot was live, and is closed.
    Closed,
    /// The slot is on its way home with a notice, and stays as it is.
    Crossed,
    /// The token names no live slot.
    Stale,
}

/// The slots in the engine's hands.
#[derive(Clone, Copy)]
pub(crate) struct Run<'m>(&'m [SharedSlot]);

impl<'m> Run<'m> {
    #[inline(always)]
    pub(super) fn new(slots: &'m [SharedSlot]) -> Self {
        Self(slots)
    }

    #[inline(always)]
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Opens a slot to one notice and names its incarnation.
    #[inline(always)]
    pub fn arm(self, index: u32) -> Token {
        let token = self.token(index);
        if !fault::on(Fault::ArmedLate) {
            self.open(index, token);
        }
        token
    }

    /// The fault ArmedLate does here what `arm` forgot.
    #[inline(always)]
    pub fn started(self, index: u32) {
        if fault::on(Fault::ArmedLate) {
            self.open(index, self.token(index));
        }
    }

    #[inline(always)]
    fn open(self, index: u32, token: Token) {
        // Relaxed: the slot is idle, so the engine's alone; the token reaches
        // other threads by the backend's own synchronisation.
        self.0[index as usize].state.store(token.live_state(), Ordering::Relaxed);
    }

    /// Closes a slot: every token made so far is stale from now on.
    #[inline(always)]
    pub fn retire(self, index: u32) {
        // Relaxed: QUEUED or IDLE, or LIVE with a token that never left the
        // engine's thread or comes home by it, so nobody else writes it. That
        // a late notice (a CAS) cannot read an older value follows from
        // coherence: it finds another generation and fails.
        let idle = self.token(index).idle_after();
        self.0[index as usize].state.store(idle, Ordering::Relaxed);
    }

    /// Closes the slot that a device or backend names, if it waits and no
    /// notice has crossed its end.
    #[inline(always)]
    pub fn end(self, token: Token) -> End {
        let Some(slot) = self.0.get(token.index()) else { return End::Stale };
        // Relaxed, both: as in `retire`.
        let state = slot.state.load(Ordering::Relaxed);
        if state == token.live_state() {
            slot.state.store(token.idle_after(), Ordering::Relaxed);
            return End::Closed;
        }
        if state == token.live_state() | QUEUED { End::Crossed } else { End::Stale }
    }

    /// The token of a slot as it is.
    #[inline(always)]
    pub fn token(self, index: u32) -> Token {
        // Relaxed: the engine's own write.
        Token::of(self.0[index as usize].state.load(Ordering::Relaxed))
    }
}
