//! What must hold while somebody else drives the engine.

use super::action::{Action, Drive};
use super::device::Phase;
use super::model::State;
use super::world::{ENDLESS, Source, World};

/// Looks in vain after which a driver has seen everything that there is.
const ENOUGH: u32 = 6;

/// More looks at the clock than a batch has entries.
const GLANCES: u32 = 20;

impl World {
    pub fn is_served(&self) -> bool {
        self.model.setup.drive == Drive::Served
    }

    /// The driver goes on, awake: it looks at everything.
    pub fn drives(&mut self) {
        (self.crossed, self.device.calls) = (0, 0);
        match self.model.setup.drive {
            Drive::Polled => self.model.submits_by_itself(),
            _ => self.model.looks(),
        }
    }

    /// The driver has given way, with nothing left to be done.
    pub fn driven(&mut self) {
        if self.device.closing {
            return;
        }
        if self.model.setup.drive == Drive::Polled {
            let taken = self.rings.map_or(0, |rings| rings.sq_head());
            self.model.has_submitted(taken);
        }
        self.model.come_home();
        self.look();
        self.rest();
    }

    /// Somebody goes on before the engine has come to rest: what is known of it.
    pub fn amid(&mut self) {
        self.model.overflowed |= self.rings.is_some_and(|rings| rings.overflowing());
    }

    /// The driver sleeps, and nobody has woken it: that must be right.
    pub fn sleeps_on(&mut self) {
        let Some(rings) = self.rings else { return };
        let home = |&&id: &&u32| {
            let req = &self.model.reqs[id as usize];
            req.state == State::Home || req.woken
        };
        if let Some(id) = self.model.active.iter().find(home) {
            let what = format!("the driver sleeps, and request {id} has come home");
            return self.model.fail(what);
        }
        if rings.overflowing() && rings.unread() < self.model.setup.cq {
            return self.model.fail("the driver sleeps, and there is room for CQEs that wait");
        }
        let polled = |phase| matches!(phase, Phase::Polled(_));
        if self.device.flights.iter().flatten().any(|flight| polled(flight.phase)) {
            return self.model.fail("the driver sleeps, and should poll");
        }
        if self.model.setup.drive == Drive::Polled && !rings.needs_wakeup() {
            self.model.fail("the driver sleeps, and does not say so");
        }
    }

    /// The driver has nothing left to do, and has not woken the application:
    /// that must be right.
    pub fn nobody_is_woken(&mut self) {
        let unread = self.rings.map_or(0, |rings| rings.unread());
        // Who does not wait for CQEs waits to drive the engine, which is free.
        if !self.calls && !self.device.closing && unread >= self.want {
            self.model.fail(format!("the application sleeps, and {unread} CQEs are enough for it"));
        }
    }

    /// A driver that has nothing to do looks at the clock: whether it is known
    /// to have seen everything.
    pub fn idles(&mut self) -> bool {
        if self.device.closing || self.model.setup.drive != Drive::Polled {
            return false;
        }
        // It may be at an entry that has to do with time.
        let taken = self.rings.map_or(0, |rings| rings.sq_head()) as usize;
        let timed = self.model.reqs[taken..].iter().any(|req| req.spec.op.is_control());
        self.glances = if timed { self.glances + 1 } else { 0 };
        if !self.glances.is_multiple_of(GLANCES) {
            return false;
        }
        // What came in between it will see now.
        core::mem::take(&mut self.crossed) == 0
    }

    /// A driver looks at a device that has to be polled: whether it has done so
    /// often enough in vain.
    pub fn polls_in_vain(&mut self) -> bool {
        self.vain = (self.vain + 1) % ENOUGH;
        self.vain == 0
    }

    /// The engine calls its backend.
    pub fn called(&mut self) {
        self.device.calls += 1;
        assert!(self.device.calls < ENDLESS, "the engine goes round for ever");
        self.cross();
    }

    /// The engine is at work, and the application may be, too.
    fn cross(&mut self) {
        if !self.model.setup.crosses || self.device.closing {
            return;
        }
        let rings = self.rings.expect("a run has rings");
        let unread = rings.unread();
        let after = self.amid;
        self.amid += 1;
        let count = match &mut self.source {
            Source::None => None,
            Source::Drawn(drawn) => drawn.crosses(unread),
            Source::Listed { list, at } => match list.get(*at) {
                // Where it was drawn, so that what it has led to happens again.
                Some(&Action::Cross { count, after: then }) if then <= after => {
                    *at += 1;
                    Some(count)
                }
                _ => None,
            },
        };
        let Some(count) = count else { return };
        self.note(Some(Action::Cross { count, after }));
        self.keep();
        self.crossed += self.reap(count);
        self.vain = 0;
    }
}
