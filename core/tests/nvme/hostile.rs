//! Controllers that lie.

use crate::fake::{Aborts, Fake, Fate, Rng, Rule, Setup};
use crate::rig::*;
use annulus::nvme::{Completions, Options, QueueOptions};
use proptest::prelude::*;

#[test]
fn stale_repeated_and_invented_completions_are_counted_and_harmless() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&polled());
    ring.register(&[1]).unwrap();
    let read = ring.read(On::Fixed(0), 0, 512, &How::Fixed(0));
    assert_eq!(ring.result(read), 512);
    let cid = rig.device().log.last().unwrap().cid;
    let rounds: [(u16, u32); 6] = [
        // Repeated, of another generation, of slots that are not there, or not
        // in use; a wrong queue and a wrong head beside them.
        (cid, 0),
        (cid ^ 0x8000, 0),
        (0x0fff, 0),
        (cid + 3, 0),
        (0xffff, 0xffff_ffff),
        (0, 7 << 16 | 900),
    ];
    for (round, (cid, dword2)) in rounds.into_iter().enumerate() {
        let before = ring.results().len();
        rig.device().lies.hold = true;
        let read = ring.read(On::Fixed(0), 512, 512, &How::Fixed(0));
        ring.turn();
        rig.fake.run(10);
        rig.device().post_raw(1, 0xdead_beef, dword2, cid, 0);
        ring.turn();
        assert_eq!(ring.stats().stale, round as u32 + 1);
        assert_eq!(ring.results().len(), before, "nobody's request has ended");
        rig.device().lies.hold = false;
        assert_eq!(ring.result(read), 512);
    }
    // An entry whose phase tag is old is none.
    rig.device().post_old(1, cid);
    ring.turn();
    assert_eq!(ring.stats().stale, 6);
    // A storm.
    rig.device().lies.wild = true;
    rig.device().lies.hold = true;
    ring.read(On::Fixed(0), 512, 512, &How::Fixed(0));
    ring.turn();
    rig.fake.run(4);
    for cid in 0..1000 {
        rig.device().post_raw(1, 0, 0, 0x0fff, cid);
        if cid % 13 == 0 {
            ring.turn();
        }
    }
    rig.device().lies.hold = false;
    rig.device().remove();
    ring.pass_ms(150);
    ring.finish();
    ring.end();
    rig.end();
}

#[test]
fn a_completion_of_the_time_before_a_reset_ends_nothing() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    rig.device().lies.aborts = Aborts::Ignored;
    rig.device().lies.rules = vec![Rule::io(Fate::Lost, 4)];
    for at in 0..4 {
        ring.read(On::Fd(1), at * 512, 512, &How::Fixed(0));
    }
    ring.turn();
    rig.fake.run(10);
    let old: Vec<_> = rig.device().work.iter().filter(|w| w.sqid == 1).map(|w| w.cid).collect();
    assert_eq!(old.len(), 4);
    ring.pass_ms(600);
    ring.finish();
    // The same slots again.
    rig.device().lies.hold = true;
    let ids: Vec<_> =
        (0..4).map(|at| ring.read(On::Fd(1), at * 512, 512, &How::Fixed(0))).collect();
    ring.turn();
    rig.fake.run(10);
    for cid in old {
        rig.device().post_raw(1, 0, 0, cid, 0x281);
    }
    ring.turn();
    assert_eq!(ring.stats().stale, 4);
    rig.device().lies.hold = false;
    ring.finish();
    assert!(ids.iter().all(|id| ring.ended[id].res == 512));
    ring.end();
    rig.end();
}

#[test]
fn admin_answers_that_nobody_asked_for() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    rig.device().lies.wild = true;
    for cid in [0, 1, 0x3fff, 0x4000, 0x4007, 0x4fff, 0x8000, 0x8001, 0x8004, 0xbfff, 0xc000] {
        rig.device().post_raw(0, 0xffff_ffff, 0, cid, 0);
    }
    let two = rig.controller().namespace(2).unwrap();
    assert_eq!(two.id, 2);
    let read = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
    assert_eq!(ring.result(read), 512);
    ring.end();
    rig.end();
}

/// What a hostile device does between two turns.
#[derive(Clone, Debug)]
enum Trick {
    Run(u32),
    Post {
        queue: u16,
        dword0: u32,
        cid: u16,
        status: u16,
    },
    /// A completion for a command that it has, without doing it.
    Lie {
        status: u16,
    },
    Old(u16),
    Storm(u16),
    Rule(Rule),
    Aborts(Aborts),
    Event(u32),
    Fatal(bool),
    Hold(bool),
    Time(u64),
    NoRead,
    Shadow(u32),
}

