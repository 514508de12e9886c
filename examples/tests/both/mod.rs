//! The same script on this machine's io_uring and on Annulus.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fmt::Debug;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use annulus_linux::{squeue, types};

/// User data, result and flags of a completion.
pub type Seen = (u64, i32, u32);

/// How long an `enter` waits.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub time: Option<types::Timespec>,
    pub min_wait: u32,
}

/// One of the two.
pub trait Ring {
    fn push(&mut self, entries: &[squeue::Entry]);
    /// The count, or the errno negated.
    fn enter(&mut self, to_submit: u32, want: u32, flags: u32, arg: Option<Arg>) -> i32;
    fn reap(&mut self) -> Vec<Seen>;
    /// Completions that can be reaped.
    fn ready(&mut self) -> usize;
    fn polled(&self) -> bool;
    /// The number that names it.
    fn fd(&self) -> RawFd;
    /// Registers so many places for files, without any.
    fn places(&mut self, count: u32);

    /// Submits entries, and looks on until there are `count` completions.
    fn start(&mut self, entries: &[squeue::Entry], count: usize) {
        self.push(entries);
        let taken = entries.len() as u32;
        let done = self.enter(taken, 0, annulus::uapi::IORING_ENTER_SQ_WAKEUP, None);
        assert_eq!(done, entries.len() as i32);
        let began = Instant::now();
        while self.ready() < count {
            assert!(began.elapsed() < Duration::from_secs(60), "{count} completions");
            std::thread::yield_now();
        }
    }

    /// Submits entries and waits; answers all completions that there are.
    fn run(&mut self, entries: &[squeue::Entry], want: u32) -> Vec<Seen> {
        self.push(entries);
        let flags = annulus::uapi::IORING_ENTER_GETEVENTS
            | if self.polled() { annulus::uapi::IORING_ENTER_SQ_WAKEUP } else { 0 };
        let done = self.enter(entries.len() as u32, want, flags, None);
        assert_eq!(done, entries.len() as i32);
        self.reap()
    }
}

pub fn errno<T>(result: std::io::Result<T>) -> Result<T, i32> {
    result.map_err(|e| -e.raw_os_error().unwrap_or(1))
}

/// An entry as the `io-uring` crate has it.
pub fn kernel_entry(entry: &squeue::Entry) -> io_uring::squeue::Entry {
    const { assert!(size_of::<squeue::Entry>() == size_of::<io_uring::squeue::Entry>()) };
    // SAFETY: both are the uapi's 64 bytes.
    unsafe { std::mem::transmute_copy(entry) }
}

impl Ring for io_uring::IoUring {
    fn push(&mut self, entries: &[squeue::Entry]) {
        // A thread that polls says after a batch that it has taken it: its
        // completions may be seen before.
        let began = Instant::now();
        loop {
            let queue = self.submission();
            if queue.capacity() - queue.len() >= entries.len() {
                break;
            }
            drop(queue);
            assert!(began.elapsed() < Duration::from_secs(60), "room for {}", entries.len());
            std::thread::yield_now();
        }
        // Published at once: a thread that polls may take them as they come.
        let mut queue = self.submission();
        for entry in entries {
            // SAFETY: the memory is the test's, and lasts.
            unsafe { queue.push(&kernel_entry(entry)) }.unwrap();
        }
    }

    fn enter(&mut self, to_submit: u32, want: u32, flags: u32, arg: Option<Arg>) -> i32 {
        let arg = arg.as_ref().map(|arg| annulus::uapi::io_uring_getevents_arg {
            min_wait_usec: arg.min_wait,
            ts: arg
                .time
                .as_ref()
                .map_or(0, |time| std::ptr::from_ref(time).expose_provenance() as u64),
            ..Default::default()
        });
        // SAFETY: as above.
        let done = unsafe { self.submitter().enter(to_submit, want, flags, arg.as_ref()) };
        errno(done).map_or_else(|e| e, |count| count as i32)
    }

