//! What is written is what is read, whatever way it goes.

use crate::fake::{Fake, Fate, Rng, Rule, Setup};
use crate::rig::*;
use annulus::errno::Errno;
use annulus::nvme::{Completions, Options, QueueOptions};
use proptest::prelude::*;
use std::collections::HashMap;

/// A request of a program.
#[derive(Clone, Debug)]
struct Step {
    write: bool,
    /// 0 or 1: which namespace; and whether by a registered file.
    namespace: usize,
    registered: bool,
    /// In blocks of that namespace.
    block: u64,
    blocks: u64,
    how: How,
    dsync: bool,
    /// Turns of the device afterwards.
    run: u32,
}

fn how() -> impl Strategy<Value = How> {
    let offset = prop_oneof![
        4 => Just(0usize),
        2 => (0usize..1024).prop_map(|at| at * 4),
        1 => 0usize..4096,
    ];
    prop_oneof![
        3 => offset.clone().prop_map(How::Fixed),
        2 => offset.prop_map(How::Plain),
        1 => proptest::collection::vec(0usize..9000, 0..6).prop_map(How::Vectored),
    ]
}

/// Up to a bit more than twice what one command can carry (32 KiB).
fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 1u64..=8, 3 => 1u64..=64, 2 => 1u64..=140];
    (any::<(bool, bool, bool, bool)>(), 0u64..256, length, how(), 0u32..6).prop_map(
        |((write, second, registered, dsync), block, length, how, run)| {
            let namespace = usize::from(second);
            let (size, blocks) = if second { (64, length.div_ceil(8)) } else { (256, length) };
            let block = block % size;
            let blocks = blocks.min(size - block);
            Step { write, namespace, registered, block, blocks, how, dsync, run }
        },
    )
}

#[derive(Clone, Debug)]
struct Place {
    seed: u64,
    depth: u32,
    bounce_buffers: usize,
    bounce_bytes: usize,
    max_transfer: u32,
    completions: u8,
    scatter: bool,
    sgls: u8,
    shadow: bool,
    vwc: bool,
    mdts: u8,
}

fn place() -> impl Strategy<Value = Place> {
    (
        any::<(u64, bool, bool, bool)>(),
        prop_oneof![Just(1u32), Just(3), Just(15), Just(127)],
        1usize..6,
        1usize..5,
        prop_oneof![Just(4096u32), Just(12288), Just(1 << 20)],
        0u8..3,
        0u8..3,
        0u8..5,
    )
        .prop_map(
            |(
                (seed, scatter, shadow, vwc),
                depth,
                buffers,
                pages,
                max,
                completions,
                sgls,
                mdts,
            )| {
                Place {
                    seed,
                    depth,
                    bounce_buffers: buffers,
                    bounce_bytes: pages * 4096,
                    max_transfer: max,
                    completions,
                    scatter,
                    sgls,
                    shadow,
                    vwc,
                    mdts,
                }
            },
        )
}

const SHIFTS: [u32; 2] = [9, 12];

