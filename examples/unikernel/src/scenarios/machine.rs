//! The machine itself: time, sleep, the second core. And scenarios that fail,
//! so that whoever boots the image can see that it notices.

use annulus::hal::{Clock as _, Park as _, Parked};
use annulus::sync::{AtomicU32, Ordering};
use annulus_unikernel::script::Line;

use super::{Outcome, number};
use crate::place::{MACHINE, sleeps as sleeps_so_far};
use crate::{arch, second, text};

const MS: u64 = 1_000_000;

/// A core sleeps until its timer's interrupt, and not longer.
pub fn sleeps(line: &Line<'_>) -> Outcome {
    let times = number(line, "times", 5)?;
    let (before, start) = (sleeps_so_far(), MACHINE.now());
    let word = AtomicU32::new(0);
    let mut late = 0;
    for _ in 0..times {
        let until = MACHINE.now() + 10 * MS;
        while MACHINE.park(&word, 0, Some(until)) != Parked::TimedOut {}
        let now = MACHINE.now();
        if now < until {
            return Err(text!("it came back {} ns too early", until - now));
        }
        late = late.max(now - until);
    }
    let slept = sleeps_so_far() - before;
    let took = MACHINE.now() - start;
    // The alarm may come a little early, and another one for the rest.
    match (u64::from(slept), late) {
        (slept, _) if slept < times => Err(text!("it slept {slept} times, not {times}")),
        (slept, _) if slept > 20 * times => Err(text!("it did not sleep but spin: {slept}")),
        (_, late) if late > 5_000 * MS => Err(text!("the alarm was {late} ns late")),
        _ => Ok(text!("{slept} sleeps in {} ms, at most {} us late", took / MS, late / 1000)),
    }
}

/// Two cores wake each other by turns, each asleep in between, and have the
/// same time.
pub fn wakes_the_second_core(line: &Line<'_>) -> Outcome {
    let rounds = number(line, "rounds", 200)? as u32;
    let before = sleeps_so_far();
    let word = AtomicU32::new(0);
    // Whoever finds its number parks no more: even ones are core 0's.
    let turn = |mine: u32| {
        let limit = MACHINE.now() + 20_000 * MS;
        loop {
            let now = word.load(Ordering::Acquire);
            if now == mine {
                return true;
            }
            if MACHINE.park(&word, now, Some(limit)) == Parked::TimedOut {
                return false;
            }
        }
    };
    let pass = |next: u32| {
        // Release: pairs with the Acquire in `turn`.
        word.store(next, Ordering::Release);
        MACHINE.unpark(&word);
    };
    let (mut lost, mut core) = (false, 0);
    let job = || {
        core = arch::core();
        for round in 0..rounds {
            if !turn(2 * round + 1) {
                lost = true;
                return;
            }
            pass(2 * round + 2);
        }
    };
    let here = || {
        for round in 0..rounds {
            pass(2 * round + 1);
            if !turn(2 * round + 2) {
                return Some(round);
            }
        }
        None
    };
    let here = second::meanwhile(job, here);
    let slept = sleeps_so_far() - before;
    match here {
        None => Err(text!("the machine has no second core")),
        Some(_) if lost => Err(text!("a wake-up of the second core was lost")),
        Some(Some(round)) => Err(text!("a wake-up of core 0 was lost, in round {round}")),
        Some(None) if core != 1 => Err(text!("the job ran on core {core}")),
        Some(None) if slept < rounds / 2 => Err(text!("{slept} sleeps in {rounds} rounds")),
        Some(None) => Ok(text!("{rounds} rounds, {slept} sleeps")),
    }
}

/// What a machine must not take for a pass.
pub fn fails(line: &Line<'_>) -> Outcome {
    match line.word("how") {
        Some("panics") => panic!("as it was asked to"),
        Some("excepts") => {
            // What is not mapped, on every MACHINE.
            let nowhere = (1usize << 40) as *const u8;
            // SAFETY: there is nothing there, and that is the point.
            let value = unsafe { nowhere.read_volatile() };
            Err(text!("there was {value} where nothing is"))
        }
        Some("hangs") => loop {
            MACHINE.relax();
        },
        _ => Err(text!("as it was asked to")),
    }
}
