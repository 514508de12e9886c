//! Resets that go wrong, and what a controller is afterwards.

use crate::fake::{Aborts, Fate, Rule, Setup, meanwhile};
use crate::rig::*;
use annulus::errno::Errno;
use annulus::nvme::Error;
use std::cell::RefCell;
use std::rc::Rc;

const LATE: i32 = -110;

#[test]
fn a_queue_that_cannot_be_created_after_a_reset() {
    // It works the second time; or never.
    for times in [1, 100] {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        let mut ring = rig.ring(&seldom());
        rig.device().lies.hold = true;
        let ids: Vec<_> =
            (0..20).map(|at| ring.read(On::Fd(1), at * 512, 512, &How::Fixed(0))).collect();
        ring.turn();
        rig.fake.run(20);
        rig.device().lies.aborts = Aborts::Ignored;
        rig.device().lies.rules = vec![Rule::admin(0x01, Fate::Status(0x06), times)];
        ring.pass_ms(600);
        rig.device().lies.hold = false;
        ring.finish();
        let last = ring.ended[&ids[19]].res;
        let again = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
        let again = ring.result(again);
        if times == 1 {
            assert_eq!((last, again, rig.controller().resets()), (512, 512, 2));
        } else {
            assert_eq!((last, again), (errno(Errno::EIO), errno(Errno::EIO)));
            assert_eq!(rig.controller().resets(), 4, "it was tried, and not for ever");
            rig.controller().namespace(1).expect("the controller itself is well");
        }
        assert_eq!(ring.ended[&ids[0]].res, LATE);
        ring.end();
        rig.end();
    }
}

fn fail(rig: &Rig, ring: &mut Ring, change: impl FnOnce(&mut crate::fake::Device)) -> Vec<i32> {
    rig.device().relax = LONG;
    rig.device().lies.hold = true;
    for at in 0..20 {
        ring.write(On::Fd(1), at * 512, &pattern(at, 512), &How::Fixed(0));
    }
    ring.turn();
    rig.fake.run(40);
    rig.device().lies.aborts = Aborts::Ignored;
    change(&mut rig.device());
    ring.pass_ms(600);
    rig.device().lies.hold = false;
    ring.finish();
    ring.results()
}

#[test]
fn a_controller_that_does_not_stop_is_cut_off_and_reset_as_a_function() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    let results = fail(&rig, &mut ring, |device| device.lies.never_disabled = true);
    assert_eq!(results, [[LATE; 15].as_slice(), &[512; 5]].concat());
    assert_eq!(rig.device().isolations, 1);
    assert_eq!(rig.device().function_resets, 1);
    assert_eq!(rig.controller().leaked_pages(), 0);
    rig.device().lies.never_disabled = false;
    ring.end();
    rig.end();
}

#[test]
fn a_controller_that_cannot_be_reset_is_cut_off() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    let results = fail(&rig, &mut ring, |device| {
        device.lies.never_disabled = true;
        device.lies.no_function_reset = true;
    });
    assert_eq!(results, [[LATE; 15].as_slice(), &[errno(Errno::EIO); 5]].concat());
    assert!(rig.device().isolated);
    assert_eq!(rig.controller().leaked_pages(), 0, "it was cut off");
    let error = rig.try_ring(&seldom(), 4).err().unwrap();
    assert!(matches!(error, Error::Fatal { .. }), "{error}");
    ring.end();
    rig.end();
}

#[test]
fn memory_that_a_controller_may_write_for_ever_is_never_given_back() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    // Requests in memory of their own: what the device has are copies.
    rig.device().relax = LONG;
    rig.device().lies.hold = true;
    for at in 0..4 {
        ring.read(On::Fd(1), at * 512, 512, &How::Plain(0));
    }
    ring.turn();
    rig.fake.run(40);
    rig.device().lies.aborts = Aborts::Ignored;
    rig.device().lies.never_disabled = true;
    rig.device().lies.no_function_reset = true;
    rig.device().lies.no_isolation = true;
    ring.pass_ms(600);
    ring.finish();
    assert_eq!(ring.results(), [LATE; 4]);
    assert!(rig.controller().leaked_pages() > 0, "it is told");
    let before = rig.device().memory.allocations();
    ring.end();
    assert_eq!(rig.device().memory.allocations(), before, "nothing was given back");
    let fake = rig.fake.clone();
    drop(rig);
    assert_eq!(fake.device().memory.allocations(), before);
    // It still writes, to memory that is there.
    fake.device().last_writes();
    fake.check_faults();
}

#[test]
fn a_reset_that_turns_it_into_another_controller_is_not_gone_along_with() {
    let usual = Setup::default;
    let others = [
        Setup { serial: "B2", ..usual() },
        Setup { mdts: 1, ..usual() },
        Setup { vwc: false, ..usual() },
        Setup { mqes: 7, ..usual() },
        Setup { dstrd: 1, ..usual() },
        Setup { cap: Some(0), ..usual() },
        Setup { identify: Some(|_, data| data.fill(0)), ..usual() },
    ];
    for other in others {
        let rig = Rig::<false>::with(1, usual(), quick());
        let mut ring = rig.ring(&seldom());
        let text = format!("{other:?}");
        let results = fail(&rig, &mut ring, |device| {
            device.lies.wild = true;
            device.lies.change = Some(other);
        });
        assert_eq!(results, [[LATE; 15].as_slice(), &[errno(Errno::EIO); 5]].concat(), "{text}");
        let read = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
        assert_eq!(ring.result(read), errno(Errno::EIO));
        ring.end();
        rig.end();
    }
}

#[test]
fn fewer_queues_after_a_reset() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let (mut one, mut two) = (rig.ring(&seldom()), rig.ring(&seldom()));
    let results = fail(&rig, &mut one, |device| device.setup.pairs = 1);
    assert_eq!(results, [[LATE; 15].as_slice(), &[512; 5]].concat());
    // There is none for the second; it says so, and the first goes on.
    let read = two.read(On::Fd(1), 0, 512, &How::Fixed(0));
    assert_eq!(two.result(read), errno(Errno::EIO));
    let read = one.read(On::Fd(1), 0, 512, &How::Fixed(0));
    assert_eq!(one.result(read), 512);
    two.end();
    one.end();
    rig.end();
}

#[test]
fn nothing_in_flight_ends_before_the_device_is_quiet() {
    // Ring `two` goes on while ring `one` resets the controller, in every way
    // that a reset goes.
    for (never_disabled, no_function_reset) in [(false, false), (true, false), (true, true)] {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        let (mut one, mut two) = (rig.ring(&seldom()), rig.ring(&polled()));
        rig.device().relax = LONG;
        rig.device().lies.hold = true;
        rig.device().lies.aborts = Aborts::Ignored;
        rig.device().lies.never_disabled = never_disabled;
        rig.device().lies.no_function_reset = no_function_reset;
        one.read(On::Fd(1), 0, 512, &How::Fixed(0));
        two.read(On::Fd(1), 0, 512, &How::Fixed(0));
        two.read(On::Fd(1), 0, 512, &How::Plain(0));
        one.turn();
        two.turn();
        rig.fake.run(10);
        let two = Rc::new(RefCell::new(two));
        let other = two.clone();
        meanwhile(move || other.borrow_mut().look(), || one.pass_ms(600));
        rig.device().lies.hold = false;
        one.finish();
        let mut two = Rc::into_inner(two).unwrap().into_inner();
        two.finish();
        assert_eq!(two.results().len(), 2);
        // `released` was asked for each request that ended.
        rig.fake.check_faults();
        rig.device().lies.never_disabled = false;
        one.end();
        two.end();
        rig.end();
    }
}
