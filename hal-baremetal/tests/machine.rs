//! A machine made of threads: cores that sleep, interrupts, memory in pieces.

#![cfg(not(loom))]

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use annulus::errno::Errno;
use annulus::hal::device::{Dma, PAGE, Span};
use annulus::hal::{Clock, Host, Park, Parked};
use annulus::sync::{AtomicU32, Ordering};
use annulus_baremetal::irq::Line;
use annulus_baremetal::{Arena, Machine, Platform};

/// Device addresses are these above the processor's.
const ABOVE: u64 = 1 << 40;

/// Threads as cores. A sleep is a wait for a wake-up with the look in one step;
/// a wake-up while nobody sleeps is forgotten, as an interrupt's is that comes
/// while interrupts are on.
struct Board {
    begin: Instant,
    bed: (Mutex<u32>, Condvar),
    arena: Arena<'static>,
    /// Pages that devices have elsewhere than the others, by address.
    moved: Mutex<BTreeMap<usize, Option<u64>>>,
    /// How often caches were cleaned and invalidated.
    cleaned: [AtomicU32; 2],
}

impl Board {
    fn new() -> Self {
        #[repr(C, align(4096))]
        struct Page(#[allow(dead_code)] [u8; PAGE]);
        let pages = Vec::leak(Vec::from_iter((0..8).map(|_| Page([0xa5; PAGE]))));
        let bytes = std::ptr::from_mut(pages).cast();
        // SAFETY: all of a slice that is leaked, and used so alone.
        let memory = unsafe { std::slice::from_raw_parts_mut(bytes, size_of_val(pages)) };
        Self {
            begin: Instant::now(),
            bed: Default::default(),
            arena: Arena::new(memory),
            moved: Mutex::default(),
            cleaned: [AtomicU32::new(0), AtomicU32::new(0)],
        }
    }

    fn place(&self, page: usize) -> Option<u64> {
        let moved = self.moved.lock().unwrap();
        moved.get(&page).copied().unwrap_or(Some(page as u64 + ABOVE))
    }
}

// SAFETY: no device uses its answers; the arena's memory is its own.
unsafe impl Platform for Board {
    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn device_address(&self, addr: usize) -> Option<Span> {
        let page = addr & !(PAGE - 1);
        let device = self.place(page)? + (addr - page) as u64;
        Some(Span { device, len: PAGE - (addr - page) })
    }

    fn alloc(&self, pages: usize) -> Option<NonNull<u8>> {
        self.arena.alloc(pages)
    }

    unsafe fn free(&self, memory: NonNull<u8>, pages: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.arena.free(memory, pages) }
    }

    fn registers(&self, _: u64, _: usize) -> Option<NonNull<u8>> {
        None
    }

    fn sleep(&self, deadline: Option<u64>, still: &dyn Fn() -> bool) {
        let bed = self.bed.0.lock().unwrap();
        if !still() {
            return;
        }
        let until = deadline.map_or(u64::MAX, |at| at.saturating_sub(self.now()));
        // A wake-up that is lost fails a test, and does not hang it.
        let limit = Duration::from_nanos(until).min(Duration::from_secs(20));
        let (_bed, ended) = self.bed.1.wait_timeout(bed, limit).unwrap();
        assert!(deadline.is_some() || !ended.timed_out(), "a wake-up was lost");
    }

    fn wake(&self) {
        *self.bed.0.lock().unwrap() += 1;
        self.bed.1.notify_all();
    }

    const COHERENT: bool = false;

    fn clean(&self, _: usize, len: usize) {
        self.cleaned[0].fetch_add(len as u32, Ordering::Relaxed);
    }

    fn invalidate(&self, _: usize, len: usize) {
        self.cleaned[1].fetch_add(len as u32, Ordering::Relaxed);
    }
}

const ROUNDS: u32 = if cfg!(miri) { 30 } else { 20_000 };

#[test]
fn sleeps_end_by_the_word_the_line_and_the_clock() {
    let board = Board::new();
    let (machine, line) = (Machine::new(&board), Line::new());
    let host = machine.with_interrupt(&line);
    let word = AtomicU32::new(1);
    assert_eq!(host.park(&word, 2, None), Parked::Woken, "changed before");
    assert_eq!(host.sleep(&word, 2, None), Parked::Woken);
    for at in [0, host.now() + 2_000_000] {
        assert_eq!(host.park(&word, 1, Some(at)), Parked::TimedOut);
        assert_eq!(host.sleep(&word, 1, Some(at)), Parked::TimedOut);
        assert!(host.now() >= at);
    }
    // Raised before: no sleep, and once only.
    line.raise(machine.platform());
    line.raise(machine.platform());
    assert_eq!(host.sleep(&word, 1, None), Parked::Woken);
    assert_eq!(host.sleep(&word, 1, Some(host.now() + 1_000_000)), Parked::TimedOut);
    assert!(!line.take());
    // Nobody sleeps, so nobody is woken.
    let wakes = *board.bed.0.lock().unwrap();
    line.raise(machine.platform());
    assert_eq!(*board.bed.0.lock().unwrap(), wakes);
    assert!(line.take() && !line.take());
}

