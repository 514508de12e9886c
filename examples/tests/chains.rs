//! Rows *links*, *direct*, *CQE_SKIP*: chains of what is done to files, opened into
//! a place of the table and closed there, on this machine's io_uring and on
//! Annulus: the same completions in the same order, whatever fails and whatever
//! is to be silent.

mod both;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::AsRawFd;

use annulus::uapi::{
    IORING_ENTER_GETEVENTS, IORING_ENTER_SQ_WAKEUP, IOSQE_CQE_SKIP_SUCCESS, IOSQE_FIXED_FILE,
    IOSQE_IO_DRAIN, IOSQE_IO_HARDLINK, IOSQE_IO_LINK,
};
use annulus_linux::{opcode, squeue, types};
use both::{Seen, errno};

/// One of the two, with tables.
trait Ring: both::Ring {
    fn tables(&mut self, memory: &mut [u8]);
}

macro_rules! rings {
    ($($ring:ty),+) => {$(
        impl Ring for $ring {
            fn tables(&mut self, memory: &mut [u8]) {
                let submitter = self.submitter();
                submitter.register_files_sparse(4).unwrap();
                let iovec =
                    libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
                // SAFETY: the memory is leaked.
                errno(unsafe { submitter.register_buffers(&[iovec]) }).unwrap();
            }
        }
    )+};
}

rings!(io_uring::IoUring, annulus_linux::Ring);

/// What the entries point to.
struct World {
    memory: &'static mut [u8],
    iovecs: [libc::iovec; 2],
    directory: File,
    name: CString,
    missing: CString,
    status: Box<libc::statx>,
    none: [i32; 1],
    _temporary: tempfile::TempDir,
}

const PLACE: types::Fixed = types::Fixed(1);

impl World {
    fn new() -> Self {
        let memory = vec![5; 4096].leak();
        let piece =
            |at: usize| libc::iovec { iov_base: memory[at..].as_ptr() as *mut _, iov_len: 50 };
        let iovecs = [piece(0), piece(50)];
        let temporary = tempfile::tempdir().unwrap();
        let directory = File::open(temporary.path()).unwrap();
        let [name, missing] = ["made", "missing"].map(|name| CString::new(name).unwrap());
        // SAFETY: plain numbers.
        let status = Box::new(unsafe { std::mem::zeroed() });
        let none = [-1];
        Self { memory, iovecs, directory, name, missing, status, none, _temporary: temporary }
    }

    fn open(&self, name: &CStr, flags: i32) -> squeue::Entry {
        let place = types::DestinationSlot::try_from_slot_target(1).unwrap();
        opcode::OpenAt::new(types::Fd(self.directory.as_raw_fd()), name.as_ptr())
            .flags(flags)
            .mode(0o600)
            .file_index(Some(place))
            .build()
    }

    /// Makes a file, writes to it, and looks at what has become of it.
    fn written(&mut self) -> Vec<squeue::Entry> {
        let at = types::Fd(self.directory.as_raw_fd());
        let status: *mut libc::statx = &mut *self.status;
        vec![
            self.open(&self.name, libc::O_CREAT | libc::O_RDWR),
            opcode::Writev::new(PLACE, self.iovecs.as_ptr().cast(), 2).build(),
            opcode::WriteFixed::new(PLACE, self.memory.as_ptr(), 64, 0).offset(100).build(),
            opcode::Fsync::new(PLACE).build(),
            opcode::Statx::new(at, self.name.as_ptr(), status.cast())
                .mask(libc::STATX_SIZE)
                .build(),
            opcode::Close::new(PLACE).build(),
        ]
    }

    /// Reads from it.
    fn read(&mut self) -> Vec<squeue::Entry> {
        vec![
            self.open(&self.name, libc::O_RDWR),
            opcode::Fallocate::new(PLACE, 4096).build(),
            opcode::SyncFileRange::new(PLACE, 100).build(),
            opcode::Fadvise::new(PLACE, 100, libc::POSIX_FADV_WILLNEED).build(),
            opcode::ReadFixed::new(PLACE, self.memory.as_mut_ptr(), 164, 0).build(),
            opcode::Readv::new(PLACE, self.iovecs.as_ptr().cast(), 2).offset(64).build(),
            opcode::FilesUpdate::new(self.none.as_ptr(), 1).offset(3).build(),
            opcode::Close::new(PLACE).build(),
        ]
    }

