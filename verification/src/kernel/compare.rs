//! Whether two runs of a program did the same.
//!
//! Meant differences are rules of this file or of the generator, and each has
//! its row in docs/differences.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::model::Plan;
use super::program::{Program, Step, number};
use super::run::{Event, Phase, Trace};
use super::target::Cqe;

/// The first thing that differs.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The step it belongs to.
    pub step: usize,
    /// What it is.
    pub what: String,
    /// What it is, without the numbers: two of one kind are likely one fault.
    pub kind: String,
}

impl Difference {
    fn new(step: usize, kind: &str, what: String) -> Self {
        Self { step, what, kind: kind.into() }
    }
}

/// Compares the traces of two runs.
pub fn compare(program: &Program, plan: &Plan, ours: &Trace, theirs: &Trace) -> Option<Difference> {
    for ((step, a), (_, b)) in ours.events.iter().zip(&theirs.events) {
        let step = *step;
        match (a, b) {
            (Event::Settled(a), Event::Settled(b)) => {
                let Some((kind, what)) = phases(program, plan, a, b) else { continue };
                return Some(Difference::new(step, &kind, what));
            }
            (Event::Entered(a), Event::Entered(b)) if a.early || b.early => {
                let who = if a.early { "Annulus" } else { "the reference" };
                return Some(Difference::new(
                    step,
                    "early",
                    format!("a wait of {who} ended too early"),
                ));
            }
            (Event::Stuck, _) | (_, Event::Stuck) => {
                let who = if *a == Event::Stuck { "Annulus" } else { "the reference" };
                return Some(Difference::new(
                    step,
                    "stuck",
                    format!("the SQ of {who} does not empty"),
                ));
            }
            _ if a == b => {}
            _ => {
                let kind = format!("step {}", program.steps.get(step).map_or("end", Step::name));
                return Some(Difference::new(
                    step,
                    &kind,
                    format!("{} against {}", event(a), event(b)),
                ));
            }
        }
    }
    let step = ours.events.len().min(theirs.events.len());
    let what = || Difference::new(step, "length", "one run went further".into());
    (ours.events.len() != theirs.events.len()).then(what)
}

fn phases(
    program: &Program,
    plan: &Plan,
    ours: &Phase,
    theirs: &Phase,
) -> Option<(String, String)> {
    let (a, b) = match (by_number(&ours.cqes), by_number(&theirs.cqes)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(what), _) => return Some(("CQE".into(), what)),
        (_, Err(what)) => return Some(("CQE of the reference".into(), what)),
    };
    for n in a.keys().chain(b.keys()) {
        let (x, y) = (a.get(n), b.get(n));
        if x != y {
            let sqe = program.sqes().nth(*n).map_or(String::new(), |sqe| sqe.to_string());
            let kind = format!("result {} against {}", sort(x), sort(y));
            return Some((kind, format!("#{n} ({sqe}): {} against {}", shown(x), shown(y))));
        }
    }
    let numbers =
        [("dropped", ours.dropped, theirs.dropped), ("overflow", ours.overflow, theirs.overflow)];
    for (what, x, y) in numbers {
        if x != y {
            return Some((what.into(), format!("{what}: {x} against {y}")));
        }
    }
    if ours.lost != theirs.lost || !ours.lost.is_empty() {
        let what =
            format!("completions that never came: {:?} against {:?}", ours.lost, theirs.lost);
        return Some(("lost".into(), what));
    }
    if let Some((x, y)) = ours.told.iter().zip(&theirs.told).find(|(x, y)| x != y) {
        return Some(("told".into(), format!("#{}: {} against {}", x.0, x.1, y.1)));
    }
    let order = |phase: &Phase| -> Vec<usize> {
        let numbers = phase.cqes.iter().filter_map(|cqe| number(cqe.user_data));
        numbers.filter(|&n| plan.facts.get(n).is_some_and(|fact| fact.sync)).collect()
    };
    let (x, y) = (order(ours), order(theirs));
    if x != y {
        let what = format!("order of what ends at submission: {x:?} against {y:?}");
        return Some(("order".into(), what));
    }
    let memory = || ("memory".into(), "the content of the buffers".into());
    (ours.memory != theirs.memory).then(memory)
}

