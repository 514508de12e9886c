//! Which CPU a thread runs on: where two threads are measured, each has one
//! of its own, the same one for every side.

use std::mem::size_of;

/// The first two CPUs that this process may use; none if it has only one.
pub fn two() -> Option<(u32, u32)> {
    // SAFETY: plain data, and zero is a set without a CPU.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of that size.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if got != 0 {
        return None;
    }
    let mut cpus = (0..libc::CPU_SETSIZE as usize)
        // SAFETY: below the set's size.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .map(|cpu| cpu as u32);
    Some((cpus.next()?, cpus.next()?))
}

/// Runs `work` with the calling thread on `cpu`, and lets it go anywhere it
/// could before afterwards.
pub fn on<R>(cpu: u32, work: impl FnOnce() -> R) -> R {
    // SAFETY: plain data, and zero is a set without a CPU.
    let (mut one, mut before): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: two sets of that size. A failure only costs evenness.
    unsafe {
        libc::sched_getaffinity(0, size, &mut before);
        libc::CPU_SET(cpu as usize, &mut one);
        libc::sched_setaffinity(0, size, &one);
    }
    let result = work();
    // SAFETY: as above.
    unsafe { libc::sched_setaffinity(0, size, &before) };
    result
}
