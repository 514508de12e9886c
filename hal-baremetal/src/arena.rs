//! Pages for devices, out of memory that the image sets aside.

#[cfg(not(loom))]
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use annulus::hal::device::PAGE;
use annulus::sync::Mutex;
#[cfg(not(loom))]
use annulus::sync::{AtomicU32, Ordering};

/// `N` pages in a `static`, for an [`Arena`].
///
/// ```
/// use annulus_baremetal::Pages;
///
/// static MEMORY: Pages<64> = Pages::new();
/// let arena = MEMORY.take().expect("taken once");
/// assert_eq!(arena.free_pages(), 64);
/// ```
#[cfg(not(loom))]
#[repr(C, align(4096))]
pub struct Pages<const N: usize> {
    bytes: UnsafeCell<[[MaybeUninit<u8>; PAGE]; N]>,
    taken: AtomicU32,
}

// SAFETY: the bytes are handed out once, by `take`.
#[cfg(not(loom))]
unsafe impl<const N: usize> Sync for Pages<N> {}

#[cfg(not(loom))]
impl<const N: usize> Pages<N> {
    /// Untaken pages. They take no room in the image's file.
    pub const fn new() -> Self {
        Self {
            bytes: UnsafeCell::new([const { [const { MaybeUninit::uninit() }; PAGE] }; N]),
            taken: AtomicU32::new(0),
        }
    }

    /// An arena of the pages, the first time.
    pub fn take(&'static self) -> Option<Arena<'static>> {
        // Relaxed: only one caller sees 0, and the bytes carry nothing yet.
        if self.taken.swap(1, Ordering::Relaxed) != 0 {
            return None;
        }
        // SAFETY: nobody else has them or will have them, for ever.
        Some(Arena::new(unsafe { &mut *self.bytes.get() }.as_flattened_mut()))
    }
}

#[cfg(not(loom))]
impl<const N: usize> Default for Pages<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives out pages of a region and takes them back, in any order.
///
/// What is free is a list of runs in order of their addresses, each described
/// in its own first bytes: the arena needs nothing besides the region and
/// wastes nothing of it. First fit; what comes back is joined with its
/// neighbours. For set-up and tear-down, not for every request: the list is
/// walked, under a lock. Not for interrupt handlers.
#[derive(Debug)]
pub struct Arena<'m> {
    list: Mutex<List>,
    _memory: PhantomData<&'m mut [u8]>,
}

#[derive(Debug)]
struct List {
    base: NonNull<u8>,
    pages: usize,
    /// The first free run.
    first: usize,
}

// SAFETY: it stands for memory that is the arena's alone.
unsafe impl Send for List {}

/// What a free run's first bytes say. Pages are numbered from 0.
#[derive(Clone, Copy)]
struct Run {
    pages: usize,
    /// The next run, or [`NONE`].
    next: usize,
}

const NONE: usize = usize::MAX;

impl<'m> Arena<'m> {
    /// An arena of the whole pages in `memory`.
    pub fn new(memory: &'m mut [MaybeUninit<u8>]) -> Self {
        let skip = memory.as_ptr().align_offset(PAGE).min(memory.len());
        let memory = &mut memory[skip..];
        let pages = memory.len() / PAGE;
        let mut list = List { base: NonNull::from(memory).cast(), pages, first: NONE };
        if pages != 0 {
            list.set(0, Run { pages, next: NONE });
            list.first = 0;
        }
        Self { list: Mutex::new(list), _memory: PhantomData }
    }

    /// `pages` pages that follow each other; their content is arbitrary.
    /// `None` if there are no such.
    pub fn alloc(&self, pages: usize) -> Option<NonNull<u8>> {
        self.list.with(|list| list.take(pages))
    }

    /// Takes pages back.
    ///
    /// # Panics
    /// If they are not the arena's, or free already.
    ///
    /// # Safety
    /// [`alloc`](Self::alloc) of this arena gave them, as many, and nobody
    /// uses them any more.
    pub unsafe fn free(&self, memory: NonNull<u8>, pages: usize) {
        self.list.with(|list| list.put(memory, pages));
    }

    /// How many pages are free.
    pub fn free_pages(&self) -> usize {
        self.list.with(|list| list.runs().map(|(_, run)| run.pages).sum())
    }
}

impl List {
    /// Where a free run says what it is. The caller knows that there is one.
    fn at(&self, page: usize) -> NonNull<Run> {
        debug_assert!(page < self.pages);
        // SAFETY: a page of the arena.
        unsafe { self.base.add(page * PAGE).cast() }
    }

    fn get(&self, page: usize) -> Run {
        // SAFETY: a free page that begins a run: written by `set`, on a page
        // boundary, and nobody else's.
        unsafe { self.at(page).read() }
    }

    fn set(&mut self, page: usize, run: Run) {
        // SAFETY: a free page, so the arena's alone, on a page boundary.
        unsafe { self.at(page).write(run) }
    }

    fn runs(&self) -> impl Iterator<Item = (usize, Run)> {
        let mut next = self.first;
        core::iter::from_fn(move || {
            let page = next;
            let run = (page != NONE).then(|| self.get(page))?;
            next = run.next;
            Some((page, run))
        })
    }

    /// Makes `next` the run after `before`, or the first.
    fn link(&mut self, before: Option<usize>, next: usize) {
        match before {
            None => self.first = next,
            Some(page) => {
                let run = Run { next, ..self.get(page) };
                self.set(page, run);
            }
        }
    }

