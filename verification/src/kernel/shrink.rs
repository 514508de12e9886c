//! Makes a program that shows a difference smaller.

use std::time::{Duration, Instant};

use super::model::Model;
use super::program::{Data, FIXED_FILE, Program, Sqe, Step};

/// Programs that are a little simpler than `program`, the simplest first.
fn simpler(program: &Program) -> Vec<Program> {
    let mut all = Vec::new();
    let with = |change: &dyn Fn(&mut Program)| {
        let mut next = program.clone();
        change(&mut next);
        next
    };
    let steps = program.steps.len();
    for span in [steps / 2, steps / 4, steps / 8, 2, 1] {
        if span == 0 {
            continue;
        }
        for from in (0..steps).rev() {
            if from + span <= steps {
                all.push(with(&|p| drop(p.steps.drain(from..from + span))));
            }
        }
    }
    for (i, step) in program.steps.iter().enumerate() {
        match step {
            Step::Push(sqes) => {
                for n in (0..sqes.len()).rev() {
                    all.push(with(&|p| edit(p, i, |sqes| drop(sqes.remove(n)))));
                    for sqe in simpler_sqe(&sqes[n]) {
                        all.push(with(&|p| edit(p, i, |sqes| sqes[n] = sqe.clone())));
                    }
                }
            }
            Step::Settle { peek: true } => {
                all.push(with(&|p| p.steps[i] = Step::Settle { peek: false }));
            }
            Step::Enter { to_submit, min_complete, flags } => {
                let (to_submit, min_complete, flags) = (*to_submit, *min_complete, *flags);
                let plain = Step::Enter { to_submit, min_complete: 0, flags: 0 };
                let waiting = Step::Enter { to_submit, min_complete: min_complete / 2, flags };
                for next in [plain, waiting] {
                    all.push(with(&|p| p.steps[i] = next.clone()));
                }
            }
            Step::Files(fds) if fds.len() > 1 => {
                all.push(with(&|p| p.steps[i] = Step::Files(fds[..fds.len() - 1].to_vec())));
            }
            Step::Buffers(bufs) if bufs.len() > 1 => {
                all.push(with(&|p| p.steps[i] = Step::Buffers(bufs[..bufs.len() - 1].to_vec())));
            }
            _ => {}
        }
    }
    all.push(with(&|p| p.setup.cq_entries = None));
    all.push(with(&|p| p.setup.clamp = false));
    all.push(with(&|p| p.setup.array = true));
    all.push(with(&|p| p.setup.uapi_layout = false));
    all.push(with(&|p| p.setup.pool = None));
    all.push(with(&|p| p.setup.submit_all = false));
    all.push(with(&|p| p.setup.mode = super::program::Mode::Inline));
    all.retain(|next| next != program);
    all
}

fn edit(program: &mut Program, step: usize, change: impl FnOnce(&mut Vec<Sqe>)) {
    if let Step::Push(sqes) = &mut program.steps[step] {
        change(sqes);
    }
}

fn simpler_sqe(sqe: &Sqe) -> Vec<Sqe> {
    let mut all = vec![
        Sqe { flags: sqe.flags & FIXED_FILE, ..sqe.clone() },
        Sqe { ioprio: 0, ..sqe.clone() },
        Sqe { op_flags: 0, ..sqe.clone() },
        Sqe { personality: 0, ..sqe.clone() },
        Sqe { splice_fd_in: 0, ..sqe.clone() },
        Sqe { pad2: 0, ..sqe.clone() },
        Sqe { bad_index: None, ..sqe.clone() },
        Sqe { off: 0, ..sqe.clone() },
        Sqe { off: sqe.off / 2, ..sqe.clone() },
    ];
    match &sqe.data {
        Data::Flat(_) => {
            all.push(Sqe { len: sqe.len / 2, ..sqe.clone() });
            all.push(Sqe { len: sqe.len.saturating_sub(1), ..sqe.clone() });
        }
        Data::Vector(list) if list.len() > 1 && sqe.len as usize == list.len() => {
            let list = list[1..].to_vec();
            all.push(Sqe { len: list.len() as u32, data: Data::Vector(list), ..sqe.clone() });
        }
        Data::Fds { list, edge } if list.len() > 1 && sqe.len as usize == list.len() => {
            let data = Data::Fds { list: list[1..].to_vec(), edge: *edge };
            all.push(Sqe { len: sqe.len - 1, data, ..sqe.clone() });
        }
        Data::Vector(_) | Data::Path(_) | Data::Fds { .. } => {}
    }
    all
}

/// The smallest program found within `time` that `differs`.
pub fn shrink(
    program: &Program,
    time: Duration,
    mut differs: impl FnMut(&Program) -> bool,
) -> Program {
    smallest(program, time, simpler, |next| Model::plan(next).is_ok() && differs(next))
}

/// As [`shrink`], of any family, whose programs are a little simpler as
/// `simpler` says.
pub fn smallest<P: Clone>(
    program: &P,
    time: Duration,
    simpler: impl Fn(&P) -> Vec<P>,
    mut differs: impl FnMut(&P) -> bool,
) -> P {
    let end = Instant::now() + time;
    let mut best = program.clone();
    'again: loop {
        for next in simpler(&best) {
            if Instant::now() > end {
                return best;
            }
            if differs(&next) {
                best = next;
                continue 'again;
            }
        }
        return best;
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate::{Wish, program};
    use super::super::program::op;
    use super::*;

    /// "Differs" whenever a READ of more than ten bytes is left.
    #[test]
    fn what_does_not_matter_goes() {
        let bad = |p: &Program| p.sqes().any(|sqe| sqe.op == op::READ && sqe.len > 10);
        let wish = Wish { seed: 5, mode: None };
        let big = (0..).map(|i| program(&wish, i)).find(|p| p.steps.len() > 12 && bad(p));
        let big = big.expect("there are many");
        let small = shrink(&big, Duration::from_secs(20), bad);
        assert_eq!(small.sqes().count(), 1, "{small}");
        assert_eq!(small.steps.len(), 2, "{small}");
        assert_eq!(small.sqes().next().map(|sqe| sqe.len), Some(11));
    }
}
