//! Polled submission (SQPOLL): a thread, or a core, that is the engine.

use crate::config::Mode;
use crate::engine::Engine;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host};
use crate::sync::{rest, spin_loop};
use crate::uapi::IORING_SQ_NEED_WAKEUP;

/// Idle rounds between two looks at the clock. A model has better to do.
const ROUNDS: u32 = if cfg!(loom) { 1 } else { 64 };

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Drives the engine until [`Remote::stop`](crate::engine::Remote::stop),
    /// then ends it ([`shutdown`](Engine::shutdown)).
    ///
    /// Polls while there is work and for the idle period after it; then shows
    /// `IORING_SQ_NEED_WAKEUP` and sleeps until somebody wakes it. It does
    /// not sleep while the backend has completions that only polling finds.
    pub fn poll_loop(&mut self) {
        let idle = match self.config().mode {
            // Seed 001, and Linux: 0 means one second.
            Mode::SqPoll { idle_ms: 0 } if !cfg!(loom) => 1_000_000_000,
            Mode::SqPoll { idle_ms } => u64::from(idle_ms) * 1_000_000,
            _ => 0,
        };
        let mut idle_since: Option<u64> = None;
        let (mut round, mut looks) = (0, 0);
        while !self.shared.stopping() {
            if self.turn(true) {
                idle_since = None;
                round = 0;
                continue;
            }
            // Idle periods may be longer than the counter.
            round = u32::wrapping_add(round, 1);
            if self.busy_polling() {
                rest(&mut looks);
                continue;
            }
            if !round.wrapping_sub(1).is_multiple_of(ROUNDS) {
                spin_loop();
                continue;
            }
            let now = self.shared.host.now();
            let since = *idle_since.get_or_insert(now);
            if now.saturating_sub(since) >= idle {
                self.doze();
                idle_since = None;
                round = 0;
            }
        }
        self.shutdown();
    }

    fn doze(&mut self) {
        if !fault::on(Fault::NeedWakeupLate) {
            self.shared.set_flag(IORING_SQ_NEED_WAKEUP);
        }
        // Contains the full fence between NEED_WAKEUP (and our own word) and
        // the second look; pairs with Remote::need_wakeup and with every
        // notify.
        let key = self.shared.engine_wait.prepare();
        if fault::on(Fault::NeedWakeupLate) {
            self.shared.set_flag(IORING_SQ_NEED_WAKEUP);
        }
        let polling = self.busy_polling() && !fault::on(Fault::PollingNoRecheck);
        let news = self.has_sqes() || self.shared.has_news() || polling;
        if !news || fault::on(Fault::PollerNoRecheck) {
            self.count_sleep();
            self.sleep(key, None);
        }
        self.shared.clear_flag(IORING_SQ_NEED_WAKEUP);
    }
}
