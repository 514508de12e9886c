//! Making rings: configurations and memory, good and bad.
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, ConfigError, Footprint};
use annulus::engine::{RingMemory, StaticMemory, build};
use annulus::ring::Layout;
use common::*;

const CONFIG: Config = Config::new(64).requests(64);
const FOOTPRINT: Footprint = Footprint::of::<Disk<'static>, Place>(&CONFIG);

// The bound: a 64-entry ring with 64 requests in at most 32 KiB.
const _: () = assert!(FOOTPRINT.total() <= 32 * 1024);

static MEMORY: StaticMemory<{ FOOTPRINT.total() }> = StaticMemory::new();

#[test]
fn the_footprint_is_the_sum_of_its_items() {
    let f = FOOTPRINT;
    let items = [
        f.rings,
        f.control,
        f.slots,
        f.records,
        f.outcomes,
        f.free,
        f.held,
        f.file_places,
        f.files_detached,
        f.buffer_places,
        f.buffers_detached,
        f.provided,
    ];
    assert_eq!(f.total(), items.iter().sum());
    // 12 lines of indices, 128 CQEs, 64 index words, 64 SQEs.
    assert_eq!(f.rings, 12 * 64 + 128 * 16 + 64 * 4 + 64 * 64);
}

#[test]
fn a_ring_lives_in_a_static() {
    let memory = MEMORY.take().unwrap();
    let host = TestHost::new();
    let log = Default::default();
    let mut parts = build(&CONFIG, memory, RingMemory::Inside, Place(host), |completer| {
        Disk::new(log, completer)
    })
    .unwrap();
    push(&mut parts.sq, &[nop(1)]);
    parts.engine.enter(1, 1, annulus::engine::EnterFlags::GETEVENTS, None).unwrap();
    assert_eq!(parts.cq.queue().next().unwrap().user_data(), 1);
    assert!(MEMORY.take().is_none());
}

#[test]
fn rings_may_lie_apart_in_either_layout() {
    for layout in [Layout::Padded, Layout::Uapi] {
        let config = Config::new(4).layout(layout);
        let need = Footprint::of::<Disk<'static>, Place>(&config);
        let mut parts = build(
            &config,
            memory(need.engine()),
            RingMemory::At(memory(need.rings)),
            Place(TestHost::new()),
            |completer| Disk::new(Default::default(), completer),
        )
        .unwrap();
        push(&mut parts.sq, &[nop(1), nop(2)]);
        assert_eq!(parts.engine.enter(2, 2, annulus::engine::EnterFlags::GETEVENTS, None), Ok(2));
        assert_eq!(parts.cq.queue().count(), 2);
    }
}

#[test]
fn bad_numbers_say_what_would_be_right() {
    let error = |config: Config| config.validate().unwrap_err();
    assert_eq!(error(Config::new(0)), ConfigError::Zero { what: "the number of SQ entries" });
    let six = error(Config::new(6));
    assert_eq!(six.to_string(), "the number of SQ entries must be a power of two: 6 is not, use 8");
    assert!(matches!(error(Config::new(1 << 16)), ConfigError::TooLarge { most: 32768, .. }));
    assert!(matches!(
        error(Config::new(8).cq_entries(4)),
        ConfigError::CqSmallerThanSq { sq: 8, cq: 4 }
    ));
    assert!(matches!(error(Config::new(8).cq_entries(12)), ConfigError::NotPowerOfTwo { .. }));
    assert!(matches!(error(Config::new(8).requests(0)), ConfigError::Zero { .. }));
    assert!(matches!(error(Config::new(8).requests(40_000)), ConfigError::TooLarge { .. }));
    assert!(matches!(error(Config::new(8).files(1 << 21)), ConfigError::TooLarge { .. }));
    assert!(Config::new(8).cq_entries(8).validate().is_ok());
}

#[test]
fn memory_too_small_or_askew_is_refused() {
    let need = FOOTPRINT.total();
    let make = |memory| {
        build(&CONFIG, memory, RingMemory::Inside, Place(TestHost::new()), |completer| {
            Disk::new(Default::default(), completer)
        })
        .map(|_| ())
    };
    let small = make(memory(need - 64)).unwrap_err();
    assert!(matches!(small, ConfigError::MemoryTooSmall { .. }), "{small}");
    let bytes = Box::leak(Box::<[u8]>::new_uninit_slice(need + 128));
    let at = (64 - bytes.as_ptr() as usize % 64) + 8;
    let askew = make(annulus::engine::Memory::new(&mut bytes[at..])).unwrap_err();
    assert!(matches!(askew, ConfigError::Misaligned { need: 64, .. }), "{askew}");
}