    fn reap(&mut self) -> Vec<Seen> {
        self.completion().map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())).collect()
    }

    fn ready(&mut self) -> usize {
        self.completion().len()
    }

    fn polled(&self) -> bool {
        self.params().is_setup_sqpoll()
    }

    fn fd(&self) -> RawFd {
        self.as_raw_fd()
    }

    fn places(&mut self, count: u32) {
        self.submitter().register_files_sparse(count).unwrap();
    }
}

impl Ring for annulus_linux::Ring {
    fn push(&mut self, entries: &[squeue::Entry]) {
        let mut queue = self.submission();
        for entry in entries {
            // SAFETY: the memory is the test's, and lasts.
            unsafe { queue.push(entry) }.unwrap();
        }
    }

    fn enter(&mut self, to_submit: u32, want: u32, flags: u32, arg: Option<Arg>) -> i32 {
        let arg = arg.map(|arg| {
            let args = types::SubmitArgs::new().min_wait_usec(arg.min_wait);
            arg.time.map_or(args, |time| args.timespec(&time))
        });
        // SAFETY: as above.
        let done = unsafe { self.submitter().enter(to_submit, want, flags, arg.as_ref()) };
        errno(done).map_or_else(|e| e, |count| count as i32)
    }

    fn reap(&mut self) -> Vec<Seen> {
        self.completion().map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())).collect()
    }

    fn ready(&mut self) -> usize {
        self.completion().len()
    }

    fn polled(&self) -> bool {
        self.params().is_setup_sqpoll()
    }

    fn fd(&self) -> RawFd {
        self.as_raw_fd()
    }

    fn places(&mut self, count: u32) {
        self.submitter().register_files_sparse(count).unwrap();
    }
}

/// Runs a script on rings of the kernel and of Annulus, driven alike.
pub fn same<T: PartialEq + Debug>(script: impl Fn(&mut dyn Ring) -> T) {
    let kernel = script(&mut io_uring::IoUring::new(8).unwrap());
    assert_eq!(script(&mut annulus_linux::Ring::new(8).unwrap()), kernel, "inline");
    let served = annulus_linux::Ring::builder().setup_served().build(8);
    assert_eq!(script(&mut served.unwrap()), kernel, "served");
    let kernel = script(&mut io_uring::IoUring::builder().setup_sqpoll(2000).build(8).unwrap());
    let polled = annulus_linux::Ring::builder().setup_sqpoll(2000).build(8);
    assert_eq!(script(&mut polled.unwrap()), kernel, "polled");
}

/// Makes a ring.
pub type Make<'a> = &'a (dyn Fn() -> Box<dyn Ring> + Sync);

/// Runs a script on makers of two rings of the kernel and of two of Annulus, each
/// of them driven in any way.
pub fn pairs<T: PartialEq + Debug>(script: impl Fn(Make<'_>, Make<'_>) -> T) {
    let theirs: [Make<'_>; 2] = [&|| Box::new(io_uring::IoUring::new(8).unwrap()), &|| {
        Box::new(io_uring::IoUring::builder().setup_sqpoll(50).build(8).unwrap())
    }];
    let ours: [(&str, Make<'_>, Make<'_>); 3] = [
        ("inline", &|| Box::new(annulus_linux::Ring::new(8).unwrap()), theirs[0]),
        (
            "served",
            &|| Box::new(annulus_linux::Ring::builder().setup_served().build(8).unwrap()),
            theirs[0],
        ),
        (
            "polled",
            &|| Box::new(annulus_linux::Ring::builder().setup_sqpoll(50).build(8).unwrap()),
            theirs[1],
        ),
    ];
    for (name, one, its) in ours {
        for (other_name, other, others) in ours {
            let kernel = script(its, others);
            assert_eq!(script(one, other), kernel, "{name} to {other_name}");
        }
    }
}

/// Read end, write end.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two numbers, which are ours then.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

/// Writes one byte.
pub fn feed(to: &impl AsRawFd) {
    // SAFETY: one byte, that is there.
    assert_eq!(unsafe { libc::write(to.as_raw_fd(), b"x".as_ptr().cast(), 1) }, 1);
}

pub fn fd(file: &impl AsRawFd) -> types::Fd {
    types::Fd(file.as_raw_fd())
}

pub fn raw(file: &impl AsRawFd) -> RawFd {
    file.as_raw_fd()
}
