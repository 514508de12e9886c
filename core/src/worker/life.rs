//! A worker's side of the pool: its next job, its sleep, its leaving.

use super::lane::{IDLE, Seat};
use super::{Pool, Worker};
use crate::fault::{self, Fault};
use crate::hal::{Clock, Park, Parked};
use crate::sync::Ordering;

/// What [`Pool::next`] found.
pub(super) enum Next {
    Job(u32),
    Sleep,
    /// There is nothing for this worker any more; for that seat's there is.
    Leave(Option<u32>),
}

impl<L: AsMut<[u32]>, S: AsRef<[Seat]>> Pool<L, S> {
    /// The worker's next job; sleeps until there is one. `None` tells the
    /// worker to end: the pool stops, or there was nothing to do for `idle`
    /// nanoseconds. Its seat is given away then.
    pub fn next<H: Park + Clock>(&self, worker: &mut Worker, place: &H, idle: u64) -> Option<u32> {
        loop {
            match self.look(worker) {
                Next::Job(index) => return Some(index),
                Next::Leave(other) => {
                    if let Some(seat) = other {
                        place.unpark(&self.seats.as_ref()[seat as usize].word);
                    }
                    return None;
                }
                Next::Sleep => {
                    if !self.sleep(worker, place, idle) {
                        return None;
                    }
                    worker.arriving = true;
                }
            }
        }
    }

    pub(super) fn look(&self, worker: &mut Worker) -> Next {
        let seats = self.seats.as_ref();
        self.state.with(|state| {
            let lane = &mut state.lanes[worker.class as usize];
            if worker.arriving {
                worker.arriving = false;
                lane.coming -= u32::from(!fault::on(Fault::WorkerComesForEver));
            }
            if lane.surplus() > 0 {
                lane.workers -= 1;
                lane.push_free(seats, worker.seat);
                // It may have been on its way to a job. Somebody else is left,
                // who looks at the queue before it sleeps, or sleeps already.
                let job = lane.queued > lane.coming && !fault::on(Fault::SurplusSaysNothing);
                return Next::Leave(if job { lane.pop_idle(seats) } else { None });
            }
            if let Some(index) = lane.pop(state.links.as_mut()) {
                lane.taken += 1;
                return Next::Job(index);
            }
            if state.stopping && !fault::on(Fault::WorkerSleepsThroughEnd) {
                lane.workers -= 1;
                lane.push_free(seats, worker.seat);
                return Next::Leave(None);
            }
            lane.push_idle(seats, worker.seat);
            Next::Sleep
        })
    }

    /// Sleeps on the worker's seat. False if nobody called in time; the
    /// worker has left then.
    pub(super) fn sleep<H: Park + Clock>(&self, worker: &Worker, place: &H, idle: u64) -> bool {
        let seats = self.seats.as_ref();
        let word = &seats[worker.seat as usize].word;
        let deadline = place.now().saturating_add(idle);
        loop {
            // Relaxed: the queue is read under the lock, which orders it.
            if word.load(Ordering::Relaxed) != IDLE {
                return true;
            }
            if place.park(word, IDLE, Some(deadline)) != Parked::TimedOut {
                continue;
            }
            // Under the lock it is certain whether somebody has called.
            let left = self.state.with(|state| {
                if !fault::on(Fault::WorkerLeavesCalled) && word.load(Ordering::Relaxed) != IDLE {
                    return false;
                }
                let lane = &mut state.lanes[worker.class as usize];
                lane.remove_idle(seats, worker.seat);
                lane.workers -= 1;
                lane.push_free(seats, worker.seat);
                true
            });
            return !left;
        }
    }
}
