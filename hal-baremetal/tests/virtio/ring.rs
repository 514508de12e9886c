//! Whole rings on the fake: an engine, that sleeps between interrupts.

use crate::fake::{Fake, Mmio, Plug, Setup, bit, mmio};
use crate::rig::*;
use annulus::config::{Config, Footprint};
use annulus::engine::{EnterFlags, Memory, Parts, RingMemory, build};
use annulus::hal::{Clock, Host, Park, Parked};
use annulus::opcode;
use annulus::register::Call;
use annulus::sync::{AtomicU32, Ordering};
use annulus::types::{Fd, Fixed};
use annulus_baremetal::virtio::{Completions, DiskBackend, QueueOptions, Tracker, Vectors};
use std::ptr::NonNull;
use std::sync::Arc;

/// The machine that a ring runs on: its sleeper lets the device work, or lets
/// the time pass that it asked for.
pub struct Place(Arc<Fake>);

impl Clock for Place {
    fn now(&self) -> u64 {
        Plug::<false>(self.0.clone()).now()
    }
}

impl Park for Place {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        if word.load(Ordering::Relaxed) != expected {
            return Parked::Woken;
        }
        let now = self.now();
        let mut device = self.0.device();
        while device.regs.interrupt == 0 && device.step() {}
        if std::mem::take(&mut device.regs.interrupt) != 0 {
            return Parked::Woken;
        }
        device.now = now.max(deadline.expect("it sleeps, and nothing will wake it"));
        device.slept += 1;
        Parked::TimedOut
    }

    fn unpark(&self, _: &AtomicU32) {}
}

impl Host for Place {}

pub type Backend = DiskBackend<'static, Plug, Mmio, Shared<Mmio, false>>;

fn memory(bytes: usize) -> Memory<'static> {
    let lent = std::mem::ManuallyDrop::new(Chunk::new(bytes));
    // SAFETY: leaked, so exclusively the ring's for ever.
    unsafe { Memory::from_raw(NonNull::new(lent.pointer()).unwrap(), bytes) }
}

/// Room for vectors of [`ring`]'s.
pub const ROOM: usize = 2;

/// A ring of eight requests on a disk of its own.
pub fn ring(
    fake: &Arc<Fake>,
    options: &QueueOptions,
) -> (Parts<'static, Backend, Place>, Shared<Mmio, false>) {
    let on = disk::<_, false>(fake, mmio(fake), quick()).unwrap();
    let requests = 8;
    let config = Config::new(16).requests(requests).files(1).buffers(1).provided(4, 1);
    let config = config.submit_all(true);
    let trackers: Box<[_]> = (0..=requests).map(|_| Tracker::new()).collect();
    let vectors: Box<[_]> = (0..ROOM).map(|_| Vectors::new()).collect();
    let backend: Backend =
        DiskBackend::new(on.clone(), options, Box::leak(trackers), Box::leak(vectors)).unwrap();
    let need = Footprint::of::<Backend, Place>(&config);
    let (engine, rings) = (memory(need.engine()), RingMemory::At(memory(need.rings)));
    let parts = build(&config, engine, rings, Place(fake.clone()), |_| backend).unwrap();
    (parts, on)
}

/// Writes everything and reads it back, through sleeps.
fn all_of_it(fake: &Arc<Fake>, completions: Completions) {
    let (mut parts, on) = ring(fake, &QueueOptions { completions, ..polled() });
    let buffer = Chunk::new(REGISTERED);
    let whole = iovec(buffer.addr(), REGISTERED);
    // SAFETY: the chunk outlives the ring.
    unsafe {
        parts.engine.call(Call::RegisterBuffers(&[whole])).unwrap();
        parts.engine.call(Call::RegisterFiles(&[0])).unwrap();
    }
    let plain = Chunk::new(8 * 4096);
    let data = noise(5, 16 * 4096);
    for write in [true, false] {
        for round in 0..2u64 {
            for n in 0..8u64 {
                let at = (round * 8 + n) * 4096;
                let here = (n * 4096) as usize;
                let chunk = if n % 2 == 0 { &buffer } else { &plain };
                let pointer = chunk.pointer().wrapping_add(here);
                if write {
                    chunk.put(here, &data[at as usize..][..4096]);
                }
                let entry = match (write, n % 2) {
                    (true, 0) => {
                        opcode::WriteFixed::new(Fixed(0), pointer, 4096, 0).offset(at).build()
                    }
                    (true, _) => opcode::Write::new(Fd(0), pointer, 4096).offset(at).build(),
                    (false, 0) => {
                        opcode::ReadFixed::new(Fixed(0), pointer, 4096, 0).offset(at).build()
                    }
                    (false, _) => opcode::Read::new(Fd(0), pointer, 4096).offset(at).build(),
                };
                // SAFETY: the memory stays until the completion.
                unsafe { parts.sq.queue().push(&entry.user_data(n)) }.unwrap();
            }
            let mut left = 8;
            let mut submit = 8;
            while left != 0 {
                let flags = EnterFlags::GETEVENTS;
                submit -= parts.engine.enter(submit, 1, flags, None).unwrap();
                for cqe in parts.cq.queue() {
                    assert_eq!(cqe.result(), 4096);
                    left -= 1;
                }
            }
            for n in 0..8usize {
                let chunk = if n % 2 == 0 { &buffer } else { &plain };
                let at = (round as usize * 8 + n) * 4096;
                assert!(chunk.get(n * 4096, 4096) == data[at..][..4096]);
            }
        }
        assert!(fake.device().disk[..data.len()] == data);
    }
    assert_eq!(fake.device().slept, 0, "every sleep was ended by an interrupt");
    drop(parts);
    drop(on);
    fake.check();
}

#[test]
fn rings_sleep_until_they_are_interrupted() {
    for bits in [0, bit::EVENT_IDX, bit::PACKED, bit::PACKED | bit::EVENT_IDX] {
        for completions in [Completions::Interrupt, Completions::Adaptive] {
            let setup = Setup::default();
            let features = setup.features & !bits;
            let fake = fake(Setup { features, queue_size: 8, ..setup });
            all_of_it(&fake, completions);
            if cfg!(miri) {
                break;
            }
        }
    }
}
