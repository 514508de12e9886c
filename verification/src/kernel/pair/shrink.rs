//! What a program that shows a difference is made smaller by.

use super::super::program::Mode;
use super::program::{Act, Program};

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
    for (i, step) in program.steps.iter().enumerate().rev() {
        with(&|p| drop(p.steps.remove(i)));
        with(&|p| p.steps[i].unread = false);
        let Act::Push { sqes, .. } = &step.act else { continue };
        for n in (0..sqes.len()).rev() {
            with(&|p| {
                if let Act::Push { sqes, .. } = &mut p.steps[i].act {
                    sqes.remove(n);
                }
            });
            for bit in 0..8 {
                with(&|p| {
                    if let Act::Push { sqes, .. } = &mut p.steps[i].act {
                        sqes[n].flags &= !(1 << bit);
                    }
                });
            }
        }
        with(&|p| {
            if let Act::Push { wait, .. } = &mut p.steps[i].act {
                *wait = None;
            }
        });
    }
    with(&|p| (p.small, p.disabled) = (false, false));
    with(&|p| p.mode = Mode::Inline);
    with(&|p| p.submit_all = true);
    all
}
