//! Devices that are late, break down, vanish or lie.

use crate::fake::{Fate, Lie, Rng, Rule, Setup, bit, mmio, pci};
use crate::rig::*;
use crate::steps::{Chance, Step, tell};
use annulus::errno::Errno;
use annulus::hal::Start;
use annulus::uapi::*;
use annulus_baremetal::virtio::{Completions, Lie as Told, Options, QueueOptions};
use proptest::prelude::*;

const READ: u8 = IORING_OP_READ_FIXED;

/// Every layout: feature bits that are taken away.
const LAYOUTS: [u64; 4] = [bit::PACKED, bit::PACKED | bit::INDIRECT, 0, bit::INDIRECT];

fn without(bits: u64) -> Setup {
    let setup = Setup::default();
    Setup { features: setup.features & !bits, queue_size: 64, ..setup }
}

#[test]
fn what_is_late_ends_and_so_does_the_rest() {
    for bits in LAYOUTS {
        let fake = fake(without(bits));
        let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
        let options = QueueOptions { completions: Completions::Interrupt, ..polled() };
        let mut side = Side::new(&on, &options, 20).unwrap();
        let at = side.buffer.addr();
        side.device().rules.push(Rule { kind: None, skip: 0, fate: Fate::Lost });
        let lost = side.pending(Ask::new(READ, at, 512, 0));
        side.kick();
        side.device().run();
        // The rest comes much later, and does not end either.
        (0..4).for_each(|_| side.wait());
        side.device().lies.deaf = true;
        let rest: Vec<_> =
            (1..15).map(|n| side.pending(Ask::new(READ, at, 4096, n * 512))).collect();
        side.kick();
        let mut rounds = 0;
        while side.busy() && rounds < 5 {
            side.wait();
            rounds += 1;
        }
        assert!(!side.busy());
        assert_eq!((side.backend().stats().resets, on.resets()), (1, 1));
        for (slot, result) in std::mem::take(&mut side.ended) {
            let expected = if slot == lost { Errno::ETIMEDOUT } else { Errno::EIO };
            assert_eq!(result, errno(expected));
            assert!(slot == lost || rest.contains(&slot));
        }
        side.device().lies.deaf = false;
        for n in 0..40 {
            assert_eq!(side.run(Ask::new(READ, at, 512, n * 512)), 512, "it goes on");
        }
        side.end();
        drop(on);
        fake.check();
    }
}

#[test]
fn a_device_that_wants_to_be_reset() {
    for told in [false, true] {
        let fake = fake(Setup::default());
        let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
        let mut side = Side::new(&on, &polled(), 20).unwrap();
        let at = side.buffer.addr();
        for n in 0..15 {
            side.pending(Ask::new(READ, at, 4096, n * 512));
        }
        side.kick();
        side.device().step();
        side.device().break_down();
        if told {
            assert!(on.acknowledge().config);
        }
        let mut rounds = 0;
        while side.busy() {
            side.poll();
            rounds += 1;
            assert!(rounds < 10);
            if side.busy() {
                side.wait();
            }
        }
        assert!(!told || rounds == 1, "at once");
        assert_eq!(side.ended.iter().filter(|(_, result)| *result == 4096).count(), 1);
        assert_eq!(side.ended.iter().filter(|(_, r)| *r == errno(Errno::EIO)).count(), 14);
        side.device().lies.deaf = false;
        assert_eq!(side.run(Ask::new(READ, at, 512, 0)), 512);
        assert_eq!(on.resets(), 1);
        side.end();
        drop(on);
        fake.check();
    }
}

