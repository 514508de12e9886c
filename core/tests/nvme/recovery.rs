//! Commands that are late, controllers that fail, and what becomes of what was
//! in flight.

use crate::fake::{Aborts, Fate, Rule, Setup, meanwhile};
use crate::rig::*;
use annulus::errno::Errno;
use annulus::nvme::{Completions, Options, QueueOptions};
use std::cell::RefCell;
use std::rc::Rc;

const LATE: i32 = -110;

#[test]
fn a_late_command_is_aborted_and_times_out() {
    for options in [seldom(), polled()] {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        let mut ring = rig.ring(&options);
        rig.device().lies.rules = vec![Rule::io(Fate::Lost, 1)];
        let lost = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
        let fine = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
        ring.turn();
        rig.fake.run(20);
        ring.pass_ms(150);
        assert_eq!(ring.results(), [512], "it is not late yet");
        ring.pass_ms(250);
        rig.fake.run(20);
        ring.pass_ms(50);
        assert_eq!(ring.result(lost), LATE);
        assert_eq!(ring.result(fine), 512);
        assert_eq!((ring.stats().aborts, ring.stats().resets), (1, 0));
        assert_eq!((rig.controller().resets(), rig.device().aborts), (0, 1));
        let again = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
        assert_eq!(ring.result(again), 512);
        ring.end();
        rig.end();
    }
}

#[test]
fn a_ring_that_is_polled_rarely_keeps_its_deadlines() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&polled());
    // The first one may take some time, until the ring knows its pace.
    for (every_ms, within_ms) in [(1, 4000), (1, 500), (30, 4000), (30, 500)] {
        rig.device().lies.rules = vec![Rule::io(Fate::Lost, 1)];
        let lost = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
        let start = rig.device().now;
        while !ring.ended.contains_key(&lost) {
            rig.fake.advance_ms(every_ms);
            ring.turn();
            rig.fake.run(4);
        }
        let took = (rig.device().now - start) / 1_000_000;
        assert_eq!(ring.ended[&lost].res, LATE);
        assert!((200..within_ms).contains(&took), "{took} ms, polled every {every_ms}");
    }
    // One that polls all the time does not look at the clock all the time.
    ring.register(&[1]).unwrap();
    let turns = if cfg!(miri) { 3_000 } else { 100_000 };
    let mut looks = 0;
    for turn in 0..turns {
        if ring.in_flight() < 4 {
            ring.read(On::Fixed(0), 0, 512, &How::Fixed(0));
        }
        if turn == turns / 2 {
            looks = rig.device().waits;
        }
        rig.fake.advance(10_000);
        ring.turn();
        rig.fake.run(2);
    }
    let looks = rig.device().waits - looks;
    assert!(cfg!(miri) || looks < turns / 500, "{looks} looks in {} turns", turns / 2);
    ring.finish();
    assert_eq!(ring.stats().failed, 4, "those that were aborted");
    ring.end();
    rig.end();
}

#[test]
fn an_abort_that_comes_too_late_changes_nothing() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    rig.device().lies.aborts = Aborts::TooLate;
    rig.device().lies.rules = vec![Rule::io(Fate::Lost, 2)];
    for how in [How::Fixed(0), How::Plain(0)] {
        ring.read(On::Fd(1), 0, 512, &how);
    }
    ring.turn();
    ring.pass_ms(500);
    ring.finish();
    assert_eq!(ring.results(), [512, 512]);
    assert_eq!((ring.stats().aborts, rig.controller().resets()), (2, 0));
    ring.end();
    rig.end();
}

#[test]
fn more_late_commands_than_aborts_allowed() {
    // One abort at a time, and 15 late commands.
    let rig = Rig::<false>::with(1, Setup { acl: 0, ..Setup::default() }, quick());
    let mut ring = rig.ring(&seldom());
    rig.device().lies.rules = vec![Rule::io(Fate::Lost, 15)];
    for at in 0..15 {
        ring.read(On::Fd(1), at * 512, 512, &How::Fixed(0));
    }
    ring.turn();
    rig.fake.run(20);
    ring.pass_ms(800);
    ring.finish();
    assert_eq!(ring.results(), [LATE; 15]);
    assert_eq!(rig.controller().resets(), 1, "not all could be aborted in time");
    ring.end();
    rig.end();
}

