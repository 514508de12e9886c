//! The clock that waits go by.

use std::io;
use std::time::{Duration, Instant};

use annulus::uapi;
use annulus_linux::IoUring;
use annulus_linux::types::{SubmitArgs, Timespec};
use rustix::time::{ClockId, clock_gettime};

const SOON: Duration = Duration::from_millis(20);

#[test]
fn row_enter_waits_go_by_each_clock() {
    let ring = IoUring::new(4).unwrap();
    let submitter = ring.submitter();
    let error = submitter.register_clock(libc::CLOCK_REALTIME).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    for (number, id) in
        [(libc::CLOCK_BOOTTIME, ClockId::Boottime), (libc::CLOCK_MONOTONIC, ClockId::Monotonic)]
    {
        submitter.register_clock(number).unwrap();
        let now = clock_gettime(id);
        let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        for (time, flag) in [(SOON, 0), (now + SOON, uapi::IORING_ENTER_ABS_TIMER)] {
            let began = Instant::now();
            let args = SubmitArgs::new().timespec(&Timespec::from(time));
            let flags = uapi::IORING_ENTER_GETEVENTS | uapi::IORING_ENTER_EXT_ARG | flag;
            // SAFETY: nothing is submitted.
            let waited: io::Result<usize> = unsafe { submitter.enter(0, 1, flags, Some(&args)) };
            assert_eq!(waited.unwrap_err().raw_os_error(), Some(libc::ETIME));
            assert!(flag != 0 || began.elapsed() >= SOON);
        }
        let end = clock_gettime(id);
        assert!(Duration::new(end.tv_sec as u64, end.tv_nsec as u32) >= now + SOON);
    }
}