#[test]
fn a_device_that_is_gone_or_wanted() {
    for leaving in [false, true] {
        let fake = fake(Setup::default());
        let on = disk::<_, false>(&fake, pci(&fake), quick()).unwrap();
        let mut side = Side::new(&on, &polled(), 20).unwrap();
        let at = side.buffer.addr();
        for n in 0..20 {
            side.pending(Ask::new(READ, at, 4096, n * 512));
        }
        side.kick();
        let gone = errno(Errno::ENODEV);
        match leaving {
            true => side.device().leaving = true,
            false => side.device().gone = true,
        }
        for _ in 0..4 {
            side.wait();
        }
        assert!(!side.busy());
        assert!(side.ended.iter().all(|(_, result)| *result == gone));
        assert_eq!(side.start(Ask::new(READ, at, 512, 0)), Err(Start::Done(gone)));
        assert!(Side::new(&on, &polled(), 20).is_err());
        side.end();
        drop(on);
        assert_eq!(fake.device().memory.allocations(), 0);
    }
}

#[test]
fn a_device_that_cannot_be_reset_keeps_its_memory() {
    let fake = fake(Setup::default());
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let mut side = Side::new(&on, &polled(), 20).unwrap();
    let at = side.buffer.addr();
    side.device().lies = crate::fake::Lies { deaf: true, no_reset: true };
    side.pending(Ask::new(READ, at, 4096, 0));
    side.kick();
    let mut rounds = 0;
    while side.busy() {
        side.wait();
        rounds += 1;
        assert!(rounds < 20);
    }
    assert_eq!(side.start(Ask::new(READ, at, 512, 0)), Err(Start::Done(errno(Errno::EIO))));
    side.end();
    assert!(on.leaked_pages() > 3, "queue, requests and bounce buffers");
    drop(on);
    let mut device = fake.device();
    assert_eq!(device.memory.allocations(), 3);
    // What it was handed is not used for anything else.
    device.forgive();
}

#[test]
fn rings_get_over_a_reset_by_another() {
    for bits in LAYOUTS {
        let fake = fake(without(bits));
        let options = Options { queues: 3, ..quick() };
        let on = disk::<_, false>(&fake, mmio(&fake), options).unwrap();
        let mut sides: Vec<_> = (0..3).map(|_| Side::new(&on, &polled(), 20).unwrap()).collect();
        for round in 0..if cfg!(miri) { 1 } else { 5 } {
            for side in &mut sides {
                let at = side.buffer.addr();
                for n in 0..10 {
                    side.pending(Ask::new(READ, at, 4096, n * 512));
                }
                side.kick();
            }
            // The first is lied to, twice; the second looks once in between,
            // the third not at all, and goes on writing to its old queue.
            for again in 0..2 {
                let rule = Rule { kind: None, skip: 0, fate: Fate::Lie(Lie::NoStatus) };
                fake.device().rules.push(rule);
                while !fake.device().rules.is_empty() {
                    fake.device().step();
                    sides[0].poll();
                    if !sides[0].busy() {
                        let at = sides[0].buffer.addr();
                        sides[0].pending(Ask::new(READ, at, 512, 0));
                        sides[0].kick();
                    }
                }
                // Who is lied to may be any of them: each notices its own.
                for side in &mut sides[..2 - again] {
                    side.poll();
                }
                let at = sides[2].buffer.addr();
                if sides[2].asked.contains(&false) {
                    sides[2].pending(Ask::new(READ, at, 512, 0));
                    sides[2].kick();
                }
            }
            for side in &mut sides {
                side.poll();
                side.finish();
                side.ended.clear();
                let at = side.buffer.addr();
                assert_eq!(side.run(Ask::new(READ, at, 4096, 0)), 4096, "round {round}");
                let disk = fake.device().disk[..4096].to_vec();
                assert!(side.buffer.get(0, 4096) == disk);
            }
        }
        for side in sides {
            side.end();
        }
        drop(on);
        fake.check();
    }
}

