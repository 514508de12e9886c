//! Media that fail or stall, a controller that goes away, and transfers to
//! where there is no memory.

use std::time::{Duration, Instant};

use annulus::hal::device::Dma;
use annulus_linux::nvme::{NvmeRing, Options};
use annulus_linux::opcode;
use annulus_linux::types::Fd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open as open_file};

use super::{Context, number, open, ring};
use crate::control::Request;

/// Reads `count` blocks of 4 KiB at once, with registered memory, until each
/// has ended. Answers the results by block.
fn read_all(
    ring: &mut NvmeRing,
    nsid: i32,
    base: *mut u8,
    count: usize,
) -> Result<Vec<i32>, String> {
    for block in 0..count {
        // Each has its own part of the buffer.
        let at = base.wrapping_add(block * 4096);
        let entry = opcode::ReadFixed::new(Fd(nsid), at, 4096, 0)
            .offset(block as u64 * 4096)
            .build()
            .user_data(block as u64);
        // SAFETY: the caller's buffer stays until all have ended.
        unsafe { ring.submission().push(&entry) }.map_err(|e| e.to_string())?;
    }
    let mut results = vec![None; count];
    let mut left = count;
    while left > 0 {
        ring.submit_and_wait(1).map_err(|e| e.to_string())?;
        for cqe in ring.completion() {
            let place = &mut results[cqe.user_data() as usize];
            if place.replace(cqe.result()).is_some() {
                return Err(format!("request {} ended twice", cqe.user_data()));
            }
            left -= 1;
        }
    }
    if ring.completion().next().is_some() {
        return Err("a completion too many".into());
    }
    Ok(results.into_iter().flatten().collect())
}

fn buffer(ring: &NvmeRing, memory: &mut [u8]) -> Result<(), String> {
    let iovec = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
    // SAFETY: the callers' memory outlives their rings.
    unsafe { ring.submitter().register_buffers(&[iovec]) }.map_err(|e| e.to_string())
}

/// A block that cannot be read fails with its own status, and no other does.
/// Arguments: `nsid`, and the failing block of 512 bytes.
pub fn failing_medium(context: &mut Context) -> Result<String, String> {
    let sector = number(context, "sector", 4096)?;
    let nsid = number(context, "nsid", 2)? as i32;
    let nvme = open(context, 0, Options::default())?;
    let mut memory = vec![0; 1024 * 4096];
    let mut ring = ring(&nvme, "adaptive", 1024)?;
    buffer(&ring, &mut memory)?;
    let results = read_all(&mut ring, nsid, memory.as_mut_ptr(), 1024)?;
    let bad = (sector / 8) as usize;
    for (block, &result) in results.iter().enumerate() {
        let right = if block == bad { result < 0 } else { result == 4096 };
        if !right {
            return Err(format!("block {block}: {result}"));
        }
    }
    let (errors, count) = nvme.controller().recent_errors();
    let first = errors[0].ok_or("the failure was not recorded")?;
    if count != 1 || first.status.errno().raw() != -results[bad] {
        return Err(format!("{count} failures, the last {first:?}"));
    }
    Ok(format!("block {bad} answers {}: {}", results[bad], first.status))
}

/// A medium that stalls: the commands are late, are aborted, the controller is
/// reset; each request ends once, with -ETIMEDOUT or -EIO; then all is well
/// again, for another ring too.
pub fn stalled_medium(context: &mut Context) -> Result<String, String> {
    let options = Options { timeout_ms: 1000, ..Options::default() };
    let nvme = open(context, 0, options)?;
    let mut memory = vec![0; 128 * 4096];
    let mut own = ring(&nvme, "adaptive", 128)?;
    buffer(&own, &mut memory)?;
    let mut others_memory = vec![0; 4096];
    let mut other = ring(&nvme, "interrupts", 8)?;
    buffer(&other, &mut others_memory)?;
    context.host.ask(Request::Stall("ns0".into()))?;
    let start = Instant::now();
    let results = read_all(&mut own, 1, memory.as_mut_ptr(), 128);
    let took = start.elapsed();
    context.host.ask(Request::Resume("ns0".into()))?;
    let results = results?;
    let late = results.iter().filter(|&&result| result == -libc::ETIMEDOUT).count();
    let done = results.iter().filter(|&&result| result == 4096).count();
    let other_errors = results.iter().filter(|&&result| result == -libc::EIO).count();
    if late == 0 || late + done + other_errors != 128 {
        return Err(format!("{late} were late, {done} done, the rest {results:?}"));
    }
    if took < Duration::from_millis(900) || took > Duration::from_secs(20) {
        return Err(format!("it took {took:?} with a deadline of 1 s"));
    }
    let again = read_all(&mut own, 1, memory.as_mut_ptr(), 128)?;
    let elsewhere = read_all(&mut other, 1, others_memory.as_mut_ptr(), 1)?;
    if again.iter().chain(&elsewhere).any(|&result| result != 4096) {
        return Err(format!("afterwards: {again:?}, {elsewhere:?}"));
    }
    let resets = nvme.controller().resets();
    if resets == 0 {
        return Err("the commands were late, and the controller was never reset".into());
    }
    Ok(format!(
        "{late} late, {done} done, {other_errors} ended with the reset, after {} ms; {resets} resets",
        took.as_millis()
    ))
}

