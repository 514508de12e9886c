//! An NVMe controller that lies: its capabilities, its identify data, its
//! registers at any read, its completion queues at any word.
#![no_main]

#[path = "../../../core/tests/nvme/fake/mod.rs"]
#[allow(dead_code)] // shared with core's tests
mod fake;
#[path = "../../../core/tests/nvme/rig.rs"]
#[allow(dead_code, unused_imports)] // as above
mod rig;
#[path = "../../../core/tests/nvme/ring.rs"]
#[allow(dead_code)] // as above
mod ring;
#[path = "../../../core/tests/nvme/tricks.rs"]
mod tricks;

use std::cell::RefCell;

use annulus_fuzz::Bytes;
use libfuzzer_sys::fuzz_target;

use fake::{Aborts, Fake, Fate, Rule, Setup};
use tricks::{Chance, Kind, Trick, tell};

fuzz_target!(
    init: annulus_fuzz::select_fault(),
    |data: &[u8]| run(Bytes::new(data))
);

/// The most tricks of a story.
const TRICKS: u32 = 60;

thread_local! {
    /// What is wrong in identify data: kind, place, byte.
    static PATCHES: RefCell<Vec<(u32, usize, u8)>> = const { RefCell::new(Vec::new()) };
}

fn patch(cns: u32, data: &mut [u8]) {
    PATCHES.with_borrow(|patches| {
        for &(_, at, byte) in patches.iter().filter(|patch| patch.0 == cns) {
            data[at] = byte;
        }
    });
}

/// Where identify data say something that a driver looks at, by their kind.
fn place(cns: u32, bytes: &Bytes) -> usize {
    const CONTROLLER: [usize; 14] =
        [4, 77, 256, 257, 258, 259, 512, 513, 516, 519, 520, 525, 536, 537];
    const NAMESPACE: [usize; 14] = [0, 5, 7, 8, 15, 25, 26, 27, 29, 33, 99, 128, 129, 130];
    match bytes.u8() {
        at @ 0..224 => {
            (if cns == 1 { CONTROLLER } else { NAMESPACE })[usize::from(at) % CONTROLLER.len()]
        }
        _ => bytes.below(4096),
    }
}

fn setup(bytes: &Bytes) -> Setup {
    let mut setup = Setup::default();
    let [kind, patches] = bytes.take();
    if kind & 1 != 0 {
        setup.mqes = bytes.u16();
    }
    if kind & 2 != 0 {
        [setup.dstrd, setup.css, setup.mpsmin] = bytes.take().map(|byte| byte & 15);
    }
    if kind & 4 != 0 {
        let cap = bytes.u64();
        // Its doorbells are where it says.
        setup.dstrd = (cap >> 32 & 15) as u8;
        setup.cap = Some(cap);
    }
    if kind & 8 != 0 {
        setup.window = 4 * bytes.below(1 << 12);
    }
    if kind & 16 != 0 {
        [setup.mdts, setup.acl, setup.aerl] = bytes.take();
        setup.pairs = 1 + (bytes.u16() & 7);
    }
    (setup.sgls, setup.vwc) = (kind >> 5 & 3, kind & 128 != 0);
    let patches = (0..patches & 7).map(|_| {
        let cns = u32::from(bytes.u8() % 3);
        (cns, place(cns, bytes), bytes.u8())
    });
    PATCHES.set(patches.collect());
    setup.identify = Some(patch);
    setup
}

/// The decisions, out of the bytes.
struct Told {
    bytes: Bytes,
    left: u32,
}

impl Chance for Told {
    fn below(&mut self, end: usize) -> usize {
        self.bytes.below(end)
    }

    fn trick(&mut self) -> Option<Trick> {
        if self.bytes.is_empty() {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let bytes = &self.bytes;
        let cid = || match bytes.u8() {
            byte @ 0..192 => u16::from(byte >> 4) << 12 | u16::from(byte & 15),
            _ => bytes.u16(),
        };
        Some(match bytes.u8() % 20 {
            0..4 => Trick::Run(1 + u32::from(bytes.u8() % 20)),
            4 | 5 => Trick::Post {
                queue: u16::from(bytes.u8() % 3),
                dword0: bytes.u32(),
                cid: cid(),
                status: bytes.u16(),
            },
            6 => Trick::Lie { status: bytes.u16() & 0x7fff },
            7 => Trick::Old(bytes.u16()),
            8 => Trick::Storm(1 + bytes.u16() % 200),
            9 => Trick::Rule(Rule {
                admin: bytes.flag(),
                opcode: bytes.flag().then(|| bytes.u8() & 15),
                fate: match bytes.flag() {
                    true => Fate::Lost,
                    false => Fate::Status(bytes.u16() & 0x7fff),
                },
                left: 1 + u32::from(bytes.u8() & 3),
                skip: u32::from(bytes.u8() & 3),
            }),
            10 => Trick::Aborts(
                [Aborts::Work, Aborts::Ignored, Aborts::TooLate, Aborts::Lost][bytes.below(4)],
            ),
            11 => Trick::Event(bytes.u32()),
            12 => Trick::Fatal(bytes.flag()),
            13 => Trick::Hold(bytes.flag()),
            14 => Trick::Time(1 + u64::from(bytes.u8())),
            15 => Trick::NoRead,
            16 => Trick::Shadow(bytes.u32()),
            17 => Trick::Garble { after: bytes.below(16), bits: bytes.odd(0) },
            _ => Trick::Scribble {
                queue: u16::from(bytes.u8() % 3),
                word: bytes.below(1024),
                value: match bytes.flag() {
                    true => bytes.u32(),
                    // With either phase tag: the end of something.
                    false => u32::from(bytes.flag()) << 16 | u32::from(cid()),
                },
            },
        })
    }
}

fn run(bytes: Bytes) {
    let [seed, kind, ending, garbled] = bytes.take();
    let fake = Fake::new(seed.into(), setup(&bytes));
    {
        let mut device = fake.device();
        device.lies.wild = true;
        // It may say that it takes minutes.
        device.relax = rig::LONG;
        let wrong = (0..garbled & 15).map(|_| if bytes.flag() { bytes.u32() } else { 0 });
        device.lies.garbled.extend(wrong);
    }
    let kind = Kind { completions: kind % 3, shadow: kind & 64 != 0, ending: ending & 3 };
    let garbled = garbled & 15 != 0;
    let mut told = Told { bytes, left: TRICKS };
    let _ = tell(&fake, kind, &mut told);
    // A controller that is not what it says it is: it moves other amounts than
    // it was asked for, and does not know what it has offered.
    let patched = PATCHES.with_borrow(|patches| !patches.is_empty());
    // Who has been told that a device is quiet which is not cannot be blamed.
    if patched || garbled || fake.device().garbled {
        let mut device = fake.device();
        device.faults.clear();
        device.memory.faults.clear();
    } else {
        fake.check();
    }
}