#[test]
fn no_interrupt_is_lost_between_handler_and_driver() {
    let board = Board::new();
    let (machine, line) = (Machine::new(&board), Line::new());
    let word = AtomicU32::new(0);
    // The device's memory: how many are complete, and how many were fetched.
    let (complete, fetched) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let host = machine.with_interrupt(&line);
            let mut seen = 0;
            while seen < ROUNDS {
                let woken = host.sleep(&word, 0, None);
                assert_eq!(woken, Parked::Woken);
                // Relaxed: the line orders it.
                let now = complete.load(Ordering::Relaxed);
                assert!(now > seen || now == ROUNDS, "woken for nothing, or too early");
                seen = now;
                fetched.store(seen, Ordering::Release);
            }
        });
        for n in 1..=ROUNDS {
            complete.store(n, Ordering::Relaxed);
            line.raise(machine.platform());
            // Every interrupt has to be answered before the next.
            while fetched.load(Ordering::Acquire) < n {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn no_wake_is_lost_between_two_cores() {
    let board = Board::new();
    let (machine, line) = (Machine::new(&board), Line::new());
    let word = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let host = machine.with_interrupt(&line);
            let mut seen = 0;
            while seen < ROUNDS {
                assert_eq!(host.sleep(&word, seen, None), Parked::Woken);
                seen = word.load(Ordering::Acquire);
            }
        });
        let host = machine.with_interrupt(&line);
        for n in 1..=ROUNDS {
            word.store(n, Ordering::Release);
            match n % 3 {
                0 => line.raise(machine.platform()),
                _ => host.rouse(&word),
            }
        }
        host.rouse(&word);
    });
}

#[test]
fn memory_for_devices_is_zeroed_whole_and_comes_back() {
    let board = Board::new();
    let machine = Machine::new(&board);
    let memory = machine.alloc(2 * PAGE + 1).expect("there are eight pages");
    assert_eq!(memory.len, 3 * PAGE);
    assert_eq!(memory.device, memory.ptr.addr().get() as u64 + ABOVE);
    // SAFETY: just allocated.
    let bytes = unsafe { std::slice::from_raw_parts(memory.ptr.as_ptr(), memory.len) };
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!(board.arena.free_pages(), 5);
    assert_eq!(machine.alloc(6 * PAGE).map(|_| ()), Err(Errno::ENOMEM));
    assert_eq!(machine.alloc(usize::MAX).map(|_| ()), Err(Errno::ENOMEM));
    // SAFETY: nobody uses it.
    unsafe { machine.free(memory) };
    assert_eq!(board.arena.free_pages(), 8);

    // Memory that is in pieces for devices is none for them.
    let memory = machine.alloc(8 * PAGE).unwrap();
    let second = memory.ptr.addr().get() + PAGE;
    // SAFETY: as above.
    unsafe { machine.free(memory) };
    for place in [None, Some(0x1000)] {
        board.moved.lock().unwrap().insert(second, place);
        assert_eq!(machine.alloc(2 * PAGE).map(|_| ()), Err(Errno::EFAULT));
        assert_eq!(board.arena.free_pages(), 8);
    }
}

#[test]
fn a_mapping_is_one_piece_where_it_can_be() {
    let board = Board::new();
    let machine = Machine::new(&board);
    let base = 0x10_0000;
    // SAFETY: nothing is accessed.
    let map = |addr, len| unsafe { machine.map(addr, len) };
    let one = map(base + 100, 3 * PAGE).unwrap();
    let span = machine.span(&one, base + 300);
    assert_eq!(span, Span { device: base as u64 + ABOVE + 300, len: 4 * PAGE - 300 });

    // Now the second page is elsewhere for devices.
    board.moved.lock().unwrap().insert(base + PAGE, Some(0x7000));
    let several = map(base + 100, 3 * PAGE).unwrap();
    let at = |addr| machine.span(&several, addr);
    assert_eq!(at(base + 100), Span { device: base as u64 + ABOVE + 100, len: PAGE - 100 });
    assert_eq!(at(base + PAGE + 8), Span { device: 0x7008, len: PAGE - 8 });
    assert_eq!(at(base + 2 * PAGE).device, (base + 2 * PAGE) as u64 + ABOVE);
    // One page only.
    assert_eq!(machine.span(&map(base + PAGE, 9).unwrap(), base + PAGE + 4).device, 0x7004);

    // And the third is nothing for them.
    board.moved.lock().unwrap().insert(base + 2 * PAGE, None);
    assert_eq!(map(base + 100, 3 * PAGE).map(|_| ()), Err(Errno::EFAULT));
    assert_eq!(map(base + 2 * PAGE, 1).map(|_| ()), Err(Errno::EFAULT));
    assert!(map(base, 2 * PAGE).is_ok());
    assert_eq!(map(base, 0).map(|_| ()), Err(Errno::EFAULT));
    assert_eq!(map(usize::MAX - 5, 10).map(|_| ()), Err(Errno::EFAULT));
}

#[test]
fn caches_are_kept_where_devices_bypass_them() {
    let board = Board::new();
    let machine = Machine::new(&board);
    const { assert!(<Machine<&Board> as Dma>::NEEDS_SYNC) };
    machine.sync_for_device(0x1000, 7);
    machine.sync_for_cpu(0x1000, 9);
    let counts = [0, 1].map(|which| board.cleaned[which].load(Ordering::Relaxed));
    assert_eq!(counts, [7, 9]);
}

#[test]
fn a_little_time_passes() {
    let board = Board::new();
    let machine = Machine::new(&board);
    let before = machine.now();
    machine.relax();
    assert!(machine.now() - before >= 10_000);
}

#[test]
fn a_removable_machine_hears_the_wish() {
    use annulus_baremetal::virtio::Platform as _;

    let board = Board::new();
    let leave = annulus_baremetal::pci::Leave::new();
    let machine = Machine::new(&board).removable(&leave);
    assert!(!machine.leaving());
    leave.ask();
    assert!(machine.leaving());
    let memory = machine.alloc(PAGE).expect("it is a machine all the same");
    assert_eq!(board.arena.free_pages(), 7);
    // SAFETY: nobody uses it.
    unsafe { machine.free(memory) };
    assert_eq!(board.arena.free_pages(), 8);
    machine.relax();
}
