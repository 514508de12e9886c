//! A thread that polls in the kernel gives its CPU to nobody before the next
//! tick, so whoever it works for is given another one.

/// While it lives, this thread has a CPU that the polling thread has not.
pub struct Apart {
    before: libc::cpu_set_t,
    /// The polling thread's CPU.
    pub other: u32,
}

impl Apart {
    /// Nothing where there is one CPU only.
    pub fn new() -> Option<Self> {
        // SAFETY: plain data.
        let mut before: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: room for a set.
        if unsafe { libc::sched_getaffinity(0, size_of_val(&before), &raw mut before) } != 0 {
            return None;
        }
        let most = libc::CPU_SETSIZE as usize;
        // SAFETY: a number that a set has room for.
        let mut all = (0..most).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &before) });
        let (own, other) = (all.next()?, all.next()?);
        set(&only(own)).then_some(Self { before, other: other as u32 })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It was allowed before.
        set(&self.before);
    }
}

fn only(cpu: usize) -> libc::cpu_set_t {
    // SAFETY: plain data.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a number that a set has room for.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    set
}

fn set(cpus: &libc::cpu_set_t) -> bool {
    // SAFETY: a set.
    unsafe { libc::sched_setaffinity(0, size_of_val(cpus), cpus) == 0 }
}
