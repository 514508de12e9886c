//! Controllers that lie.

use crate::fake::{Aborts, Fake, Fate, Rng, Rule, Setup};
use crate::rig::*;
use crate::tricks::{Chance, Kind, Trick, tell};
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
        1 => (0u16..3, 0usize..256, any::<u32>()).prop_map(
            |(queue, word, value)| Trick::Scribble { queue, word, value }
        ),
    ]
}

/// What the property test draws.
struct Drawn {
    rng: Rng,
    tricks: std::vec::IntoIter<Trick>,
}

impl Chance for Drawn {
    fn below(&mut self, end: usize) -> usize {
        self.rng.below(end)
    }

    fn trick(&mut self) -> Option<Trick> {
        self.tricks.next()
    }
}

#[test]
fn registers_that_are_wrong_now_and_then_hold_nobody_up() {
    for seed in 0..if cfg!(miri) { 1 } else { 8 } {
        let fake = Fake::new(seed, Setup::default());
        let mut rng = Rng::new(seed);
        let tricks: Vec<Trick> = (0..12)
            .flat_map(|_| {
                let bits = [1, 2, 0x8000_0000, u32::MAX][rng.below(4)];
                [
                    Trick::Garble { after: rng.below(4), bits },
                    Trick::Run(5),
                    Trick::Hold(rng.below(2) == 0),
                    Trick::Time(300),
                ]
            })
            .collect();
        let kind = Kind { completions: (seed % 3) as u8, shadow: false, ending: 1 };
        let mut drawn = Drawn { rng, tricks: tricks.into_iter() };
        // Who is told that a device is quiet which is not is not to blame.
        tell(&fake, kind, &mut drawn).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_device_costs_its_own_requests_and_nothing_else(
        seed in any::<u64>(),
        completions in 0u8..3,
        shadow in any::<bool>(),
        ending in 0u8..4,
        tricks in proptest::collection::vec(trick(), 1..if cfg!(miri) { 8 } else { 60 }),
    ) {
        let fake = Fake::new(seed, Setup::default());
        let mut drawn = Drawn { rng: Rng::new(seed), tricks: tricks.into_iter() };
        tell(&fake, Kind { completions, shadow, ending }, &mut drawn).unwrap();
        fake.check();
    }
}
