//! How a run ends: everything comes to its end, or is ended.

use annulus::engine::EnterFlags;
use annulus::errno::Errno;

use super::action::{Action, Op, Register, Spec};
use super::place::{self, with};
use super::provided;
use super::ring::Run;

impl Run {
    /// Everything comes to its end, and everything comes back.
    pub fn wind_down(&mut self) {
        // More rounds than the longest chain of requests that wait for others.
        for _ in 0..2_000 {
            let done = with(|world| {
                world.model.active.is_empty()
                    && world.model.waiting_entries() == 0
                    && world.model.due == world.model.seen
            });
            if done || !self.sound() {
                break;
            }
            let mut left = 1_000;
            while with(|world| world.device.flying != 0) && self.sound() {
                left -= 1;
                if left == 0 {
                    with(|world| world.model.fail("requests stay in flight whatever comes"));
                }
                with(|world| world.device.closing = true);
                let action = with(|world| world.meanwhile(None));
                if let Some(action) = action {
                    with(|world| world.outside(action));
                }
                with(|world| world.device.closing = false);
                self.enter(0, 0, false, 0);
                self.act(Action::Drive);
                self.act(Action::Reap(64));
            }
            // The time of everything that has one passes.
            place::set_now(place::now() + 600_000);
            let ready = with(|world| world.model.waiting_entries());
            self.enter(ready as u8, 0, false, 0);
            self.act(Action::Drive);
            self.act(Action::Reap(64));
        }
        with(|world| {
            let (active, left) = (world.model.active.len(), world.model.waiting_entries());
            if active != 0 || left != 0 {
                let first = world.model.active.first().map(|&id| world.model.reqs[id as usize]);
                let what =
                    format!("{active} requests never end, {left} are never taken: {first:?}");
                world.model.fail(what);
            }
        });
        if !self.sound() {
            return;
        }
        self.all_buffers_are_there();
        let free = format!("requests: 0 of {} in use, reserve free, 0 CQEs", self.setup.requests);
        let dump = self.hands.dump();
        if !dump.contains(&free) {
            with(|world| world.model.fail(format!("a request's record is lost:\n{dump}")));
        }
        for call in [Register::NoFiles, Register::NoBuffers] {
            let known = with(|world| match call {
                Register::NoFiles => world.model.tables.files.len(),
                _ => world.model.tables.buffers.len(),
            });
            if known != 0 {
                self.register(call);
            }
        }
        self.nothing_is_held();
    }

    /// Groups have what the model says, and there is room for as many as ever.
    fn all_buffers_are_there(&mut self) {
        let groups = if self.setup.groups == 0 { 0 } else { provided::GROUPS };
        for group in 0..groups {
            self.register(Register::Head { group });
            self.register(Register::NoRing { group });
        }
        let all = [Op::Unprovide { count: 200 }, Op::Provide { count: 9 }];
        for op in all.into_iter().chain([Op::Unprovide { count: 200 }]) {
            for buffer in 0..groups {
                self.control(Spec { op, buffer, ..Spec::NOP }, 1);
                self.act(Action::Reap(64));
            }
        }
        // The last may have waited for room.
        self.enter(0, 0, false, 0);
        self.act(Action::Reap(64));
    }

    fn nothing_is_held(&self) {
        with(|world| {
            let (files, buffers) = (world.device.files.len(), world.device.buffers.len());
            if files + buffers + world.device.flying != 0 {
                world.model.fail(format!("{files} files and {buffers} buffers never come back"));
            }
        });
    }

    pub fn shut_down(&mut self) {
        let pending = self.hands.shut_down();
        self.nothing_is_held();
        if pending != 0 {
            with(|world| world.model.fail("requests are in flight after the end"));
        }
        let answer = self.hands.enter(1, 0, EnterFlags::empty(), None);
        if answer != Err(Errno::EOWNERDEAD) {
            with(|world| world.model.fail(format!("an engine that has ended answers {answer:?}")));
        }
    }
}
