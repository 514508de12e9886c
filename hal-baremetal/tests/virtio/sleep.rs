//! Rings that sleep: an interrupt when it is needed, and no other.

use crate::fake::{Setup, bit, mmio};
use crate::rig::*;
use annulus::hal::Backend;
use annulus::uapi::IORING_OP_READ_FIXED as READ;
use annulus_baremetal::virtio::{Completions, QueueOptions};

/// Feature bits that are taken away.
const KINDS: [u64; 4] = [0, bit::EVENT_IDX, bit::PACKED, bit::PACKED | bit::EVENT_IDX];

fn each(completions: Completions, f: impl Fn(&mut Side<crate::fake::Mmio>, bool)) {
    for bits in KINDS {
        let setup = Setup::default();
        let features = setup.features & !bits;
        let fake = fake(Setup { features, queue_size: 8, ..setup });
        let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
        let options = QueueOptions { completions, depth: 8, ..polled() };
        let mut side = Side::new(&on, &options, 8).unwrap();
        f(&mut side, bits & bit::EVENT_IDX == 0);
        side.end();
        drop(on);
        fake.check();
    }
}

fn ask(side: &mut Side<crate::fake::Mmio>, count: usize) {
    let at = side.buffer.addr();
    for n in 0..count {
        side.pending(Ask::new(READ, at + n * 512, 512, n as u64 * 512));
    }
    side.kick();
}

#[test]
fn who_sleeps_is_woken_once() {
    // Often enough for the indices of a queue of 8 to wrap many times.
    let rounds = if cfg!(miri) { 20 } else { 300 };
    each(Completions::Interrupt, |side, events| {
        for round in 1..=rounds {
            ask(side, 8);
            // It may not sleep before it has asked for an interrupt.
            assert!(side.backend().polling());
            side.poll();
            assert!(!side.backend().polling(), "round {round}");
            side.device().step();
            assert!(side.backend().polling(), "there is something");
            let first = side.device().interrupts;
            side.device().run();
            let all = side.device().interrupts;
            match events {
                true => assert_eq!((first, all), (round, round), "for the first of eight only"),
                false => assert!(first > 0 && all - first == 7, "there is no way to say so"),
            }
            side.device().regs.interrupt = 0;
            side.poll();
            assert!(!side.busy());
            side.ended.clear();
            assert!(!side.backend().polling(), "nothing is in flight");
            if !events {
                side.device().interrupts = 0;
            }
        }
    });
}

#[test]
fn what_came_before_the_sleep_keeps_awake() {
    each(Completions::Interrupt, |side, _| {
        ask(side, 2);
        side.device().step();
        // It takes the first, and looks once more before it asks.
        side.poll();
        assert!(side.backend().polling());
        side.poll();
        assert!(!side.backend().polling());
        side.device().step();
        assert!(side.backend().polling());
        side.finish();
    });
}

#[test]
fn an_adaptive_ring_looks_for_a_while() {
    each(Completions::Adaptive, |side, _| {
        for _ in 0..3 {
            ask(side, 1);
            for _ in 0..200 {
                side.poll();
                assert!(side.backend().polling());
            }
            side.device().run();
            side.poll();
            assert_eq!(side.device().interrupts, 0, "none was asked for");
            side.ended.clear();
        }
        ask(side, 1);
        let mut polls = 0;
        while side.backend().polling() {
            side.poll();
            polls += 1;
        }
        assert!((200..400).contains(&polls), "{polls}");
        side.device().run();
        assert_eq!(side.device().interrupts, 1);
        side.finish();
    });
}

#[test]
fn notifications_say_where_the_queue_is() {
    for bits in KINDS {
        let setup = Setup::default();
        let features = setup.features & !bits | bit::NOTIFICATION_DATA;
        let fake = fake(Setup { features, queue_size: 8, ..setup });
        let options =
            annulus_baremetal::virtio::Options { notification_data: true, queues: 2, ..quick() };
        let on = disk::<_, false>(&fake, crate::fake::pci(&fake), options).unwrap();
        let mut sides = [0, 1].map(|_| Side::new(&on, &polled(), 8).unwrap());
        for _ in 0..20 {
            for side in &mut sides {
                let at = side.buffer.addr();
                (0..3).for_each(|n| {
                    side.pending(Ask::new(READ, at, 512, n * 512));
                });
                side.kick();
                side.finish();
                side.ended.clear();
            }
        }
        sides.into_iter().for_each(Side::end);
        drop(on);
        fake.check();
    }
}

#[test]
fn a_disk_that_is_given_up() {
    let fake = fake(Setup::default());
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let mut side = Side::new(&on, &polled(), 8).unwrap();
    let at = side.buffer.addr();
    (0..8).for_each(|n| {
        side.pending(Ask::new(READ, at, 512, n * 512));
    });
    side.kick();
    side.device().step();
    on.leave();
    assert_eq!(side.device().status(), 0);
    side.poll();
    assert!(!side.busy());
    let gone = errno(annulus::errno::Errno::ENODEV);
    assert!(side.ended.iter().all(|(_, result)| *result == gone), "{:?}", side.ended);
    side.end();
    drop(on);
    fake.check();
}