fn run<const SYNC: bool>(place: &Place, steps: &[Step]) {
    let setup =
        Setup { sgls: place.sgls, vwc: place.vwc, mdts: place.mdts, mqes: 127, ..Setup::default() };
    let fake = Fake::new(place.seed, setup);
    fake.device().memory.scatter = place.scatter;
    let options = Options { shadow_doorbells: place.shadow, ..quick() };
    let rig = Rig::<SYNC>::try_with(fake, options).unwrap();
    let mut ring = rig.ring(&QueueOptions {
        depth: place.depth,
        bounce_buffers: place.bounce_buffers,
        bounce_bytes: place.bounce_bytes,
        max_transfer: place.max_transfer,
        completions: match place.completions {
            0 => Completions::Polled,
            1 => Completions::Interrupt(1),
            _ => Completions::Adaptive(1),
        },
    });
    ring.register(&[1, 2]).unwrap();
    let mut model = [vec![0u8; 256 << 9], vec![0u8; 64 << 12]];
    // What each running request will read, or write, and where.
    let mut running: HashMap<u64, (Step, Vec<u8>)> = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        let conflicts = |running: &HashMap<u64, (Step, Vec<u8>)>| {
            running.values().any(|(other, _)| {
                other.namespace == step.namespace
                    && (other.write || step.write)
                    && other.block < step.block + step.blocks
                    && step.block < other.block + other.blocks
            })
        };
        let mut tries = 0;
        while conflicts(&running) {
            ring.turn();
            settle(&mut ring, &mut running, &mut model);
            ring.fake.run(2);
            tries += 1;
            if tries % 64 == 63 {
                ring.look();
            }
            assert!(tries < 100_000, "a request does not end");
        }
        let shift = SHIFTS[step.namespace];
        let (pos, len) = (step.block << shift, (step.blocks << shift) as usize);
        let on = match step.registered {
            true => On::Fixed(step.namespace as u32),
            false => On::Fd(step.namespace as i32 + 1),
        };
        let at = pos as usize..pos as usize + len;
        let (id, data) = if step.write {
            let data = pattern(place.seed ^ number as u64, len);
            let flags = if step.dsync { annulus::uapi::RWF_DSYNC } else { 0 };
            (ring.write_flags(on, pos, &data, &step.how, flags), data)
        } else {
            (ring.read(on, pos, len, &step.how), model[step.namespace][at].to_vec())
        };
        running.insert(id, (step.clone(), data));
        if step.run > 0 {
            ring.turn();
            ring.fake.run(step.run);
        }
        settle(&mut ring, &mut running, &mut model);
    }
    ring.finish();
    settle(&mut ring, &mut running, &mut model);
    assert!(running.is_empty());
    // And what the device has is what the model has.
    for (namespace, model) in rig.fake.device().namespaces.iter().zip(&model) {
        let mut all = vec![0; model.len()];
        namespace.read(0, &mut all);
        assert!(all == *model, "the namespace's content");
    }
    assert_eq!((ring.stats().stale, ring.stats().failed), (0, 0));
    ring.end();
    rig.end();
}

fn settle<const SYNC: bool>(
    ring: &mut Ring<SYNC>,
    running: &mut HashMap<u64, (Step, Vec<u8>)>,
    model: &mut [Vec<u8>; 2],
) {
    for (id, ended) in ring.ended.drain() {
        let (step, data) = running.remove(&id).expect("one of ours");
        assert_eq!(ended.res, data.len() as i32, "{step:?}");
        if step.write {
            let pos = (step.block << SHIFTS[step.namespace]) as usize;
            model[step.namespace][pos..pos + data.len()].copy_from_slice(&data);
        } else {
            assert!(ended.data == data, "what was read: {step:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_is_read(
        place in place(),
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 8 } else { 60 }),
    ) {
        run::<false>(&place, &steps);
    }

    #[test]
    fn so_it_is_where_dma_is_not_coherent(
        place in place(),
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 8 } else { 40 }),
    ) {
        run::<true>(&place, &steps);
    }
}

#[test]
fn more_requests_than_places_in_the_queue() {
    let rig = Rig::<false>::with(7, Setup::default(), quick());
    let count = if cfg!(miri) { 24 } else { 256 };
    let mut ring = rig.try_ring(&QueueOptions { depth: 3, ..polled() }, count as u32).unwrap();
    let mut rng = Rng::new(7);
    let data: Vec<_> = (0..count).map(|block| pattern(block, 512)).collect();
    for block in 0..count {
        let how = if rng.below(2) == 0 { How::Fixed(0) } else { How::Plain(rng.below(4096)) };
        ring.write(On::Fd(1), block * 512, &data[block as usize], &how);
    }
    ring.finish();
    assert_eq!(ring.results(), vec![512; count as usize]);
    assert!(u64::from(ring.stats().waited) > count / 2);
    let mut all = vec![0; count as usize * 512];
    rig.device().namespaces[0].read(0, &mut all);
    assert!(all == data.concat());
    ring.end();
    rig.end();
}

