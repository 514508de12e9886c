//! That it finds what is there, finds the same again, and makes it short.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use annulus::hal::{Park, Token};
use annulus::sync::AtomicU32;
use annulus::uapi::IOSQE_IO_LINK;

use super::action::{Action, Drive, Fate, Op, Outcome, Setup, Spec};
use super::device::{Flight, Phase};
use super::drive::runs;
use super::place::{Place, with};
use super::ring::{Failure, Run, run};
use super::world::Source;
use super::{one, shrink};

const SETUP: Setup = Setup { sq: 8, cq: 8, requests: 8, ..Setup::LEAST };

fn listed(list: &[Action]) -> Result<u64, Failure> {
    run(SETUP, Source::Listed { list: list.to_vec(), at: 0 }, true)
}

#[test]
fn seeds_are_sound_and_the_same_again() {
    for seed in 1..200 {
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

/// A run of which nobody but the test says what happens.
fn begun(setup: Setup) -> Run {
    with(|world| world.reset(setup, Source::None, false));
    Run::new(setup)
}

/// It falls asleep, is woken for what is pushed, and for what comes home.
#[test]
fn a_polling_thread_sleeps_and_wakes() {
    let mut run = begun(Setup { drive: Drive::Polled, ..SETUP });
    let asleep = || with(|world| world.rings.is_some_and(|rings| rings.needs_wakeup()));
    let falls_asleep = |run: &mut Run| {
        // It gives way at each look at the clock. From the first on it has nothing to do.
        run.act(Action::Drive);
        run.act(Action::Drive);
        run.act(Action::Tick(1_000_000));
        assert!(!asleep());
        run.act(Action::Drive);
        assert!(asleep());
    };
    run.act(Action::Push(Spec { op: Op::Read, ..Spec::NOP }));
    falls_asleep(&mut run);
    run.act(Action::Push(Spec::NOP));
    run.act(Action::Enter { count: 0, want: 0, wait: false, limit: 0 });
    run.act(Action::Drive);
    assert!(!asleep());
    run.act(Action::Reap(1));
    falls_asleep(&mut run);
    run.act(Action::Complete { nth: 0, outcome: Outcome::Whole });
    // While the application waits.
    run.act(Action::Enter { count: 0, want: 1, wait: true, limit: 0 });
    assert!(!asleep());
    run.act(Action::Reap(1));
    run.wind_down();
    run.shut_down();
    assert_eq!(with(|world| world.model.why.take()), None);
}

/// A request that is woken in vain for ever.
#[test]
fn an_end_that_does_not_come_is_seen() {
    let _run = begun(SETUP);
    with(|world| {
        let (token, phase) = (Token::from_raw(0), Phase::Asleep(1));
        world.device.flights[0] = Some(Flight { id: 0, token, file: None, buffer: None, phase });
        (world.device.closing, world.device.completer) = (true, None);
    });
    let sleeps = || Place.park(&AtomicU32::new(0), 0, None);
    assert!(catch_unwind(AssertUnwindSafe(sleeps)).is_err());
}

/// Nobody ends it, whose state is not known any more.
#[test]
fn an_engine_in_which_its_driver_panics_is_left_alone() {
    let mut run = begun(Setup { drive: Drive::Polled, crosses: true, ..SETUP });
    run.act(Action::Push(Spec { op: Op::Read, ..Spec::NOP }));
    // What the backend looks at when it is called.
    with(|world| world.rings = None);
    let went = catch_unwind(AssertUnwindSafe(|| run.act(Action::Drive)));
    assert!(went.is_err());
    assert!(!with(|world| world.device.closing));
    assert!(!runs());
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
