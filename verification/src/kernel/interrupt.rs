//! Signals that interrupt a wait of this thread.

use std::sync::Once;

extern "C" fn nothing(_: libc::c_int) {}

/// Runs `wait` while a signal comes every millisecond: one that comes before
/// the wait has begun does not count.
pub fn every_millisecond<R>(wait: impl FnOnce() -> R) -> R {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: plain numbers and a null set.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as *const () as usize;
        // SAFETY: a handler that does nothing, and no SA_RESTART.
        unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    });
    // SAFETY: plain numbers.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = libc::SIGUSR1;
    // SAFETY: no memory.
    event.sigev_notify_thread_id = unsafe { libc::gettid() };
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: both are ours.
    let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
    assert_eq!(made, 0, "a timer");
    set(timer, 1_000_000);
    let result = wait();
    set(timer, 0);
    // SAFETY: made above.
    unsafe { libc::timer_delete(timer) };
    result
}

fn set(timer: libc::timer_t, ns: libc::c_long) {
    let every = libc::timespec { tv_sec: 0, tv_nsec: ns };
    let times = libc::itimerspec { it_interval: every, it_value: every };
    // SAFETY: a timer of ours.
    unsafe { libc::timer_settime(timer, 0, &raw const times, std::ptr::null_mut()) };
}