    /// Makes an entry fail.
    fn spoil(&self, entry: &mut squeue::Entry) {
        match entry.opcode {
            annulus::uapi::IORING_OP_OPENAT => *entry = self.open(&self.missing, libc::O_RDONLY),
            annulus::uapi::IORING_OP_STATX => entry.addr = self.missing.as_ptr() as u64,
            annulus::uapi::IORING_OP_FILES_UPDATE => entry.off = 9,
            annulus::uapi::IORING_OP_CLOSE => entry.splice_fd_in = 4,
            _ => {
                assert_ne!(entry.flags & IOSQE_FIXED_FILE, 0);
                entry.fd = 3;
            }
        }
    }
}

/// How a chain is made.
#[derive(Clone, Copy, Debug)]
struct Shape {
    link: u8,
    /// What fails, is silent, or drains.
    spoilt: Option<usize>,
    silent: Option<usize>,
    drains: Option<usize>,
}

/// Runs a chain; the completions until the last of them.
fn chain(
    ring: &mut dyn Ring,
    world: &World,
    mut entries: Vec<squeue::Entry>,
    shape: Shape,
) -> Vec<Seen> {
    let Shape { link, spoilt, silent, drains } = shape;
    let last = entries.len() - 1;
    for (at, entry) in entries.iter_mut().enumerate() {
        if spoilt == Some(at) {
            world.spoil(entry);
        }
        entry.user_data = at as u64;
        entry.flags |= if at < last { link } else { 0 };
        entry.flags |= if silent == Some(at) { IOSQE_CQE_SKIP_SUCCESS } else { 0 };
        entry.flags |= if drains == Some(at) { IOSQE_IO_DRAIN } else { 0 };
    }
    // What follows a failure that was to be silent is silent, too.
    let ends_early = link == IOSQE_IO_LINK && spoilt.is_some() && spoilt == silent;
    let done = |seen: &[Seen]| {
        let early = ends_early && spoilt.is_some_and(|at| seen.len() == at + 1);
        early || seen.last().is_some_and(|&(tag, ..)| tag == last as u64)
    };
    ring.push(&entries);
    let wake = if ring.polled() { IORING_ENTER_SQ_WAKEUP } else { 0 };
    assert_eq!(ring.enter(entries.len() as u32, 0, wake, None), entries.len() as i32);
    let mut seen = Vec::new();
    while !done(&seen) {
        ring.enter(0, 1, IORING_ENTER_GETEVENTS | wake, None);
        seen.extend(ring.reap());
    }
    seen
}

/// Every shape, one after the other.
fn shapes(drains: bool) -> Vec<Shape> {
    let mut all = Vec::new();
    for link in [IOSQE_IO_LINK, IOSQE_IO_HARDLINK] {
        let plain = Shape { link, spoilt: None, silent: None, drains: None };
        all.push(plain);
        for at in 0..8 {
            all.push(Shape { spoilt: Some(at), ..plain });
            if drains {
                all.push(Shape { drains: Some(at), ..plain });
                continue;
            }
            all.push(Shape { silent: Some(at), ..plain });
            for spoilt in [0, 3, at] {
                all.push(Shape { silent: Some(at), spoilt: Some(spoilt), ..plain });
            }
        }
    }
    all
}

fn run(ring: &mut dyn Ring, drains: bool) -> Vec<(Shape, Vec<Seen>, u64)> {
    let mut world = World::new();
    ring.tables(world.memory);
    let mut all = Vec::new();
    for shape in shapes(drains) {
        for second in [false, true] {
            let entries = if second { world.read() } else { world.written() };
            let last = entries.len() - 1;
            // The last speaks, so that one knows when it has ended.
            let fits = |at: Option<usize>, most| at.is_none_or(|at| at <= most);
            if !fits(shape.silent, last - 1)
                || !fits(shape.spoilt, last)
                || !fits(shape.drains, last)
            {
                continue;
            }
            world.status.stx_size = 0;
            let seen = chain(ring, &world, entries, shape);
            all.push((shape, seen, world.status.stx_size));
            // Whatever has become of it: the place is empty again.
            let close = opcode::Close::new(PLACE).build().user_data(50);
            ring.run(&[close], 1);
        }
    }
    all
}

macro_rules! same {
    ($drains:expr) => {{
        let compare = |mut kernel: io_uring::IoUring, mut ours: annulus_linux::Ring, how: &str| {
            let (kernel, ours) = (run(&mut kernel, $drains), run(&mut ours, $drains));
            for (kernel, ours) in kernel.iter().zip(&ours) {
                assert_eq!((&ours.1, ours.2), (&kernel.1, kernel.2), "{how}: {:?}", kernel.0);
            }
            assert_eq!(kernel.len(), ours.len());
        };
        let ring = || annulus_linux::Ring::builder();
        compare(io_uring::IoUring::new(8).unwrap(), ring().build(8).unwrap(), "inline");
        let served = ring().setup_served().build(8).unwrap();
        compare(io_uring::IoUring::new(8).unwrap(), served, "served");
        let kernel = io_uring::IoUring::builder().setup_sqpoll(2000).build(8).unwrap();
        compare(kernel, ring().setup_sqpoll(2000).build(8).unwrap(), "polled");
    }};
}

