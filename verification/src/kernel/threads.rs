//! Whether anybody else works for this process: threads of the library, and
//! those that the kernel has made for a ring, which are the process's too.

use std::fs;
use std::io;

/// Whether every other thread sleeps. What wakes one of them does so before it
/// comes back, so whoever has woken any finds it awake, or through.
///
/// # Errors
/// There is no `/proc`.
pub fn asleep() -> io::Result<bool> {
    // SAFETY: no arguments.
    let own = unsafe { libc::gettid() }.to_string();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        if task.file_name().to_str() == Some(&own) {
            continue;
        }
        // One that has just ended does nothing any more.
        let Ok(status) = fs::read_to_string(task.path().join("stat")) else { continue };
        // Behind the name, which may have anything in it.
        let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('S' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_thread_that_spins_is_awake() {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // Relaxed: it says nothing of anything else.
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            assert!(!super::asleep().expect("/proc"));
            done.store(true, Ordering::Relaxed);
            thread.join().expect("it spins");
        });
    }
}
