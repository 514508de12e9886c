//! Makes a run that fails shorter, and shows it.

use std::fmt;
use std::time::{Duration, Instant};

use super::action::{Action, Fate, Flaw, Op, Range, Spec};
use super::ring::{Failure, run};
use super::world::Source;

/// Runs a list of actions; some failure, if it fails.
fn fails(failure: &Failure, list: &[Action]) -> Option<Failure> {
    run(failure.setup, Source::Listed { list: list.to_vec(), at: 0 }, false).err()
}

/// The shortest list found within `time` that fails, for whatever reason: what
/// a fault does to a run changes with the run.
pub fn shrink(failure: &Failure, time: Duration) -> Failure {
    shrink_by(failure, time, |list| fails(failure, list))
}

/// The shortest list found for which `fails` has a failure.
pub fn shrink_by(
    failure: &Failure,
    time: Duration,
    fails: impl Fn(&[Action]) -> Option<Failure>,
) -> Failure {
    let end = Instant::now() + time;
    let mut best = failure.clone();
    let mut span = best.actions.len() / 2;
    while span > 0 {
        let mut from = 0;
        while from < best.actions.len() {
            if Instant::now() > end {
                return best;
            }
            let mut list = best.actions.clone();
            list.drain(from..(from + span).min(list.len()));
            match fails(&list) {
                Some(shorter) => best = Failure { actions: list, ..shorter },
                None => from += span,
            }
        }
        span = if span == 1 { 0 } else { span / 2 };
    }
    simplify(best, end, fails)
}

/// The same with simpler actions.
fn simplify(
    mut best: Failure,
    end: Instant,
    fails: impl Fn(&[Action]) -> Option<Failure>,
) -> Failure {
    let mut at = 0;
    while at < best.actions.len() && Instant::now() < end {
        let simpler = simpler(best.actions[at]).into_iter().find_map(|action| {
            let mut list = best.actions.clone();
            if list[at] == action {
                return None;
            }
            list[at] = action;
            let simpler = fails(&list)?;
            Some(Failure { actions: list, ..simpler })
        });
        match simpler {
            Some(simpler) => best = simpler,
            None => at += 1,
        }
    }
    best
}

/// Simpler actions than this one, each a little.
fn simpler(action: Action) -> Vec<Action> {
    match action {
        Action::Push(spec) => {
            let mut all = vec![Spec::NOP, Spec { flags: spec.flags, ..Spec::NOP }];
            for bit in 0..8 {
                all.push(Spec { flags: spec.flags & !(1 << bit), ..spec });
            }
            all.push(Spec { flaw: Flaw::None, ..spec });
            all.push(Spec { range: Range::Inside, ..spec });
            all.push(Spec { fixed: false, file: 0, ..spec });
            all.push(Spec { op: Op::Read, ..spec });
            all.push(Spec { fate: Fate::Later, ..spec });
            all.push(Spec { can_end: true, ..spec });
            all.retain(|simpler| weight(simpler) < weight(&spec));
            all.into_iter().map(Action::Push).collect()
        }
        Action::Enter { count, want, wait, limit } => {
            let mut all = Vec::new();
            if wait {
                all.push(Action::Enter { count, want: 0, wait: false, limit: 0 });
            }
            if limit != 0 {
                all.push(Action::Enter { count, want, wait, limit: 0 });
            }
            all
        }
        Action::Cross { count, after: 1.. } => vec![Action::Cross { count, after: 0 }],
        _ => Vec::new(),
    }
}

/// How much there is to understand in an entry.
fn weight(spec: &Spec) -> u32 {
    let yes = u32::from;
    spec.flags.count_ones()
        + yes(spec.flaw != Flaw::None)
        + yes(spec.range != Range::Inside)
        + 2 * yes(spec.op != Spec::NOP.op)
        + yes(spec.op != Op::Read)
        + yes(spec.fixed)
        + yes(spec.file != 0)
        + yes(spec.fate != Fate::Later)
        + yes(!spec.can_end)
        + yes(spec.len != Spec::NOP.len)
        + yes(spec.buffer != 0)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.setup)?;
        let mut id = 0;
        for action in &self.actions {
            match action {
                Action::Push(spec) => {
                    writeln!(f, "  push {id}: {spec:?}")?;
                    id += 1;
                }
                other => writeln!(f, "  {other:?}")?,
            }
        }
        writeln!(f, "{}", self.why)
    }
}
