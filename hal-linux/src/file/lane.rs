//! The way home for what other threads have to say.

use annulus::Stale;
use annulus::engine::Completer;
use annulus::hal::{Host, Token};

use crate::host::LinuxHost;

/// A completer that also rings the application's bell where the engine will
/// not do so by itself.
///
/// Inline, nobody posts CQEs while the application is outside of the ring's
/// calls. One that waits on the eventfd has to be told that there is
/// something to fetch.
#[derive(Clone, Copy)]
pub struct Lane {
    pub completer: Completer<'static, &'static LinuxHost>,
    pub bell: bool,
}

impl Lane {
    pub fn host(&self) -> &'static LinuxHost {
        self.completer.host()
    }

    /// # Errors
    /// As [`Completer::complete`].
    pub fn complete(&self, token: Token, result: i32) -> Result<(), Stale> {
        self.completer.complete(token, result)?;
        self.ring();
        Ok(())
    }

    /// # Errors
    /// As [`Completer::ready`].
    pub fn ready(&self, token: Token) -> Result<(), Stale> {
        self.completer.ready(token)?;
        self.ring();
        Ok(())
    }

    /// Asks an application that drives its ring inline to do so.
    pub fn call_in(&self) {
        self.completer.call_in();
        self.ring();
    }

    /// Rings the bell, where the engine does not.
    pub fn ring(&self) {
        if self.bell {
            self.host().cqes_posted();
        }
    }
}
