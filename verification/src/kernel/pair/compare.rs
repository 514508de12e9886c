//! Whether two runs of a program of two rings did the same.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use annulus::uapi;

use super::super::compare::{list, result};
use super::super::program::Mode;
use super::super::target::Cqe;
use super::program::{Act, Counter, MESSAGES, ONE, OTHER, Program, Sqe, Step, TAGS, What};
use super::run::{Seen, Trace};

/// The kind of a wait that took longer on one side, or ended in another way: on
/// a busy machine any does now and then.
pub const TIME: &str = "time";

/// The first thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub what: String,
    /// What it is, without the numbers.
    pub kind: String,
}

/// What is known of a ring's eventfd.
#[derive(Clone, Copy, Default)]
struct Bell {
    /// There is one; the ASYNC kind or not.
    late: Option<bool>,
    silent: bool,
}

/// Compares the traces of two runs.
pub fn compare(program: &Program, ours: &Trace, theirs: &Trace) -> Option<Difference> {
    let mut bells = [Bell::default(); 2];
    let mut in_order = program.mode != Mode::SqPoll;
    for (n, (a, b)) in ours.steps.iter().zip(&theirs.steps).enumerate() {
        let step = program.steps.get(n);
        let what = |kind: &str, what: String| {
            Some(Difference { what: format!("step {n}: {what}"), kind: kind.into() })
        };
        if a.answer != b.answer {
            let (x, y) = (result(a.answer), result(b.answer));
            let act = step.map_or("the end", |step| name(&step.act));
            let kind = match step {
                Some(Step { act: Act::Wait { .. }, .. }) => TIME.into(),
                _ => format!("answer to {act}"),
            };
            return what(&kind, format!("{act}: {x} against {y}"));
        }
        if a.later != b.later {
            return what("later", format!("meanwhile: {:?} against {:?}", a.later, b.later));
        }
        if a.took != b.took {
            return what(TIME, format!("{} units against {}", a.took, b.took));
        }
        in_order &= step.is_some_and(|step| step.act.in_order());
        for ring in [ONE, OTHER] {
            let (x, y) = (&a.cqes[ring], &b.cqes[ring]);
            if let Some((kind, text)) = cqes(program, x, y) {
                return what(&kind, format!("ring {ring}: {text}"));
            }
            if a.there[ring] != b.there[ring] {
                let text = format!("ring {ring}: {:?} against {:?}", a.there[ring], b.there[ring]);
                return what("CQ", text);
            }
            // Rule *message order*: requests and messages each have theirs.
            let of = |cqes: &[Cqe], messages: bool| -> Vec<Cqe> {
                let is = |cqe: &&Cqe| (cqe.user_data >= MESSAGES) == messages;
                cqes.iter().filter(is).copied().collect()
            };
            for messages in [false, true] {
                if in_order && of(x, messages) != of(y, messages) {
                    return what("order", format!("ring {ring}: {} against {}", list(x), list(y)));
                }
            }
            if let Some(step) = step {
                bells[ring].learn(&step.act, ring, b.answer);
            }
            let (x, y) = (a.rung[ring], b.rung[ring]);
            let may = match y {
                true => bells[ring].may_be_silent(ring, step),
                false => bells[ring].may_ring(program.mode, ring, step, b),
            };
            if x != y && !may {
                let text = format!("ring {ring}: eventfd rung {x} against {y}");
                return what(&format!("eventfd {x}"), text);
            }
        }
    }
    None
}

impl Bell {
    fn learn(&mut self, act: &Act, of: usize, answer: i32) {
        match *act {
            Act::Eventfd { ring, late, fd: Counter::Own } if ring == of && answer == 0 => {
                self.late = Some(late);
            }
            Act::EventfdEnd { ring } if ring == of && answer == 0 => self.late = None,
            Act::Silence { ring, yes } if ring == of => self.silent = yes,
            _ => {}
        }
    }

    /// Rule *late eventfd*: one of the ASYNC kind that Linux rings for what a
    /// worker does may be silent if that ends in the call that submits it.
    fn may_be_silent(self, ring: usize, step: Option<&Step>) -> bool {
        let sent = |sqe: &Sqe| sqe.what.at_once() && sqe.flags & uapi::IOSQE_ASYNC != 0;
        self.late == Some(true)
            && matches!(step, Some(Step { act: Act::Push { ring: to, sqes, .. }, .. })
                if *to == ring && sqes.iter().any(sent))
    }