#[test]
#[cfg_attr(miri, ignore = "64 MiB")]
fn a_command_has_no_more_blocks_than_it_can_name() {
    // No limit of the controller's: 16 bits, 0's based, are what is left.
    let setup = Setup { mdts: 0, ..Setup::default() };
    let fake = Fake::new(1, setup);
    fake.device().namespaces[0].blocks = 1 << 20;
    let rig = Rig::<false>::try_with(fake, quick()).unwrap();
    let bytes = 40 << 20;
    let mut ring = rig.ring(&QueueOptions {
        max_transfer: 64 << 20,
        bounce_bytes: 64 << 20,
        bounce_buffers: 1,
        ..seldom()
    });
    let data = pattern(1, bytes);
    let write = ring.write(On::Fd(1), 512, &data, &How::Plain(0));
    assert_eq!(ring.result(write), bytes as i32);
    let mut all = vec![0; bytes];
    rig.device().namespaces[0].read(1, &mut all);
    assert!(all == data, "all of it was written");
    ring.end();
    rig.end();
}

#[test]
fn one_doorbell_a_batch() {
    let rig = Rig::<false>::with(3, Setup::default(), quick());
    let mut ring = rig.ring(&polled());
    ring.register(&[1]).unwrap();
    rig.device().auto = false;
    let before = rig.device().doorbells;
    for at in 0..15 {
        ring.read(On::Fixed(0), at * 512, 512, &How::Fixed(0));
    }
    ring.turn();
    assert_eq!(rig.device().doorbells - before, 1, "one for fifteen submissions");
    rig.fake.run(100);
    ring.turn();
    assert_eq!(ring.results(), [512; 15]);
    assert!(rig.device().doorbells - before <= 2, "one for fifteen completions, or none");
    assert_eq!(ring.stats().doorbells, rig.device().doorbells - before);
    rig.device().auto = true;
    ring.end();
    rig.end();
}

#[test]
fn completions_are_given_back_before_the_device_lacks_them() {
    let rig = Rig::<false>::with(3, Setup::default(), quick());
    // 16 commands at most, and room for 32 completions.
    let mut ring = rig.ring(&QueueOptions { depth: 15, ..polled() });
    ring.register(&[1]).unwrap();
    rig.device().auto = false;
    let before = rig.device().doorbells;
    for batch in 1..=64 {
        for at in 0..4 {
            ring.read(On::Fixed(0), at * 512, 512, &How::Fixed(0));
        }
        ring.turn();
        rig.fake.run(100);
        ring.turn();
        assert_eq!(ring.results(), vec![512; 4 * batch], "the device has room for all");
    }
    // More than 16 are given back at once: after each fifth batch.
    assert_eq!(rig.device().doorbells - before, 64 + 64 / 5);
    rig.device().auto = true;
    ring.end();
    rig.end();
}

#[test]
fn shadow_doorbells_save_registers_and_lose_nothing() {
    let options = Options { shadow_doorbells: true, ..quick() };
    for (seed, depth) in [(1, 1), (2, 3), (3, 15)] {
        let rig = Rig::<false>::with(seed, Setup::default(), options);
        assert!(rig.controller().has_shadow());
        let mut ring = rig.ring(&QueueOptions { depth, ..polled() });
        ring.register(&[1]).unwrap();
        let rounds = if cfg!(miri) { 40 } else { 400 };
        for at in 0..rounds {
            ring.read(On::Fixed(0), at % 256 * 512, 512, &How::Fixed(0));
            ring.turn();
            // The device is busy now and then, and idle in between.
            if at % 5 != 0 {
                rig.fake.run(1 + at as u32 % 3);
            }
            if at % 16 == 15 {
                ring.finish();
            }
        }
        ring.finish();
        assert_eq!(ring.results(), vec![512; rounds as usize]);
        let rung = rig.device().doorbells;
        assert_eq!(rung, ring.stats().doorbells);
        let most = if depth < 15 { 2 * rounds as u32 } else { rounds as u32 };
        assert!(rung <= most, "{rung} registers for {rounds} reads");
        ring.end();
        rig.end();
    }
    let without = Setup { doorbell_buffer: false, ..Setup::default() };
    let rig = Rig::<false>::with(1, without, options);
    assert!(!rig.controller().has_shadow());
    rig.end();
}

