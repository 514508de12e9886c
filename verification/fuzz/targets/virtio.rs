//! A virtio disk that lies: its registers and configuration space when it is
//! set up, and its queues at any half word.
#![no_main]

#[path = "../../../hal-baremetal/tests/virtio/fake/mod.rs"]
#[allow(dead_code, unused_imports)] // shared with the driver's tests
mod fake;
#[path = "../../../hal-baremetal/tests/virtio/rig.rs"]
#[allow(dead_code, unused_imports)] // as above
mod rig;
#[path = "../../../hal-baremetal/tests/virtio/steps.rs"]
mod steps;

use annulus_fuzz::Bytes;
use libfuzzer_sys::fuzz_target;

use fake::{Fake, Fate, Lie, Setup, bit};
use steps::{Chance, Step, tell};

fuzz_target!(
    init: annulus_fuzz::select_fault(),
    |data: &[u8]| run(Bytes::new(data))
);

/// The most steps of a story.
const STEPS: u32 = 60;
/// Blocks of the usual disk.
const LARGEST: u64 = 256;

/// A disk, and whether it is one of the usual kind.
fn setup(bytes: &Bytes) -> (Setup, bool) {
    let mut setup = Setup { queue_size: 64, ..Setup::default() };
    let [layout, odd] = bytes.take();
    let without = [
        bit::PACKED,
        bit::INDIRECT,
        bit::EVENT_IDX,
        bit::SEG_MAX,
        bit::CONFIG_WCE,
        bit::MQ,
        bit::WRITE_ZEROES,
        bit::DISCARD,
    ];
    for (n, feature) in without.into_iter().enumerate() {
        setup.features &= if layout >> n & 1 != 0 { !feature } else { !0 };
    }
    if odd & 1 != 0 {
        setup.features ^= bytes.u64();
    }
    if odd & 2 != 0 {
        setup.refused = bytes.u64();
    }
    if odd & 4 != 0 {
        (setup.queues, setup.queue_size) = (1 + (bytes.u16() & 15), bytes.u16());
    }
    if odd & 8 != 0 {
        (setup.sectors, setup.block) = (bytes.u64(), bytes.odd(512));
    }
    if odd & 16 != 0 {
        (setup.segments, setup.segment_bytes) = (bytes.odd(4), bytes.odd(4096));
        setup.features |= bit::SIZE_MAX;
    }
    if odd & 32 != 0 {
        (setup.max_discard, setup.max_zeroes) = (bytes.u32(), bytes.u32());
    }
    if odd & 64 != 0 {
        (setup.device_type, setup.version) = (bytes.odd(2), bytes.odd(2));
        setup.vectors = bytes.u16();
    }
    if odd & 128 != 0 {
        setup.restless_config = u32::from(bytes.u8());
    }
    (setup, odd == 0)
}

/// The decisions, out of the bytes.
struct Told {
    bytes: Bytes,
    left: u32,
    usual: bool,
}

impl Chance for Told {
    fn below(&mut self, end: usize) -> usize {
        self.bytes.below(end)
    }

    fn usual(&self) -> bool {
        self.usual
    }

    fn step(&mut self) -> Option<Step> {
        if self.bytes.is_empty() {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let bytes = &self.bytes;
        Some(match bytes.u8() % 16 {
            0..5 => {
                let kind = bytes.u8();
                Step::Ask {
                    write: kind & 1 != 0,
                    fixed: kind & 2 != 0,
                    block: bytes.u64() % LARGEST >> (kind >> 4 & 7),
                    blocks: 1 + usize::from(kind >> 2) % 40,
                }
            }
            5..8 => Step::Run(1 + bytes.below(5)),
            8..10 => Step::Poll,
            10 => Step::Wait(1 + u64::from(bytes.u8())),
            11 => Step::Fate(match bytes.u8() % 8 {
                0 => Fate::Status(bytes.u8()),
                1 => Fate::Lost,
                2 | 3 => Fate::Lie(Lie::Id(bytes.odd(32))),
                4 => Fate::Lie(Lie::Length(bytes.odd(513))),
                5 => Fate::Lie(Lie::Index(bytes.odd(4) as u16)),
                6 => Fate::Lie(Lie::NoStatus),
                _ => Fate::Lie(Lie::Twice),
            }),
            12 => match bytes.u8() & 3 {
                0 => Step::Break,
                _ => Step::Grow,
            },
            _ => {
                let queue = usize::from(bytes.u8() & 1);
                Step::Scribble { queue, at: bytes.below(1024), value: bytes.odd(1) as u16 }
            }
        })
    }
}

fn run(bytes: Bytes) {
    let seed = bytes.u8().into();
    let (setup, usual) = setup(&bytes);
    let fake = Fake::new(seed, setup);
    let _ = tell(&fake, &mut Told { bytes, left: STEPS, usual });
    let stuck = fake.device().stuck;
    if !stuck {
        fake.check();
    }
}