#[test]
fn chains_of_files_are_as_the_kernels() {
    same!(false);
}

#[test]
fn chains_of_files_with_drains_are_as_the_kernels() {
    same!(true);
}

/// A registered file is no descriptor that `exec` could close. An entry that says so
/// all the same cannot be carried out: as with any such, its chain does not begin,
/// whoever is hard linked to whom.
#[test]
fn a_registered_file_that_is_to_close_on_exec_ends_its_chain_before_it_begins() {
    both::same(|ring| {
        let mut seen = Vec::new();
        for link in [0, IOSQE_IO_LINK, IOSQE_IO_HARDLINK] {
            for path in [c"/dev/zero".as_ptr(), std::ptr::without_provenance(1 << 63)] {
                let place = types::DestinationSlot::try_from_slot_target(1).unwrap();
                let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path)
                    .flags(libc::O_CLOEXEC)
                    .file_index(Some(place))
                    .build()
                    .user_data(2);
                let [first, last] = [1, 3].map(|tag| opcode::Nop::new().build().user_data(tag));
                let mut entries = [first, open, last];
                entries[0].flags |= link;
                // Without SUBMIT_ALL a batch ends with it.
                seen.push(started(ring, &entries));
            }
        }
        seen
    });
}

/// Submits entries until all are taken; the completions, and what each call said.
fn started(ring: &mut dyn both::Ring, entries: &[squeue::Entry]) -> (Vec<i32>, Vec<Seen>) {
    ring.push(entries);
    let wake = if ring.polled() { IORING_ENTER_SQ_WAKEUP } else { 0 };
    let (mut said, mut seen, mut left) = (Vec::new(), Vec::new(), entries.len() as u32);
    while seen.len() < entries.len() {
        let done = ring.enter(left, u32::from(left == 0), IORING_ENTER_GETEVENTS | wake, None);
        if left != 0 {
            said.push(done);
        }
        left -= if ring.polled() { left } else { done as u32 };
        seen.extend(ring.reap());
    }
    (said, seen)
}

/// What is wrong with memory, or with how much of it there is, is found before
/// anybody looks for the file; what only shows when it is used is not.
#[test]
fn memory_that_cannot_be_comes_before_a_registered_file_that_is_not_there() {
    let mut bytes = [0u8; 64];
    let at = bytes.as_mut_ptr();
    let kernels = std::ptr::without_provenance_mut::<u8>(0xffff_8880_0000_0000);
    let beyond = std::ptr::without_provenance_mut::<u8>(usize::MAX - 100);
    let piece = |base: *mut u8, len| libc::iovec { iov_base: base.cast(), iov_len: len };
    let vectors = [
        vec![piece(at, 8)],
        vec![piece(kernels, 8)],
        vec![piece(at, 8), piece(beyond, 8)],
        vec![piece(at, usize::MAX)],
        vec![piece(at, 1 << 63), piece(at, 8)],
        vec![piece(kernels, usize::MAX)],
        vec![piece(kernels, 0)],
        vec![piece(at, u32::MAX as usize)],
        vec![piece(at, 1); 1025],
        vec![piece(at, 1); 1024],
        vec![],
    ];
    both::same(|ring| {
        ring.places(4);
        let mut entries = Vec::new();
        for memory in [at, kernels, beyond, std::ptr::null_mut()] {
            for len in [0, 8, i32::MAX as u32, 1 << 31, u32::MAX] {
                entries.push(opcode::Read::new(PLACE, memory, len).build());
                entries.push(opcode::Write::new(PLACE, memory, len).build());
            }
        }
        for vector in &vectors {
            let (list, count) = (vector.as_ptr(), vector.len() as u32);
            entries.push(opcode::Readv::new(PLACE, list.cast(), count).build());
            entries.push(opcode::Writev::new(PLACE, list.cast(), count).build());
        }
        for list in [kernels, std::ptr::null_mut()] {
            for count in [0, 1, 1025, u32::MAX] {
                entries.push(opcode::Readv::new(PLACE, list.cast(), count).build());
            }
        }
        let mut seen = Vec::new();
        for entry in entries {
            // Alone, and held back by another: also prepared without a start.
            seen.push(ring.run(&[entry], 1));
            let first = opcode::Nop::new().build().flags(squeue::Flags::IO_HARDLINK).user_data(1);
            seen.push(started(ring, &[first, entry]).1);
        }
        seen
    });
}