    fn take(&mut self, pages: usize) -> Option<NonNull<u8>> {
        let mut before = None;
        let fits = self.runs().find(|(page, run)| {
            let fits = run.pages >= pages;
            before = if fits { before } else { Some(*page) };
            fits
        });
        let (page, run) = fits.filter(|_| pages != 0)?;
        let next = match run.pages - pages {
            0 => run.next,
            left => {
                self.set(page + pages, Run { pages: left, next: run.next });
                page + pages
            }
        };
        self.link(before, next);
        Some(self.at(page).cast())
    }

    fn put(&mut self, memory: NonNull<u8>, pages: usize) {
        let bytes = memory.addr().get().wrapping_sub(self.base.addr().get());
        let page = bytes / PAGE;
        let own = bytes.is_multiple_of(PAGE) && page < self.pages && pages <= self.pages - page;
        assert!(own && pages != 0, "these pages are not the arena's");
        let before = self.runs().take_while(|(at, _)| *at < page).last();
        let after = before.map_or(self.first, |(_, run)| run.next);
        let ends = before.map_or(0, |(at, run)| at + run.pages);
        assert!(ends <= page && page + pages <= after, "these pages are free already");
        let mut run = Run { pages, next: after };
        if after == page + pages {
            let joined = self.get(after);
            run = Run { pages: pages + joined.pages, next: joined.next };
        }
        match before {
            Some((at, first)) if ends == page => {
                self.set(at, Run { pages: first.pages + run.pages, next: run.next });
            }
            _ => {
                self.set(page, run);
                self.link(before.map(|(at, _)| at), page);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[repr(C, align(4096))]
    struct Page(#[allow(dead_code)] [u8; PAGE]);

    /// Memory on a page boundary.
    fn region(pages: usize) -> &'static mut [MaybeUninit<u8>] {
        let pages = Vec::leak(Vec::from_iter((0..pages).map(|_| Page([0; PAGE]))));
        let bytes = core::ptr::from_mut(pages).cast::<MaybeUninit<u8>>();
        // SAFETY: all of a slice that is leaked, and used so alone.
        unsafe { core::slice::from_raw_parts_mut(bytes, size_of_val(pages)) }
    }

    #[test]
    fn pages_come_back_in_any_order_and_are_joined() {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for order in orders {
            let arena = Arena::new(region(6));
            let all = [1, 2, 3].map(|pages| (arena.alloc(pages).expect("room"), pages));
            assert_eq!((arena.free_pages(), arena.alloc(1)), (0, None));
            for (memory, pages) in order.map(|n| all[n]) {
                assert!(memory.addr().get().is_multiple_of(PAGE));
                // SAFETY: the arena's, and used here alone, each once.
                unsafe {
                    memory.write_bytes(0xa5, pages * PAGE);
                    arena.free(memory, pages);
                }
            }
            assert_eq!(arena.free_pages(), 6);
            assert_eq!(arena.alloc(6), Some(all[0].0), "in one piece again");
        }
    }

    #[test]
    fn a_region_is_used_as_far_as_it_has_whole_pages() {
        let odd = &mut region(4)[1..3 * PAGE];
        let arena = Arena::new(odd);
        assert_eq!(arena.free_pages(), 2);
        assert!(arena.alloc(0).is_none() && arena.alloc(3).is_none() && arena.alloc(2).is_some());
        assert_eq!(Arena::new(&mut region(1)[1..]).alloc(1), None);
        assert_eq!(Arena::new(&mut []).free_pages(), 0);
    }

    #[test]
    fn static_pages_are_taken_once() {
        static MEMORY: Pages<2> = Pages::new();
        assert_eq!(MEMORY.take().map(|arena| arena.free_pages()), Some(2));
        assert!(MEMORY.take().is_none());
    }

    #[test]
    #[should_panic = "free already"]
    fn what_is_free_is_not_freed() {
        let arena = Arena::new(region(4));
        let memory = arena.alloc(2).expect("room");
        // SAFETY: the second time is what is tried, and refused.
        unsafe {
            arena.free(memory, 2);
            arena.free(memory, 1);
        }
    }

    #[test]
    #[should_panic = "not the arena's"]
    fn what_is_not_its_own_is_refused() {
        let (arena, other) = (Arena::new(region(4)), Arena::new(region(4)));
        let memory = other.alloc(1).expect("room");
        // SAFETY: refused.
        unsafe { arena.free(memory, 1) };
    }

    #[test]
    fn threads_never_have_the_same_page() {
        let arena = Arena::new(region(16));
        let rounds = if cfg!(miri) { 6 } else { 2_000 };
        std::thread::scope(|scope| {
            for mark in 1..=3u8 {
                let arena = &arena;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..rounds {
                        let pages = 1 + (round + usize::from(mark)) % 3;
                        if let Some(memory) = arena.alloc(pages) {
                            // SAFETY: the arena's, and this thread's.
                            unsafe { memory.write_bytes(mark, pages * PAGE) };
                            held.push((memory, pages));
                        }
                        if held.len() > 2 || round + 1 == rounds {
                            for (memory, pages) in held.drain(..) {
                                for byte in [0, pages * PAGE - 1] {
                                    // SAFETY: as above.
                                    assert_eq!(unsafe { memory.add(byte).read() }, mark);
                                }
                                // SAFETY: as above, and for the last time.
                                unsafe { arena.free(memory, pages) };
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(arena.free_pages(), 16);
        assert!(arena.alloc(16).is_some());
    }
}