#[test]
fn an_abort_that_does_not_help_is_followed_by_a_reset() {
    for aborts in [Aborts::Ignored, Aborts::Lost] {
        for options in [seldom(), polled()] {
            let rig = Rig::<false>::with(1, Setup::default(), quick());
            let mut ring = rig.ring(&QueueOptions { depth: 7, ..options });
            rig.device().lies.aborts = aborts;
            rig.device().lies.rules = vec![Rule::io(Fate::Lost, 3)];
            let early: Vec<_> = (0..3)
                .map(|at| ring.write(On::Fd(1), at * 512, &pattern(at, 512), &How::Fixed(0)))
                .collect();
            ring.turn();
            rig.fake.run(20);
            ring.pass_ms(300);
            rig.device().lies.hold = true;
            // Young when the reset comes; more than there are places.
            let young: Vec<_> =
                (0..8).map(|at| ring.read(On::Fd(1), at * 512, 512, &How::Plain(1))).collect();
            ring.turn();
            rig.fake.run(20);
            assert!(early.iter().all(|id| !ring.ended.contains_key(id)), "neither ends nor aborts");
            ring.pass_ms(250);
            rig.device().lies.hold = false;
            ring.finish();
            assert_eq!(rig.controller().resets(), 1, "{aborts:?}");
            for id in early {
                assert_eq!(ring.ended[&id].res, LATE);
            }
            let eio = errno(Errno::EIO);
            let results: Vec<_> = young.iter().map(|id| ring.ended[id].res).collect();
            assert_eq!(results[..4], [eio; 4], "in flight when it was reset");
            assert_eq!(results[4..], [512; 4], "they had waited");
            let again = ring.read(On::Fd(2), 0, 8192, &How::Fixed(0));
            assert_eq!(ring.result(again), 8192);
            assert_eq!(rig.controller().leaked_pages(), 0);
            ring.end();
            rig.end();
        }
    }
}

#[test]
fn a_fatal_status_is_followed_by_a_reset() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    rig.device().lies.hold = true;
    for at in 0..20 {
        ring.write(On::Fd(1), at * 512, &pattern(at, 512), &How::Plain(0));
    }
    ring.turn();
    rig.fake.run(10);
    rig.device().lies.csts = 2;
    rig.device().lies.hold = false;
    ring.turn();
    // It has failed for good if it stays so; it does not.
    let fake = rig.fake.clone();
    meanwhile(move || fake.device().lies.csts = 0, || ring.pass_ms(150));
    ring.finish();
    assert_eq!(rig.controller().resets(), 1);
    let eio = errno(Errno::EIO);
    let results = ring.results();
    assert!(results.iter().all(|&res| res == 512 || res == eio), "{results:?}");
    assert!(results.contains(&eio) && results.contains(&512), "{results:?}");
    ring.end();
    rig.end();
}

#[test]
fn after_a_reset_every_ring_has_its_queue_again() {
    let options = Options { shadow_doorbells: true, ..quick() };
    for options in [quick(), options] {
        let rig = Rig::<false>::with(1, Setup::default(), options);
        let (mut one, mut two) = (rig.ring(&seldom()), rig.ring(&polled()));
        let mut idle = rig.ring(&polled());
        for ring in [&mut one, &mut two, &mut idle] {
            let read = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
            assert_eq!(ring.result(read), 512);
        }
        rig.device().lies.aborts = Aborts::Ignored;
        rig.device().lies.rules = vec![Rule::io(Fate::Lost, 1)];
        let lost = one.read(On::Fd(1), 0, 512, &How::Fixed(0));
        one.turn();
        rig.fake.run(20);
        let bystander = two.read(On::Fd(1), 0, 512, &How::Fixed(0));
        rig.device().lies.hold = true;
        two.turn();
        rig.fake.run(20);
        one.pass_ms(600);
        rig.device().lies.hold = false;
        assert_eq!(one.result(lost), LATE);
        assert_eq!(two.result(bystander), errno(Errno::EIO));
        assert_eq!(rig.controller().resets(), 1);
        // What was not even looking is not hurt: its first request after the
        // reset goes well.
        for ring in [&mut idle, &mut one, &mut two] {
            let ids: Vec<_> =
                (0..20).map(|at| ring.read(On::Fd(1), at * 512, 512, &How::Fixed(0))).collect();
            ring.finish();
            assert!(ids.iter().all(|id| ring.ended[id].res == 512));
        }
        assert_eq!(rig.controller().resets(), 1, "one was enough");
        one.end();
        two.end();
        idle.end();
        assert_eq!(rig.controller().resets(), 1);
        rig.end();
    }
}

