//! Whether two runs of a program of the second family did the same.

use std::fmt::Write as _;

use super::super::compare::{list, result};
use super::super::target::Cqe;
use super::program::{Program, Sqe, What};
use super::run::{Seen, Trace};

/// The first thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub what: String,
    /// What it is, without the numbers.
    pub kind: String,
}

/// Compares the traces of two runs.
pub fn compare(program: &Program, ours: &Trace, theirs: &Trace) -> Option<Difference> {
    for (n, (a, b)) in ours.rounds.iter().zip(&theirs.rounds).enumerate() {
        if a.answer != b.answer {
            let what = format!("part {n}: submitted {} against {}", a.answer, b.answer);
            return Some(Difference { what, kind: "answer".into() });
        }
        let sorted = |seen: &Seen| {
            let mut cqes: Vec<Cqe> =
                seen.cqes.iter().map(|&cqe| late_guard(program, cqe)).collect();
            cqes.sort_unstable();
            cqes
        };
        let (x, y) = (sorted(a), sorted(b));
        if x != y {
            let only = |x: &[Cqe], y: &[Cqe]| {
                let mut rest = y.to_vec();
                let missing = |cqe: &&Cqe| match rest.iter().position(|other| other == *cqe) {
                    Some(at) => {
                        rest.swap_remove(at);
                        false
                    }
                    None => true,
                };
                x.iter().filter(missing).copied().collect::<Vec<_>>()
            };
            let (more, less) = (only(&x, &y), only(&y, &x));
            let first = more.first().or(less.first()).map_or(0, |cqe| cqe.user_data);
            let sqe = program.rounds.iter().flat_map(|round| &round.sqes);
            let sqe = sqe.clone().find(|sqe| sqe.user_data == first);
            let about = sqe.map_or(String::new(), |sqe| format!(" ({sqe})"));
            let what = format!("part {n}: {} against {}{about}", list(&more), list(&less));
            let sort =
                |cqes: &[Cqe]| cqes.first().map_or("nothing".into(), |cqe| result(cqe.res.min(0)));
            let op = sqe.map_or(0, |sqe| sqe.what.opcode());
            let kind = format!("op {op}: {} against {}", sort(&more), sort(&less));
            return Some(Difference { what, kind });
        }
        if a.there != b.there {
            let what = format!("part {n}: in the CQ {:?} against {:?}", a.there, b.there);
            return Some(Difference { what, kind: "CQ".into() });
        }
        if b.ordered && a.cqes != b.cqes {
            let what = format!("part {n}: order {} against {}", list(&a.cqes), list(&b.cqes));
            return Some(Difference { what, kind: "order".into() });
        }
    }
    if ours.memory != theirs.memory {
        return Some(Difference { what: "what was read".into(), kind: "memory".into() });
    }
    for (at, theirs) in theirs.kept.iter().enumerate() {
        let ours = ours.kept.get(at).map_or("nothing", String::as_str);
        if ours != theirs {
            let what = format!("of files: {ours} against {theirs}");
            return Some(Difference { what, kind: "files".into() });
        }
    }
    if ours.written != theirs.written {
        return Some(Difference { what: "what was written".into(), kind: "written".into() });
    }
    None
}

/// Rule *late guard*: a LINK_TIMEOUT whose time is over just when what it guards
/// ends by itself may say of that what it finds.
fn late_guard(program: &Program, cqe: Cqe) -> Cqe {
    let guard =
        |sqe: &Sqe| sqe.user_data == cqe.user_data && matches!(sqe.what, What::LinkTimeout { .. });
    let late = [-libc::ENOENT, -libc::EALREADY].contains(&cqe.res);
    match late && program.rounds.iter().flat_map(|round| &round.sqes).any(guard) {
        true => Cqe { res: -libc::ECANCELED, ..cqe },
        false => cqe,
    }
}
/// A trace, a line a part.
pub fn show(trace: &Trace) -> String {
    let mut text = String::new();
    for (n, seen) in trace.rounds.iter().enumerate() {
        let order = if seen.ordered { " in order" } else { "" };
        let there = seen.there.map_or(String::new(), |there| format!(", in the CQ {there:?}"));
        let came = list(&seen.cqes);
        let _ = writeln!(text, "  part {n}: {}, then{order} {came}{there}", seen.answer);
    }
    text
}
