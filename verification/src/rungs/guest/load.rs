//! Who else uses the machine's processors while something is measured.

use std::fs;
use std::time::Instant;

/// The processors' time, from when on it is counted.
#[derive(Debug)]
pub struct Load {
    since: Instant,
    process: u32,
    /// Of all, and of the process.
    ticks: (u64, u64),
}

impl Load {
    /// Begins to count, all against this process.
    pub fn of_others_than(process: u32) -> Self {
        Self { since: Instant::now(), process, ticks: ticks(process) }
    }

    /// How many processors others have used, on average.
    pub fn processors(&self) -> f64 {
        // SAFETY: no memory.
        let second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let (all, own) = ticks(self.process);
        let others =
            all.saturating_sub(self.ticks.0).saturating_sub(own.saturating_sub(self.ticks.1));
        others as f64 / second / self.since.elapsed().as_secs_f64()
    }
}

/// Ticks that all processors were busy, and that the process had of them.
fn ticks(process: u32) -> (u64, u64) {
    let all = fs::read_to_string("/proc/stat").unwrap_or_default();
    let own = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    (busy(&all), used(&own))
}

/// From `/proc/stat`: all but idle and waiting for a disk.
fn busy(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // User, nice, system, idle, waiting, interrupts, soft ones, stolen; then
    // guests, which are counted as user already.
    let wanted = numbers.iter().take(8).enumerate().filter(|(n, _)| *n != 3 && *n != 4);
    wanted.map(|(_, ticks)| ticks).sum()
}

/// From `/proc/PID/stat`: user and system.
fn used(stat: &str) -> u64 {
    // The name in brackets may have anything in it.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_in_what_the_kernel_says() {
        assert_eq!(busy("cpu  1 2 4 100 200 8 16 32 64 128\ncpu0 9 9"), 63);
        assert_eq!(used("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 40 2 9 9"), 42);
    }

    #[test]
    fn our_own_load_is_not_others() {
        let all = Load::of_others_than(u32::MAX);
        let others = Load::of_others_than(std::process::id());
        let (start, own) = (Instant::now(), || ticks(std::process::id()).1);
        // However many processors we are given: time of ours, not of a clock.
        let before = own();
        while own() - before < 30 {
            assert!(start.elapsed().as_secs() < 60, "we get no processor");
        }
        let (all, others) = (all.processors(), others.processors());
        // Of 30 ticks, as the kernel counts and we look one after the other.
        let seconds = (all - others) * start.elapsed().as_secs_f64();
        assert!(seconds > 0.15, "{all} with us, {others} without");
    }
}