#[test]
fn shadow_doorbells_that_do_not_fit_their_page_are_not_used() {
    let options = Options { shadow_doorbells: true, ..quick() };
    for dstrd in [6, 9, 10, 12] {
        let window = 0x1000 + (64 << dstrd);
        let rig = Rig::<false>::with(1, Setup { dstrd, window, ..Setup::default() }, options);
        let mut ring = rig.ring(&seldom());
        let read = ring.read(On::Fd(1), 0, 512, &How::Plain(0));
        assert_eq!(ring.result(read), 512);
        ring.end();
        rig.end();
    }
}

#[test]
fn a_vector_beyond_the_room_waits_for_room() {
    let rig = Rig::<false>::with(5, Setup::default(), quick());
    let mut ring = rig.ring(&polled());
    for at in 0..32 {
        let data = pattern(at, 1024);
        ring.write(On::Fd(1), at * 1024, &data, &How::Vectored(vec![1, 500, 0, 13]));
    }
    ring.finish();
    assert_eq!(ring.results(), [1024; 32]);
    let read = ring.read(On::Fd(1), 31 * 1024, 1024, &How::Vectored(vec![1000]));
    assert_eq!(ring.result(read), 1024);
    assert!(ring.ended[&read].data == pattern(31, 1024));
    ring.end();
    rig.end();
}

#[test]
fn memory_off_the_dword_grid_goes_by_sgl_or_by_a_copy() {
    for (sgls, bounced) in [(0, 1), (1, 0), (2, 1)] {
        let rig = Rig::<false>::with(5, Setup { sgls, ..Setup::default() }, quick());
        let mut ring = rig.ring(&seldom());
        let data = pattern(9, 8192);
        let write = ring.write(On::Fd(1), 0, &data, &How::Fixed(3));
        assert_eq!(ring.result(write), 8192);
        assert_eq!(ring.stats().bounced, bounced);
        let read = ring.read(On::Fd(1), 0, 8192, &How::Fixed(0));
        assert_eq!(ring.result(read), 8192);
        assert!(ring.ended[&read].data == data);
        ring.end();
        rig.end();
    }
}

#[test]
fn statuses_keep_their_meaning() {
    let rig = Rig::<false>::with(5, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    ring.register(&[1, 2]).unwrap();
    let cases = [
        (0x281, Errno::ENODATA),
        (0x280, Errno::ENODATA),
        (0x282, Errno::EILSEQ),
        (0x081, Errno::ENOSPC),
        (0x020, Errno::EROFS),
        (0x002, Errno::EOPNOTSUPP),
        (0x006, Errno::EIO),
        (0x007, Errno::ECANCELED),
        (0x083, Errno::EBADE),
        (0x7ff, Errno::EIO),
        (0x4281, Errno::ENODATA),
    ];
    for (status, wanted) in cases {
        for how in [How::Fixed(0), How::Plain(0), How::Vectored(vec![100])] {
            // The second of two commands, where there are two.
            rig.device().lies.rules = vec![Rule::io(Fate::Status(status), 1)];
            let read = ring.read(On::Fixed(1), 8 * 4096, 4096, &how);
            assert_eq!(ring.result(read), errno(wanted), "{status:#x}");
            let failure = ring.stats().last_failure.unwrap();
            assert_eq!(failure.status.code(), status as u8);
            assert_eq!(u16::from(failure.status.code_type()), status >> 8 & 7);
            // The short way keeps no copy of its command.
            let short = matches!(how, How::Fixed(_));
            let command = (failure.opcode, failure.nsid, failure.block);
            assert_eq!(command, if short { (0xff, 0, 0) } else { (2, 2, 8) });
            assert_eq!(failure.queue, 1);
        }
    }
    assert_eq!(ring.stats().failed, 33);
    assert_eq!(rig.controller().recent_errors().1, 33);
    // The second part of a long one.
    rig.device().lies.rules = vec![Rule::io(Fate::Status(0x281), 1).skip(1)];
    let read = ring.read(On::Fd(1), 0, 65536, &How::Fixed(0));
    assert_eq!(ring.result(read), errno(Errno::ENODATA));
    ring.end();
    rig.end();
}
