//! A controller that plays tricks, and a ring that lives with it: what the
//! property test draws, and the fuzzer.

use crate::fake::{Aborts, Fake, Rule};
use crate::rig::*;
use annulus::nvme::{Completions, Error, Options, QueueOptions};
use std::sync::Arc;

/// What a hostile device does between two turns.
#[derive(Clone, Debug)]
pub enum Trick {
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
    /// Bits that are wrong in one of the next reads of registers.
    Garble {
        after: usize,
        bits: u32,
    },
    /// Anything, anywhere in a completion queue's memory.
    Scribble {
        queue: u16,
        word: usize,
        value: u32,
    },
}

/// Who decides what happens.
pub trait Chance {
    /// A number below this.
    fn below(&mut self, end: usize) -> usize;

    /// What the device does next; nothing any more if none.
    fn trick(&mut self) -> Option<Trick>;
}

/// What a story is like as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub completions: u8,
    pub shadow: bool,
    pub ending: u8,
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
        Trick::Garble { after, bits } => {
            device.lies.garbled.resize(*after, 0);
            device.lies.garbled.push_back(*bits);
        }
        Trick::Scribble { queue, word, value } => device.scribble(*queue, *word, *value),
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

/// Whatever the device does, each request ends, once, and the driver comes to
/// its end.
///
/// # Errors
/// The driver has refused the device from the start.
pub fn tell(fake: &Arc<Fake>, kind: Kind, chance: &mut impl Chance) -> Result<(), Error> {
    let options = Options { shadow_doorbells: kind.shadow, ..quick() };
    let rig = Rig::<false>::try_with(fake.clone(), options)?;
    rig.device().relax = LONG;
    rig.device().lies.wild = true;
    let options = QueueOptions {
        depth: 7,
        completions: match kind.completions {
            0 => Completions::Polled,
            1 => Completions::Interrupt(1),
            _ => Completions::Adaptive(1),
        },
        ..seldom()
    };
    let mut ring = rig.try_ring(&options, 12)?;
    let mut submitted = 0;
    while let Some(trick) = chance.trick() {
        for _ in 0..chance.below(4) {
            if ring.in_flight() > 10 {
                break;
            }
            submitted += 1;
            let how = match chance.below(3) {
                0 => How::Fixed(0),
                1 => How::Plain(chance.below(64)),
                _ => How::Vectored(vec![chance.below(600), 1]),
            };
            let (pos, len) = (chance.below(64) as u64 * 4096, 4096 << chance.below(4));
            match chance.below(8) {
                0 => ring.fsync(On::Fd(1)),
                1 => ring.fallocate(2, FALLOC_FL_ZERO_RANGE, 0, 4096),
                2 | 3 => ring.write(On::Fd(2), pos, &pattern(pos, len), &how),
                _ => ring.read(On::Fd(1), pos % 131072, len, &how),
            };
        }
        ring.turn();
        play(&rig, &mut ring, &trick);
        ring.turn();
        rig.fake.patience();
    }
    // It is removed, or comes to its senses, or never does.
    match kind.ending {
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
    assert_eq!(ring.results().len(), submitted);
    ring.end();
    drop(rig);
    Ok(())
}