#[test]
fn a_ring_that_ends_after_a_reset_it_has_not_seen_hurts_nobody() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let (mut busy, idle) = (rig.ring(&seldom()), rig.ring(&seldom()));
    rig.device().lies.aborts = Aborts::Ignored;
    rig.device().lies.rules = vec![Rule::io(Fate::Lost, 1)];
    busy.read(On::Fd(1), 0, 512, &How::Fixed(0));
    busy.turn();
    rig.fake.run(20);
    busy.pass_ms(600);
    busy.finish();
    assert_eq!(rig.controller().resets(), 1);
    rig.device().lies.hold = true;
    let read = busy.read(On::Fd(1), 0, 512, &How::Fixed(0));
    busy.turn();
    idle.end();
    rig.device().lies.hold = false;
    assert_eq!(busy.result(read), 512);
    assert_eq!(rig.controller().resets(), 1);
    busy.end();
    rig.end();
}

#[test]
fn a_ring_that_ends_cancels_what_waits_and_awaits_what_runs() {
    for options in
        [seldom(), polled(), QueueOptions { completions: Completions::Adaptive(0), ..seldom() }]
    {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        let mut ring = rig.ring(&QueueOptions { depth: 3, ..options });
        rig.device().auto = false;
        for at in 0..20 {
            ring.write(On::Fd(1), at * 512, &pattern(at, 512), &How::Fixed(0));
        }
        ring.turn();
        rig.device().auto = true;
        let start = rig.device().now;
        ring.end();
        let written = rig.device().log.iter().filter(|one| one.sqid == 1).count();
        assert_eq!(written, 3, "what waited was not begun");
        let took = rig.device().now - start;
        assert!(took < 40_000_000, "{took} ns");
        rig.end();
    }
}

#[test]
fn a_ring_that_ends_awaits_what_never_ends_until_its_deadline() {
    for options in [seldom(), polled()] {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        let mut ring = rig.ring(&options);
        rig.device().lies.aborts = Aborts::Ignored;
        rig.device().lies.rules = vec![Rule::io(Fate::Lost, 3)];
        for at in 0..5 {
            ring.read(On::Fd(1), at * 512, 512, &How::Plain(0));
        }
        ring.turn();
        // Polled, a look at the clock is what takes time.
        rig.device().tick = 5_000_000;
        ring.end();
        assert_eq!(rig.controller().resets(), 1);
        rig.end();
    }
}

#[test]
fn what_waits_for_a_chunk_does_not_wait_for_what_waits_behind_it() {
    // One chunk; ring `two` is between the two parts of a long request that
    // has it, and another request waits for it, when ring `one` resets.
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut one = rig.ring(&seldom());
    let mut two = rig.ring(&QueueOptions { bounce_buffers: 1, ..polled() });
    let long = two.read(On::Fd(1), 0, 3 * 8192, &How::Plain(0));
    let short = two.read(On::Fd(1), 0, 512, &How::Plain(0));
    rig.device().lies.hold = true;
    two.turn();
    rig.fake.run(10);
    rig.device().lies.aborts = Aborts::Ignored;
    one.read(On::Fd(1), 0, 512, &How::Fixed(0));
    one.turn();
    rig.fake.run(10);
    let two = Rc::new(RefCell::new(two));
    let other = two.clone();
    let fake = rig.fake.clone();
    let mut turns = 0;
    meanwhile(
        move || {
            // The reset has begun; the part ends in that very moment.
            other.borrow_mut().turn();
            if turns == 0 {
                let mut device = fake.device();
                device.lies.hold = false;
                device.complete_unseen();
            }
            turns += 1;
        },
        || one.pass_ms(600),
    );
    assert_eq!(rig.controller().resets(), 1);
    let mut two = Rc::into_inner(two).unwrap().into_inner();
    let (long, short) = (two.result(long), two.result(short));
    assert_eq!(short, 512);
    assert!(long == 3 * 8192 || long == errno(Errno::EIO), "{long}");
    one.finish();
    two.end();
    one.end();
    rig.end();
}