/// A controller that is unplugged with 128 commands in flight: each ends once,
/// the rest of the ring's life is -ENODEV, and the host gets it back. Argument:
/// which.
pub fn unplugged(context: &mut Context) -> Result<String, String> {
    let n = number(context, "controller", 0)? as u8;
    let nvme = open(context, n, Options::default())?;
    let mut memory = vec![0; 128 * 4096];
    let mut ring = ring(&nvme, "adaptive", 128)?;
    buffer(&ring, &mut memory)?;
    context.host.ask(Request::Unplug(format!("nvme{n}")))?;
    // When the kernel asks for it: until then it is ours, however long the
    // slot takes to say that it is to be emptied.
    let watched = nvme.clone();
    let asked = std::thread::spawn(move || {
        let event = watched.controller().platform().release_eventfd()?;
        let mut fds = [PollFd::new(&event, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 100, tv_nsec: 0 })).ok()?;
        (!fds[0].revents().is_empty()).then(Instant::now)
    });
    let start = Instant::now();
    let mut rounds = 0;
    let gone = loop {
        let results = read_all(&mut ring, 1, memory.as_mut_ptr(), 128)?;
        rounds += 1;
        if let Some(&wrong) =
            results.iter().find(|&&result| result != 4096 && result != -libc::ENODEV)
        {
            return Err(format!("a read ended with {wrong}"));
        }
        let gone = results.iter().filter(|&&result| result == -libc::ENODEV).count();
        if gone > 0 {
            break gone;
        }
        if start.elapsed() > Duration::from_secs(90) {
            return Err(format!("nobody took it away in {rounds} rounds"));
        }
    };
    let noticed = Instant::now();
    let asked = asked.join().ok().flatten().ok_or("nobody asked for it")?;
    let late = noticed.saturating_duration_since(asked);
    if late > Duration::from_secs(2) {
        return Err(format!("it was asked for {late:?} before that was noticed"));
    }
    let again = read_all(&mut ring, 1, memory.as_mut_ptr(), 128)?;
    if again.iter().any(|&result| result != -libc::ENODEV) {
        return Err(format!("afterwards: {again:?}"));
    }
    let before = Instant::now();
    drop(ring);
    drop(nvme);
    let teardown = before.elapsed();
    context.host.ask(Request::Gone(format!("nvme{n}")))?;
    if teardown > Duration::from_secs(5) {
        return Err(format!("teardown took {teardown:?}"));
    }
    Ok(format!(
        "{gone} of 128 in flight ended with -ENODEV {} ms after it was asked for, in round {rounds}; teardown {} ms",
        late.as_millis(),
        teardown.as_millis()
    ))
}

/// What the kernel has said of faults in the IOMMU.
fn iommu_faults() -> Result<Vec<String>, String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let log =
        open_file("/dev/kmsg", flags, Mode::empty()).map_err(|e| format!("/dev/kmsg: {e}"))?;
    let mut faults = Vec::new();
    let mut record = [0; 8192];
    loop {
        match rustix::io::read(&log, &mut record) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(faults),
            Err(rustix::io::Errno::PIPE) => {}
            Err(e) => return Err(format!("/dev/kmsg: {e}")),
            Ok(len) => {
                let said = String::from_utf8_lossy(&record[..len]).into_owned();
                if said.contains("DMAR") && said.contains("fault addr") {
                    faults.push(said.split_once(';').map_or("", |(_, text)| text).trim().into());
                }
            }
        }
    }
}

/// A transfer to memory that is not mapped is stopped by the IOMMU: the memory
/// stays as it was, and the kernel tells of the fault. (The emulated
/// controller does not see it, and says that all went well.)
pub fn iommu_stops(context: &mut Context) -> Result<String, String> {
    const MARK: u8 = 0xa5;
    let nvme = open(context, 0, Options::default())?;
    let mut ring = ring(&nvme, "adaptive", 8)?;
    // A mapping of its own, which nothing else shares.
    let mut memory = vec![MARK; 8 << 20];
    buffer(&ring, &mut memory)?;
    let base = memory.as_mut_ptr();
    if read_all(&mut ring, 1, base, 1)? != [4096] || memory[0] == MARK {
        return Err("reading to mapped memory failed".into());
    }
    memory.fill(MARK);
    let before = iommu_faults()?.len();
    let platform = nvme.controller().platform();
    // Behind the ring's back: the mapping goes, the registration stays.
    // SAFETY: the memory is there until the end; what goes wrong now is what
    // is to be seen.
    let handle = unsafe { platform.map(base.expose_provenance(), memory.len()) };
    let handle = handle.map_err(|e| e.to_string())?;
    platform.unmap(handle);
    platform.unmap(handle);
    let results = read_all(&mut ring, 1, base, 8)?;
    if memory.iter().any(|&byte| byte != MARK) {
        return Err("memory that is not mapped was written".into());
    }
    let faults = iommu_faults()?;
    let last = faults.get(before..).and_then(<[String]>::last);
    let last = last.ok_or("the kernel tells of no fault")?;
    Ok(format!("{last}; the reads themselves answer {results:?}"))
}
