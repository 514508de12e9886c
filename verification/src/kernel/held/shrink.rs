//! What a program that shows a difference is made smaller by.

use super::super::program::Mode;
use super::program::{Program, Round};

/// Programs that are a little simpler, the simplest first.
pub fn simpler(program: &Program) -> Vec<Program> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Program)| {
        let mut next = program.clone();
        change(&mut next);
        if next != *program {
            all.push(next);
        }
    };
    for (i, round) in program.rounds.iter().enumerate() {
        with(&|p| {
            p.rounds.remove(i);
        });
        let Round { sqes, pipes, .. } = round;
        for n in (0..sqes.len()).rev() {
            with(&|p| {
                p.rounds[i].sqes.remove(n);
            });
        }
        if !pipes.is_empty() {
            with(&|p| p.rounds[i].pipes.clear());
        }
        with(&|p| p.rounds[i].leave = 0);
        for (n, sqe) in sqes.iter().enumerate() {
            for bit in 0..8 {
                with(&|p| p.rounds[i].sqes[n].flags &= !(1 << bit));
            }
            if sqe.spoil.is_some() {
                with(&|p| p.rounds[i].sqes[n].spoil = None);
            }
        }
    }
    with(&|p| p.rounds.iter_mut().for_each(|round| round.unread = false));
    with(&|p| (p.few, p.tight, p.registered) = (false, false, false));
    with(&|p| p.registered = false);
    with(&|p| p.table = false);
    with(&|p| p.mode = Mode::Inline);
    with(&|p| p.submit_all = true);
    all
}
