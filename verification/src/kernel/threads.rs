//! Whether anybody else works for this process: threads of the library, and
//! those that the kernel has made for a ring, which are the process's too.

use std::fs;
use std::io;

/// What the other threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// All of them sleep.
    Asleep,
    /// All but one that polls an SQ.
    Polling,
    /// There is work.
    Awake,
}

/// The names of threads that poll an SQ: the kernel's, with a number, and ours.
const POLLING: [&str; 2] = ["iou-sqp-", "annulus-sq"];

/// What the other threads do. What wakes one of them does so before it comes
/// back, so whoever has woken any finds it awake, or through.
///
/// # Errors
/// There is no `/proc`.
pub fn others() -> io::Result<Others> {
    // SAFETY: no arguments.
    let own = unsafe { libc::gettid() }.to_string();
    let mut all = Others::Asleep;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        if task.file_name().to_str() == Some(&own) {
            continue;
        }
        // One that has just ended does nothing any more.
        let Ok(status) = fs::read_to_string(task.path().join("stat")) else { continue };
        // The name may have anything in it.
        let Some((name, rest)) = status.rsplit_once(") ") else { return Ok(Others::Awake) };
        if matches!(rest.chars().next(), Some('S' | 'Z' | 'X')) {
            continue;
        }
        if !POLLING.iter().any(|own| name.contains(&format!("({own}"))) {
            return Ok(Others::Awake);
        }
        all = Others::Polling;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{Builder, sleep};
    use std::time::Duration;

    use super::*;

    /// What is seen while a thread of this name spins.
    fn of(name: &str) -> Others {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Relaxed: it says nothing of anything else.
            let spin = || {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            let thread = Builder::new().name(name.into()).spawn_scoped(scope, spin);
            // It has its name when it runs.
            sleep(Duration::from_millis(20));
            let seen = others().expect("/proc");
            done.store(true, Ordering::Relaxed);
            thread.expect("a thread").join().expect("it spins");
            seen
        })
    }

    #[test]
    fn a_thread_that_spins_is_awake() {
        assert_eq!(of("anybody"), Others::Awake);
    }

    #[test]
    fn a_thread_that_polls_does_not_sleep() {
        // Tests run side by side: others may be awake.
        assert_ne!(of("annulus-sq"), Others::Asleep);
    }
}
