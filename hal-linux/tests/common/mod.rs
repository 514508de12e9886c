//! What the tests share.
#![allow(dead_code)] // each test uses a part

use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use annulus_linux::{Builder, Ring, cqueue, squeue, types};

/// A ring for every way to drive one.
pub fn builders() -> [(&'static str, Builder); 3] {
    let inline = Ring::builder();
    let mut polled = Ring::builder();
    polled.setup_sqpoll(50);
    let mut served = Ring::builder();
    served.setup_served();
    [("inline", inline), ("sqpoll", polled), ("served", served)]
}

/// Says that this machine cannot show something, and why. Where all must be shown
/// (`CI`, as `cargo verify` understands it) that is a failure.
pub fn not_run(why: &str) {
    // Not by a macro: the test harness would keep it to itself.
    let to = &mut std::io::stderr();
    writeln!(to, "==== NOT RUN: {why}.").unwrap();
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "in CI nothing may be left out: {why}");
}

/// Runs `test` on a ring of each kind.
pub fn each(entries: u32, test: impl Fn(&mut Ring)) {
    for (name, builder) in builders() {
        eprintln!("-- {name}");
        test(&mut builder.build(entries).unwrap());
    }
}

/// Pushes entries, without submitting.
pub fn push(ring: &mut Ring, entries: &[squeue::Entry]) {
    let mut sq = ring.submission();
    for entry in entries {
        // SAFETY: the tests keep what they name until the ring is dropped.
        unsafe { sq.push(entry).unwrap() };
    }
}

/// A submission has told of all entries, or of those that a polling thread had not
/// taken before.
pub fn all_submitted(ring: &Ring, told: usize, all: usize) {
    let polled = ring.params().is_setup_sqpoll();
    assert!(told == all || polled && told < all, "{told} of {all}");
}

/// Submits and waits; answers the CQEs in the order in which they came.
pub fn run(ring: &mut Ring, entries: &[squeue::Entry]) -> Vec<cqueue::Entry> {
    push(ring, entries);
    let n = ring.submit_and_wait(entries.len()).unwrap();
    all_submitted(ring, n, entries.len());
    let cqes: Vec<_> = ring.completion().collect();
    assert_eq!(cqes.len(), entries.len());
    cqes
}

/// The result of one request.
pub fn one(ring: &mut Ring, entry: &squeue::Entry) -> i32 {
    run(ring, &[*entry])[0].result()
}

/// Waits for a CQE, without submitting.
fn wait(ring: &Ring, time: Duration) -> std::io::Result<usize> {
    let flags = annulus::uapi::IORING_ENTER_GETEVENTS | annulus::uapi::IORING_ENTER_EXT_ARG;
    let args = types::SubmitArgs::new().timespec(&time.into());
    // SAFETY: what was pushed keeps its promise.
    unsafe { ring.submitter().enter(0, 1, flags, Some(&args)) }
}

/// Waits for `count` CQEs, but not for ever.
pub fn reap(ring: &mut Ring, count: usize) -> Vec<cqueue::Entry> {
    let mut cqes = Vec::new();
    while cqes.len() < count {
        wait(ring, Duration::from_secs(10)).expect("a completion within 10 s");
        cqes.extend(ring.completion());
    }
    cqes
}

/// Asserts that nothing completes for a while.
pub fn nothing_comes(ring: &mut Ring) {
    let waited = wait(ring, Duration::from_millis(50));
    assert_eq!(waited.unwrap_err().raw_os_error(), Some(libc::ETIME));
    assert_eq!(ring.completion().count(), 0);
}

/// Read end, write end.
pub fn pipe(flags: i32) -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: room for two; the numbers are ours.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), flags | libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

pub fn fd(file: &impl AsRawFd) -> types::Fd {
    types::Fd(file.as_raw_fd())
}

/// Writes to a descriptor, blocking.
pub fn put(to: &impl AsRawFd, bytes: &[u8]) {
    // SAFETY: reads `bytes`.
    let n = unsafe { libc::write(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    assert_eq!(n, bytes.len() as isize);
}

/// Threads of this process whose name begins with `prefix`.
pub fn threads(prefix: &str) -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with(prefix))
        .count()
}

/// Open descriptors of this process.
pub fn descriptors() -> Vec<RawFd> {
    let mut fds: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    fds.sort_unstable();
    fds
}
