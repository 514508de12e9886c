//! Controllers that are removed, or seem to be.

use crate::fake::{Aborts, Fake, Fate, Rule, Setup, meanwhile};
use crate::rig::*;
use annulus::errno::Errno;
use annulus::nvme::{Error, Options, QueueOptions};

#[test]
fn a_removed_controller_answers_promptly_and_lets_go_of_everything() {
    for options in [seldom(), polled()] {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        let (mut one, mut two) = (rig.ring(&options), rig.ring(&options));
        rig.device().lies.hold = true;
        // More than the queue has places for.
        for at in 0..30 {
            one.read(On::Fd(1), at * 512, 512, &How::Fixed(0));
        }
        two.write(On::Fd(1), 0, &pattern(1, 512), &How::Plain(0));
        one.turn();
        two.turn();
        rig.fake.run(40);
        rig.device().remove();
        one.pass_ms(150);
        assert_eq!(one.results(), [errno(Errno::ENODEV); 30], "within 150 ms");
        two.pass_ms(150);
        assert_eq!(two.results(), [errno(Errno::ENODEV)]);
        // And at once from here on.
        let read = one.read(On::Fd(1), 0, 512, &How::Fixed(0));
        let fsync = one.fsync(On::Fd(1));
        one.turn();
        assert_eq!(one.ended[&read].res, errno(Errno::ENODEV));
        assert_eq!(one.ended[&fsync].res, errno(Errno::ENODEV));
        assert_eq!(one.register(&[2]), Err(Errno::ENODEV));
        assert_eq!(rig.controller().health().unwrap_err(), Error::Gone);
        assert_eq!(rig.try_ring(&seldom(), 4).err(), Some(Error::Gone));
        let start = rig.device().now;
        one.end();
        two.end();
        let took = rig.device().now - start;
        assert!(took < 10_000_000, "{took} ns for teardown");
        assert_eq!(rig.controller().leaked_pages(), 0);
        rig.end();
    }
}

#[test]
fn removal_at_every_moment_of_a_life() {
    let step = if cfg!(miri) { 23 } else { 1 };
    let mut survived = false;
    for gone_in in (0..).step_by(step) {
        let fake = Fake::new(3, Setup::default());
        fake.device().lies.gone_in = Some(gone_in);
        let options = Options { shadow_doorbells: gone_in % 2 == 1, ..quick() };
        match Rig::<false>::try_with(fake.clone(), options) {
            Err(error) => assert_eq!(error, Error::Gone),
            Ok(rig) => {
                live(&rig);
                survived = !rig.device().gone;
                drop(rig);
            }
        }
        fake.check();
        if survived {
            return;
        }
    }
}

/// A bit of everything.
fn live(rig: &Rig) {
    let fine = |res: i32, wanted: i32| {
        assert!(res == wanted || res == errno(Errno::ENODEV), "{res}");
    };
    let ring = rig.try_ring(&QueueOptions { depth: 3, ..seldom() }, 32);
    let Ok(mut ring) = ring else {
        assert_eq!(ring.err(), Some(Error::Gone));
        return;
    };
    for round in 0..3 {
        let ids: Vec<_> = (0..6)
            .map(|at| ring.write(On::Fd(1), at * 512, &pattern(at, 512), &How::Plain(0)))
            .collect();
        ring.finish();
        ids.iter().for_each(|id| fine(ring.ended[id].res, 512));
        let fsync = ring.fsync(On::Fd(1));
        fine(ring.result(fsync), 0);
        if round == 1 {
            rig.device().lies.aborts = Aborts::Ignored;
            rig.device().lies.rules = vec![Rule::io(Fate::Lost, 1)];
            let read = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
            ring.turn();
            ring.pass_ms(600);
            let res = ring.result(read);
            fine(res, errno(Errno::ETIMEDOUT));
        }
    }
    ring.end();
}

#[test]
fn registers_that_are_gone_while_the_device_still_writes() {
    // All ones may be all that can be seen of a device that is very much
    // alive: it is cut off before memory is given back.
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    rig.device().lies.hold = true;
    for at in 0..8 {
        ring.read(On::Fd(1), at * 512, 512, &How::Fixed(0));
    }
    ring.turn();
    rig.fake.run(20);
    rig.device().lies.mute = true;
    ring.pass_ms(150);
    assert_eq!(ring.results(), [errno(Errno::ENODEV); 8]);
    assert!(rig.device().isolated);
    ring.end();
    rig.end();
}

#[test]
fn registers_say_nothing_while_a_function_is_reset() {
    // In that time they may read all ones; another ring must not take it for
    // a removal.
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let (mut one, mut two) = (rig.ring(&seldom()), rig.ring(&polled()));
    rig.device().lies.aborts = Aborts::Ignored;
    rig.device().lies.rules = vec![Rule::io(Fate::Lost, 1)];
    one.read(On::Fd(1), 0, 512, &How::Fixed(0));
    one.turn();
    rig.fake.run(10);
    rig.device().lies.hold = true;
    let read = two.read(On::Fd(1), 0, 512, &How::Fixed(0));
    two.turn();
    rig.fake.run(10);
    let two = std::rc::Rc::new(std::cell::RefCell::new(two));
    let (other, fake) = (two.clone(), rig.fake.clone());
    meanwhile(
        move || {
            fake.device().lies.mute = true;
            fake.device().now += 50_000_000;
            other.borrow_mut().look();
            fake.device().lies.mute = false;
        },
        || one.pass_ms(600),
    );
    rig.device().lies.hold = false;
    one.finish();
    let mut two = std::rc::Rc::into_inner(two).unwrap().into_inner();
    assert_eq!(two.result(read), errno(Errno::EIO));
    let read = two.read(On::Fd(1), 0, 512, &How::Fixed(0));
    assert_eq!(two.result(read), 512);
    one.end();
    two.end();
    rig.end();
}