/// The sort of a result.
fn sort(cqe: Option<&Cqe>) -> String {
    match cqe {
        Some(cqe) if cqe.res >= 0 && cqe.flags == 0 => "a count".into(),
        cqe => shown(cqe),
    }
}

fn by_number(cqes: &[Cqe]) -> Result<BTreeMap<usize, Cqe>, String> {
    let mut map = BTreeMap::new();
    for cqe in cqes {
        let Some(n) = number(cqe.user_data) else {
            return Err(format!("a CQE with user_data {:#x}, which nobody gave", cqe.user_data));
        };
        if map.insert(n, *cqe).is_some() {
            return Err(format!("#{n} completed twice"));
        }
    }
    Ok(map)
}

fn shown(cqe: Option<&Cqe>) -> String {
    match cqe {
        None => "no CQE".into(),
        Some(cqe) if cqe.flags == 0 => result(cqe.res),
        Some(cqe) => format!("{} flags {:#x}", result(cqe.res), cqe.flags),
    }
}

/// CQEs, in their order.
pub fn list(cqes: &[Cqe]) -> String {
    if cqes.is_empty() {
        return "nothing".into();
    }
    let mut text = String::new();
    for cqe in cqes {
        let more = if cqe.flags == 0 { String::new() } else { format!(" flags {:#x}", cqe.flags) };
        let _ = write!(text, "[{}: {}{more}]", cqe.user_data, result(cqe.res));
    }
    text
}

/// A result in words: a count, or an errno by its name.
pub fn result(res: i32) -> String {
    match annulus::errno::Errno::from_result(res) {
        Some(errno) => {
            let text = errno.to_string();
            format!("-{}", text.split(' ').next().unwrap_or(&text))
        }
        None => res.to_string(),
    }
}

fn event(event: &Event) -> String {
    match event {
        Event::Answer(n) => result(*n),
        Event::Entered(e) => {
            let ready = e.ready.map_or(String::new(), |(n, more)| {
                format!(", {n} CQEs ready{}", if more { " and more in waiting" } else { "" })
            });
            format!("{}{ready}", result(e.answer))
        }
        Event::Setup(Err(errno)) => format!("set-up {}", result(-errno)),
        Event::Content(bytes) => {
            format!("{} bytes: {:02x?}", bytes.len(), &bytes[..bytes.len().min(16)])
        }
        Event::Remains(remains) => {
            let pipes: Vec<_> =
                remains.pipes.iter().map(|(slot, left)| (slot, left.len())).collect();
            format!(
                "files {:x?} positions {:?} pipes {pipes:?} names {:x?}",
                remains.files, remains.positions, remains.names
            )
        }
        other => format!("{other:?}"),
    }
}

/// Both traces side by side, for a report.
pub fn show(trace: &Trace) -> String {
    let mut text = String::new();
    for (step, e) in &trace.events {
        let _ = match e {
            Event::Settled(phase) => {
                let cqes = phase.cqes.iter().map(|cqe| {
                    let n = number(cqe.user_data).map_or("?".into(), |n| n.to_string());
                    format!("#{n}={}", shown(Some(cqe)))
                });
                let cqes = cqes.collect::<Vec<_>>().join(" ");
                let mut more = format!(" memory {:016x}", phase.memory);
                if phase.dropped != 0 {
                    let _ = write!(more, " dropped {}", phase.dropped);
                }
                if !phase.lost.is_empty() {
                    let _ = write!(more, " NEVER CAME {:?}", phase.lost);
                }
                writeln!(text, "{step:5}  {cqes}{more}")
            }
            e => writeln!(text, "{step:5}  {}", event(e)),
        };
    }
    if let Some(dump) = &trace.dump {
        let _ = writeln!(text, "when something did not come: {dump}");
    }
    text
}