fn trick() -> impl Strategy<Value = Trick> {
    let fate = prop_oneof![
        Just(Fate::Lost),
        any::<u16>().prop_map(|status| Fate::Status(status & 0x7fff)),
    ];
    let rule = (any::<bool>(), prop::option::of(0u8..16), fate, 1u32..4, 0u32..3)
        .prop_map(|(admin, opcode, fate, left, skip)| Rule { admin, opcode, fate, left, skip });
    // Identifiers near those in use, or any.
    let cid = prop_oneof![
        (0u16..16, 0u16..16).prop_map(|(generation, slot)| generation << 12 | slot),
        any::<u16>()
    ];
    prop_oneof![
        6 => (1u32..20).prop_map(Trick::Run),
        3 => (0u16..3, any::<u32>(), cid, any::<u16>()).prop_map(
            |(queue, dword0, cid, status)| Trick::Post { queue, dword0, cid, status }
        ),
        2 => any::<u16>().prop_map(|status| Trick::Lie { status: status & 0x7fff }),
        1 => any::<u16>().prop_map(Trick::Old),
        1 => (1u16..200).prop_map(Trick::Storm),
        2 => rule.prop_map(Trick::Rule),
        1 => prop_oneof![
            Just(Aborts::Work), Just(Aborts::Ignored), Just(Aborts::TooLate), Just(Aborts::Lost)
        ].prop_map(Trick::Aborts),
        1 => any::<u32>().prop_map(Trick::Event),
        1 => any::<bool>().prop_map(Trick::Fatal),
        2 => any::<bool>().prop_map(Trick::Hold),
        2 => (1u64..400).prop_map(Trick::Time),
        1 => Just(Trick::NoRead),
        1 => any::<u32>().prop_map(Trick::Shadow),
    ]
}

fn play(rig: &Rig, ring: &mut Ring, trick: &Trick) {
    let mut device = rig.device();
    match trick {
        Trick::Run(steps) => device.run(*steps),
        Trick::Post { queue, dword0, cid, status } => {
            device.post_raw(*queue, *dword0, *dword0, *cid, *status);
        }
        Trick::Lie { status } => {
            if let Some(work) = device.work.iter().find(|work| work.sqid != 0) {
                let (sqid, cid) = (work.sqid, work.cid);
                device.post_raw(sqid, 0, 0, cid, *status);
            }
        }
        Trick::Old(cid) => device.post_old(1, *cid),
        Trick::Storm(count) => {
            for cid in 0..*count {
                device.post_raw(1, 0, 0, cid.wrapping_mul(0x1003), 0);
            }
        }
        Trick::Rule(rule) => device.lies.rules.push(*rule),
        Trick::Aborts(aborts) => device.lies.aborts = *aborts,
        Trick::Event(event) => device.events.push(*event),
        Trick::Fatal(yes) => device.lies.csts = u32::from(*yes) << 1,
        Trick::Hold(yes) => device.lies.hold = *yes,
        Trick::Time(ms) => {
            drop(device);
            ring.pass_ms(*ms);
        }
        Trick::NoRead => device.lies.deaf = !device.lies.deaf,
        Trick::Shadow(word) => {
            if let Some((doorbells, events)) = device.shadow {
                for at in 1..4 {
                    device.memory.write32(events + at * 4, *word);
                    device.memory.write32(doorbells + at * 4, *word);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_device_costs_its_own_requests_and_nothing_else(
        seed in any::<u64>(),
        kind in 0u8..3,
        shadow in any::<bool>(),
        ending in 0u8..4,
        tricks in proptest::collection::vec(trick(), 1..if cfg!(miri) { 8 } else { 60 }),
    ) {
        let fake = Fake::new(seed, Setup::default());
        let options = Options { shadow_doorbells: shadow, ..quick() };
        let rig = Rig::<false>::try_with(fake.clone(), options).unwrap();
        rig.device().relax = LONG;
        rig.device().lies.wild = true;
        let mut ring = rig.try_ring(&QueueOptions {
            depth: 7,
            completions: match kind {
                0 => Completions::Polled,
                1 => Completions::Interrupt(1),
                _ => Completions::Adaptive(1),
            },
            ..seldom()
        }, 12).unwrap();
        let mut rng = Rng::new(seed);
        let mut submitted = 0;
        for trick in &tricks {
            for _ in 0..rng.below(4) {
                if ring.in_flight() > 10 {
                    break;
                }
                submitted += 1;
                let how = match rng.below(3) {
                    0 => How::Fixed(0),
                    1 => How::Plain(rng.below(64)),
                    _ => How::Vectored(vec![rng.below(600), 1]),
                };
                let (pos, len) = (rng.below(64) as u64 * 4096, 4096 << rng.below(4));
                match rng.below(8) {
                    0 => ring.fsync(On::Fd(1)),
                    1 => ring.fallocate(2, FALLOC_FL_ZERO_RANGE, 0, 4096),
                    2 | 3 => ring.write(On::Fd(2), pos, &pattern(pos, len), &how),
                    _ => ring.read(On::Fd(1), pos % 131072, len, &how),
                };
            }
            ring.turn();
            play(&rig, &mut ring, trick);
            ring.turn();
            rig.fake.patience();
        }
        // It is removed, or comes to its senses, or never does.
        match ending {
            0 => rig.device().remove(),
            1 => {
                let mut device = rig.device();
                (device.lies.hold, device.lies.deaf, device.lies.csts) = (false, false, 0);
                device.lies.rules.clear();
            }
            2 => {
                rig.device().lies.never_disabled = true;
                rig.device().lies.hold = true;
            }
            _ => rig.device().lies.hold = true,
        }
        ring.finish();
        prop_assert_eq!(ring.results().len(), submitted);
        ring.end();
        drop(rig);
        fake.check();
    }
}
