//! That it finds what is there, finds the same again, and makes it short.

use std::time::Duration;

use annulus::uapi::IOSQE_IO_LINK;

use super::action::{Action, Drive, Fate, Op, Outcome, Setup, Spec};
use super::ring::{Failure, run};
use super::world::Source;
use super::{one, shrink};

const SETUP: Setup = Setup { sq: 8, cq: 8, requests: 8, ..Setup::LEAST };

fn listed(list: &[Action]) -> Result<u64, Failure> {
    run(SETUP, Source::Listed { list: list.to_vec(), at: 0 }, true)
}

#[test]
fn seeds_are_sound_and_the_same_again() {
    for seed in 1..if cfg!(miri) { 2 } else { 200 } {
        let steps =
            one(seed, 300, false).unwrap_or_else(|failure| panic!("seed {seed}\n{failure}"));
        assert_eq!(one(seed, 300, true).ok(), Some(steps), "seed {seed}");
    }
}

#[test]
fn lists_of_actions_run_like_drawn_ones() {
    let read = Spec { op: Op::Read, ..Spec::NOP };
    let actions = [
        Action::Push(Spec { flags: IOSQE_IO_LINK, ..read }),
        Action::Push(Spec { fate: Fate::Now(Outcome::Whole), ..read }),
        Action::Enter { count: 2, want: 2, wait: true, limit: 0 },
        // While it waits.
        Action::Complete { nth: 0, outcome: Outcome::Whole },
        Action::Reap(2),
    ];
    assert_eq!(listed(&actions).map_err(|failure| failure.why), Ok(5));
}

/// It falls asleep, is woken for what is pushed, and for what comes home.
#[test]
fn a_polling_thread_sleeps_and_wakes() {
    let read = Spec { op: Op::Read, ..Spec::NOP };
    let enter = Action::Enter { count: 0, want: 0, wait: false, limit: 0 };
    let asleep = [Action::Tick(1_000_000), Action::Drive];
    let mut actions = vec![Action::Push(read), Action::Drive];
    actions.extend(asleep);
    actions.extend([Action::Push(Spec::NOP), enter, Action::Drive, Action::Reap(1)]);
    actions.extend(asleep);
    actions.push(Action::Complete { nth: 0, outcome: Outcome::Whole });
    // While the application waits.
    actions.extend([Action::Enter { count: 0, want: 1, wait: true, limit: 0 }, Action::Drive]);
    let setup = Setup { drive: Drive::Polled, ..SETUP };
    let source = Source::Listed { list: actions.clone(), at: 0 };
    let went = run(setup, source, true).map_err(|failure| failure.why);
    assert_eq!(went, Ok(actions.len() as u64));
}

/// What has three reads "fails": nothing but them is left.
#[test]
fn a_failure_is_made_short() {
    let read = Spec { op: Op::Read, ..Spec::NOP };
    let push = |n: u32| Action::Push(if n.is_multiple_of(3) { Spec::NOP } else { read });
    let enter = Action::Enter { count: 1, want: 0, wait: false, limit: 0 };
    let end = Action::Complete { nth: 0, outcome: Outcome::Short };
    let actions: Vec<_> = (0..40).flat_map(|n| [push(n), enter, end, Action::Reap(8)]).collect();
    assert!(listed(&actions).is_ok());
    let failure = Failure { why: String::new(), setup: SETUP, actions };
    let small = shrink::shrink_by(&failure, Duration::from_secs(20), |list| {
        let reads = |action: &&Action| matches!(action, Action::Push(spec) if spec.op == Op::Read);
        (list.iter().filter(reads).count() > 2).then(|| failure.clone())
    });
    assert_eq!(small.actions.len(), 3, "{small}");
    assert!(small.to_string().contains("push 2: Spec { op: Read"), "{small}");
}
