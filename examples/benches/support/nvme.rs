//! A controller that has answered before one can look, as far as a count of
//! the driver's instructions needs one: it works only when it is told to, so
//! that its own instructions are not counted.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use annulus::errno::Errno;
use annulus::hal::Clock;
use annulus::hal::device::{Coherent, Dma, Mmio, PAGE, Span};
use annulus::nvme::Platform;

/// Registers and doorbells (PCIe Transport, section 3.1).
const CAP: usize = 0x00;
const VERSION: usize = 0x08;
const CC: usize = 0x14;
const CSTS: usize = 0x1c;
const ASQ: usize = 0x28;
const ACQ: usize = 0x30;
const DOORBELLS: usize = 0x1000;

/// A queue, as the device has it.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    base: u64,
    entries: u32,
    /// Its own position.
    at: u32,
    phase: bool,
}

/// The device, its memory, and its place.
#[derive(Debug, Default)]
pub struct Ready {
    registers: RefCell<Vec<u32>>,
    /// Admin and one I/O pair: submission and completion queue of each.
    queues: [[Cell<Queue>; 2]; 2],
    /// As the driver has written them, in this order.
    doorbells: [Cell<u32>; 4],
}

// SAFETY: a benchmark has one thread.
unsafe impl Sync for Ready {}

impl Ready {
    /// A controller with queues of 1,024 entries and one namespace of a TiB.
    pub fn new() -> Self {
        let ready = Self { registers: RefCell::new(vec![0; 0x1000 / 4]), ..Self::default() };
        // Queue entries 0's based, contiguous, half a second, NVM commands.
        let capabilities: u64 = 1023 | 1 << 16 | 1 << 24 | 1 << 37;
        ready.set(CAP, capabilities as u32);
        ready.set(CAP + 4, (capabilities >> 32) as u32);
        ready.set(VERSION, 0x2_0000);
        ready
    }

    fn get(&self, offset: usize) -> u32 {
        self.registers.borrow()[offset / 4]
    }

    fn set(&self, offset: usize, value: u32) {
        self.registers.borrow_mut()[offset / 4] = value;
    }

    /// Carries out what the I/O queue has.
    pub fn run(&self) {
        self.work(1);
    }

    fn work(&self, pair: usize) {
        let [submission, completion] = &self.queues[pair];
        let (mut sq, mut cq) = (submission.get(), completion.get());
        while sq.at != self.doorbells[2 * pair].get() {
            let entry = (sq.base as usize + sq.at as usize * 64) as *const u32;
            // SAFETY: the driver's queue, whose memory is never freed here.
            let command: [u32; 16] = unsafe { entry.cast::<[u32; 16]>().read_volatile() };
            if pair == 0 {
                self.admin(&command);
            }
            let answer = (cq.base as usize + cq.at as usize * 16) as *mut u32;
            let phase = u32::from(!cq.phase) << 16;
            // SAFETY: as above.
            unsafe {
                answer.write_volatile(0);
                answer.add(3).write_volatile(command[0] >> 16 | phase);
            }
            sq.at = (sq.at + 1) % sq.entries;
            cq.at += 1;
            if cq.at == cq.entries {
                (cq.at, cq.phase) = (0, !cq.phase);
            }
        }
        submission.set(sq);
        completion.set(cq);
    }

    fn admin(&self, command: &[u32; 16]) {
        let data = (u64::from(command[6]) | u64::from(command[7]) << 32) as *mut u8;
        let entries = (command[10] >> 16) + 1;
        let queue = Queue { base: data as u64, entries, ..Queue::default() };
        match command[0] & 0xff {
            0x05 => self.queues[1][1].set(queue),
            0x01 => self.queues[1][0].set(queue),
            // SAFETY: the driver's page for it.
            0x06 => unsafe {
                if command[10] == 1 {
                    // Entries of 64 and 16 bytes, one namespace.
                    data.add(512).write(0x66);
                    data.add(513).write(0x44);
                    data.add(516).write(1);
                } else {
                    // 2^31 blocks, one format, of 512 bytes.
                    data.cast::<u64>().write_unaligned(1 << 31);
                    data.add(130).write(9);
                }
            },
            _ => {}
        }
    }
}

impl Mmio for Ready {
    fn len(&self) -> usize {
        0x2000
    }

    #[inline(always)]
    fn read32(&self, offset: usize) -> u32 {
        self.get(offset)
    }

    #[inline(always)]
    fn write32(&self, offset: usize, value: u32) {
        if offset >= DOORBELLS {
            // One store, as to a real register.
            let number = (offset - DOORBELLS) / 4;
            self.doorbells[number].set(value);
            if number == 0 {
                self.work(0);
            }
            return;
        }
        self.configure(offset, value);
    }
}

impl Ready {
    #[cold]
    fn configure(&self, offset: usize, value: u32) {
        self.set(offset, value);
        if offset == CC {
            self.set(CSTS, value & 1);
            for (number, at) in [ASQ, ACQ].into_iter().enumerate() {
                let base = u64::from(self.get(at)) | u64::from(self.get(at + 4)) << 32;
                self.queues[0][number].set(Queue { base, entries: 32, ..Queue::default() });
            }
        }
    }
}

/// A mapping of memory to itself.
// SAFETY: what is called the device's address is the byte's own.
unsafe impl Dma for Ready {
    type Buffer = usize;

    fn alloc(&self, len: usize) -> Result<Coherent, Errno> {
        #[derive(Clone)]
        #[repr(C, align(4096))]
        struct Page([u8; PAGE]);
        let pages = vec![Page([0; PAGE]); len.div_ceil(PAGE)].leak();
        let ptr = NonNull::from(&mut pages[0]).cast();
        Ok(Coherent { ptr, device: ptr.as_ptr() as u64, len: size_of_val(pages) })
    }

    unsafe fn free(&self, _: Coherent) {}

    unsafe fn map(&self, _: usize, len: usize) -> Result<usize, Errno> {
        Ok(len)
    }

    fn unmap(&self, _: usize) {}

    #[inline(always)]
    fn span(&self, &len: &usize, addr: usize) -> Span {
        Span { device: addr as u64, len }
    }
}

impl Clock for Ready {
    fn now(&self) -> u64 {
        0
    }
}

impl Platform for Ready {
    fn relax(&self) {}

    fn isolate(&self) -> bool {
        true
    }

    fn reset_function(&self) -> bool {
        true
    }
}