#[test]
fn every_lie_is_told_by_its_name() {
    // Both layouts under Miri, each with some of the lies.
    let step = if cfg!(miri) { 3 } else { 1 };
    for bits in LAYOUTS.into_iter().step_by(step) {
        let packed = bits & bit::PACKED == 0;
        let mut lies = vec![
            (Lie::Id(63), Told::Id(63)),
            (Lie::Id(u32::MAX), Told::Id(if packed { 0xffff } else { u32::MAX })),
            (Lie::Length(514), Told::Length(514)),
            (Lie::Length(u32::MAX), Told::Length(u32::MAX)),
            (Lie::NoStatus, Told::NoStatus),
        ];
        if !packed {
            lies.extend([2, 100, 0x8000, 0xffff].map(|n| (Lie::Index(n), Told::Index(n))));
        }
        for (lie, told) in lies.into_iter().step_by(step) {
            let fake = fake(without(bits));
            let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
            let mut side = Side::new(&on, &polled(), 20).unwrap();
            let at = side.buffer.addr();
            side.device().rules.push(Rule { kind: None, skip: 0, fate: Fate::Lie(lie) });
            assert_eq!(side.run(Ask::new(READ, at, 512, 0)), errno(Errno::EIO), "{lie:?}");
            let stats = *side.backend().stats();
            assert_eq!((stats.lies, stats.resets, on.resets()), (1, 1, 1));
            let heads = bits & bit::INDIRECT != 0 && !packed;
            if !heads || !matches!(lie, Lie::Id(_)) {
                assert_eq!(stats.last_lie, Some(told));
            }
            assert_eq!(side.run(Ask::new(READ, at, 512, 0)), 512, "and it goes on");
            side.end();
            drop(on);
            fake.check();
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let lie = prop_oneof![
        any::<u32>().prop_map(Lie::Id),
        (0u32..70).prop_map(Lie::Id),
        any::<u32>().prop_map(Lie::Length),
        any::<u16>().prop_map(Lie::Index),
        (0u16..10).prop_map(Lie::Index),
        Just(Lie::NoStatus),
        Just(Lie::Twice),
    ];
    let fate = prop_oneof![
        4 => lie.prop_map(Fate::Lie),
        1 => any::<u8>().prop_map(Fate::Status),
        1 => Just(Fate::Lost),
    ];
    let ask = (any::<(bool, bool)>(), 0u64..2048, 1usize..40);
    prop_oneof![
        8 => ask.prop_map(|((write, fixed), block, blocks)| Step::Ask { write, fixed, block, blocks }),
        6 => (1usize..6).prop_map(Step::Run),
        5 => Just(Step::Poll),
        1 => (1u64..300).prop_map(Step::Wait),
        2 => fate.prop_map(Step::Fate),
        1 => Just(Step::Break),
        1 => Just(Step::Grow),
    ]
}

/// What the property test draws.
struct Drawn {
    rng: Rng,
    steps: std::vec::IntoIter<Step>,
}

impl Chance for Drawn {
    fn below(&mut self, end: usize) -> usize {
        self.rng.below(end)
    }

    fn step(&mut self) -> Option<Step> {
        self.steps.next()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lies_do_no_harm(
        seed in any::<u64>(),
        layout in 0usize..4,
        quiet in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..60),
        scribbles in prop_oneof![
            3 => Just(Vec::new()),
            1 => proptest::collection::vec((0usize..2, 0usize..1024, any::<u16>()), 1..20),
        ],
    ) {
        let after = scribbles.into_iter().flat_map(|(queue, at, value)| {
            [Step::Scribble { queue, at, value }, Step::Run(1), Step::Poll]
        });
        let steps: Vec<Step> = steps.into_iter().chain(after).collect();
        let events = if quiet { bit::EVENT_IDX } else { 0 };
        let fake = crate::fake::Fake::new(seed, without(LAYOUTS[layout] | events));
        tell(&fake, &mut Drawn { rng: Rng::new(seed), steps: steps.into_iter() }).unwrap();
        // A device that lies may find old descriptors; nothing else is held
        // against the driver.
        fake.check();
    }
}
