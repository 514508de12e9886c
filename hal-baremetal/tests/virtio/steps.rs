//! A disk that plays tricks, and two rings that live with it: what the property
//! test draws, and the fuzzer.

use crate::fake::{Fake, Fate, Rule, Wires};
use crate::rig::*;
use annulus::hal::Backend;
use annulus::uapi::*;
use annulus_baremetal::virtio::{Completions, Error, MmioTransport, Options, QueueOptions};
use std::sync::Arc;

/// What happens next to two rings on a disk.
#[derive(Clone, Debug)]
pub enum Step {
    Ask {
        write: bool,
        fixed: bool,
        block: u64,
        blocks: usize,
    },
    Run(usize),
    Poll,
    Wait(u64),
    Fate(Fate),
    Break,
    Grow,
    /// Anything, anywhere in what the device may write of a queue.
    Scribble {
        queue: usize,
        at: usize,
        value: u16,
    },
}

/// Who decides what happens.
pub trait Chance {
    /// A number below this.
    fn below(&mut self, end: usize) -> usize;

    /// What happens next; nothing any more if none.
    fn step(&mut self) -> Option<Step>;

    /// Whether the disk has blocks of 512 bytes, of which there are enough.
    fn usual(&self) -> bool {
        true
    }
}

/// Whatever the device says, every request ends once, no memory is touched
/// that is not the request's, and a device that has come to its senses serves
/// the disk again.
///
/// # Errors
/// The driver has refused the device.
pub fn tell(fake: &Arc<Fake>, chance: &mut impl Chance) -> Result<(), Error> {
    let options = Options { queues: 2, ..quick() };
    let on = disk::<_, false>(fake, MmioTransport::new(Wires::mmio(fake))?, options)?;
    let options = QueueOptions { completions: Completions::Interrupt, ..polled() };
    let one = Side::new(&on, &options, 24)?;
    let mut sides = match Side::new(&on, &options, 24) {
        Ok(other) => [one, other],
        Err(error) => {
            one.end();
            return Err(error);
        }
    };
    let plain = Chunk::new(64 * 512);
    while let Some(step) = chance.step() {
        let side = &mut sides[chance.below(2)];
        match step {
            Step::Ask { write, fixed, block, blocks } if side.asked.contains(&false) => {
                let opcode = match (write, fixed) {
                    (true, true) => IORING_OP_WRITE_FIXED,
                    (false, true) => IORING_OP_READ_FIXED,
                    (true, false) => IORING_OP_WRITE,
                    (false, false) => IORING_OP_READ,
                };
                let at = if fixed { side.buffer.addr() } else { plain.addr() };
                // Beyond the end it ends at once; a dead disk ends all.
                if side.start(Ask::new(opcode, at, blocks * 512, block * 512)).is_ok() {
                    side.kick();
                }
            }
            Step::Ask { .. } => {}
            Step::Run(times) => {
                for _ in 0..times {
                    fake.device().step();
                }
            }
            Step::Poll => side.poll(),
            Step::Wait(ms) => fake.device().now += ms * 1_000_000,
            Step::Fate(fate) => fake.device().rules.push(Rule { kind: None, skip: 0, fate }),
            Step::Break => fake.device().break_down(),
            Step::Grow => {
                let sectors = fake.device().sectors.saturating_add(8);
                fake.device().resize(sectors);
                on.acknowledge();
            }
            Step::Scribble { queue, at, value } => fake.device().scribble(queue, at, value),
        }
    }
    // From here on it is honest, and time passes.
    fake.device().rules.clear();
    fake.device().lies.deaf = false;
    let mut rounds = 0;
    while sides.iter().any(Side::busy) {
        for side in &mut sides {
            side.backend().deadline();
            side.poll();
        }
        fake.device().run();
        fake.device().now += 60_000_000;
        rounds += 1;
        assert!(rounds < 100, "{sides:?}", sides = sides.each_ref().map(|s| &s.backend));
    }
    let honest = fake.device().is_itself() && chance.usual();
    for side in &mut sides {
        side.poll();
        side.ended.clear();
        if !honest {
            continue;
        }
        // What was repeated may lie there still.
        let at = side.buffer.addr();
        let mut tries = 0;
        while side.run(Ask::new(IORING_OP_READ_FIXED, at, 512, 512)) != 512 {
            tries += 1;
            assert!(tries < 3);
        }
        let disk = fake.device().disk[512..1024].to_vec();
        assert!(side.buffer.get(0, 512) == disk);
    }
    let [one, other] = sides;
    one.end();
    other.end();
    Ok(())
}