    /// The same rule: one that Linux does not ring may be rung for what
    /// has not come of submitting, if it is of the ASYNC kind, or its ring has
    /// something to fetch that nobody fetches for it.
    fn may_ring(self, mode: Mode, ring: usize, step: Option<&Step>, seen: &Seen) -> bool {
        let inline = mode == Mode::Inline || mode == Mode::SqPoll && ring == OTHER;
        let Some(late) = self.late else { return false };
        if self.silent || !late && !inline {
            return false;
        }
        let Some(Step { act, unread }) = step else { return true };
        let nops: BTreeSet<u64> = match act {
            Act::Push { ring: to, sqes, .. } if *to == ring => {
                let nop = |what| matches!(what, What::Nop(_));
                sqes.iter().filter(|sqe| nop(sqe.what)).map(|sqe| sqe.user_data).collect()
            }
            _ => BTreeSet::new(),
        };
        *unread
            || !act.in_order()
            || seen.cqes[ring].iter().any(|cqe| !nops.contains(&cqe.user_data))
    }
}

/// Whether the completions are the same, in whatever order.
fn cqes(program: &Program, ours: &[Cqe], theirs: &[Cqe]) -> Option<(String, String)> {
    let sorted = |cqes: &[Cqe]| {
        let mut cqes: Vec<Cqe> = cqes.iter().map(|&cqe| late_guard(program, cqe)).collect();
        cqes.sort_unstable();
        cqes
    };
    let (x, y) = (sorted(ours), sorted(theirs));
    if x == y {
        return None;
    }
    let only = |x: &[Cqe], y: &[Cqe]| -> Vec<Cqe> {
        x.iter().filter(|cqe| !y.contains(cqe)).copied().collect()
    };
    let (more, less) = (only(&x, &y), only(&y, &x));
    let first = more.first().or(less.first()).map_or(0, |cqe| cqe.user_data);
    let sqe = program.sqes().find(|sqe| sqe.user_data == first);
    let about = sqe.map_or(String::new(), |sqe| format!(" ({:?})", sqe.what));
    let sort = |cqes: &[Cqe]| cqes.first().map_or("nothing".into(), |cqe| result(cqe.res.min(0)));
    let op = match first {
        TAGS.. => "tag",
        MESSAGES.. => "message",
        _ => sqe.map_or("?", |sqe| uapi::opcode_name(sqe.what.opcode()).unwrap_or("?")),
    };
    let kind = format!("{op}: {} against {}", sort(&more), sort(&less));
    Some((kind, format!("{} against {}{about}", list(&more), list(&less))))
}

/// Rule *late guard*, as for the second family.
fn late_guard(program: &Program, cqe: Cqe) -> Cqe {
    let late = [-libc::ENOENT, -libc::EALREADY].contains(&cqe.res);
    let guard = |what| matches!(what, What::LinkTimeout { .. });
    match late && program.sqes().any(|sqe| sqe.user_data == cqe.user_data && guard(sqe.what)) {
        true => Cqe { res: -libc::ECANCELED, ..cqe },
        false => cqe,
    }
}

/// What a program does, for a table.
pub fn name(act: &Act) -> &'static str {
    match act {
        Act::Push { wait: None, .. } => "submit",
        Act::Push { .. } => "submit and wait",
        Act::Wait { .. } => "wait",
        Act::Send(_) => "send a message",
        Act::Cancel { .. } => "cancel",
        Act::Eventfd { .. } => "register an eventfd",
        Act::EventfdEnd { .. } => "unregister the eventfd",
        Act::Silence { .. } => "silence the eventfd",
        Act::Clock { .. } => "register a clock",
        Act::Feed(_) | Act::Empty(_) => "pipe",
        Act::Files(_) => "register files",
        Act::FilesUpdate(..) => "update files",
        Act::FilesEnd => "unregister files",
        Act::Restrict(_) => "restrict",
        Act::Enable { .. } => "enable",
    }
}
/// A trace, a line a step.
pub fn show(trace: &Trace) -> String {
    let mut text = String::new();
    for (n, seen) in trace.steps.iter().enumerate() {
        let Seen { answer, later, took, cqes: [one, other], there, rung } = seen;
        let later = later.map_or(String::new(), |answer| format!(", meanwhile {answer}"));
        let _ = write!(text, "{n:5}  {}{later}, {took} units, ", result(*answer));
        let _ = writeln!(text, "{} | {}, there {there:?}, rung {rung:?}", list(one), list(other));
    }
    text
}
