//! Bring-up, the rules of a namespace, and what is refused.

use std::time::{Duration, Instant};

use annulus_linux::nvme::{Nvme, NvmeRing, Options};
use annulus_linux::types::Fd;
use annulus_linux::{Ring, opcode, squeue};
use rustix::time::{ClockId, clock_gettime};

use super::{Context, WAYS, open, ring};

/// Runs one operation.
fn one(ring: &mut NvmeRing, entry: squeue::Entry) -> Result<i32, String> {
    // SAFETY: the callers' memory outlives the call, which waits for the end.
    unsafe { ring.submission().push(&entry) }.map_err(|e| e.to_string())?;
    ring.submit_and_wait(1).map_err(|e| e.to_string())?;
    let result = ring.completion().next().map(|cqe| cqe.result());
    result.ok_or_else(|| "no completion".into())
}

/// The controller comes up, describes itself, goes down, and comes up again.
pub fn brings_up(context: &mut Context) -> Result<String, String> {
    let start = Instant::now();
    let mut said = String::new();
    for _ in 0..3 {
        let nvme = open(context, 0, Options::default())?;
        let controller = nvme.controller();
        let mut ids = [0; 16];
        let count = controller.active_namespaces(0, &mut ids).map_err(|e| e.to_string())?;
        let health = controller.health().map_err(|e| e.to_string())?;
        let info = controller.info();
        if count == 0 || health.temperature_kelvin == 0 {
            return Err(format!("{count} namespaces, {health:?}"));
        }
        said = format!(
            "{} {}, {count} namespaces, {} K, {:?}",
            info.model,
            info.firmware,
            health.temperature_kelvin,
            controller.limits()
        );
    }
    Ok(format!("{said}, {} ms each", start.elapsed().as_millis() / 3))
}

/// A namespace behaves as a block device opened with `O_DIRECT`, whatever its
/// block is. Argument: the namespaces.
pub fn rules_of_a_namespace(context: &mut Context) -> Result<String, String> {
    let nvme = open(context, 0, Options::default())?;
    let mut ring = ring(&nvme, "adaptive", 8)?;
    let mut memory = vec![0u8; 16384];
    let base = memory.as_mut_ptr();
    let mut said = Vec::new();
    let mut ids = [0; 16];
    let count = nvme.controller().active_namespaces(0, &mut ids).map_err(|e| e.to_string())?;
    for &nsid in &ids[..count] {
        let info = nvme.controller().namespace(nsid).map_err(|e| e.to_string())?;
        let (fd, block, end) = (Fd(nsid as i32), info.block(), info.bytes);
        let read = |len, at| opcode::Read::new(fd, base, len).offset(at).build();
        let write = |len, at| opcode::Write::new(fd, base, len).offset(at).build();
        let sync = opcode::Fsync::new(fd).build();
        let zero = opcode::Fallocate::new(fd, u64::from(block)).mode(0x10).offset(0).build();
        let hole = opcode::Fallocate::new(fd, u64::from(block)).mode(3).offset(0).build();
        // With NO_HIDE_STALE: deallocated, and what it reads as does not matter.
        let hint = opcode::Fallocate::new(fd, u64::from(block)).mode(7).offset(0).build();
        let other = opcode::Fallocate::new(fd, u64::from(block)).mode(0).offset(0).build();
        let cases = [
            ("a block", read(block, 0), block as i32),
            ("off the grid", read(block, 1), -libc::EINVAL),
            ("a part of a block", read(block - 1, 0), -libc::EINVAL),
            ("no bytes", read(0, 0), 0),
            ("across the end", read(2 * block, end - u64::from(block)), block as i32),
            ("at the end", read(block, end), 0),
            ("past the end", read(block, end + u64::from(block)), 0),
            ("a write across the end", write(2 * block, end - u64::from(block)), block as i32),
            ("a write at the end", write(block, end), -libc::ENOSPC),
            ("the current position", read(block, u64::MAX), -libc::EINVAL),
            (
                "no memory",
                opcode::Read::new(fd, std::ptr::null_mut(), block).build(),
                -libc::EFAULT,
            ),
            ("fsync", sync, 0),
            ("zero range", zero, 0),
            ("punch hole", hole, 0),
            ("a hint that a block is not needed", hint, 0),
            ("allocate", other, -libc::EOPNOTSUPP),
            ("no such namespace", opcode::Read::new(Fd(99), base, block).build(), -libc::EBADF),
            ("no namespace", opcode::Read::new(Fd(-1), base, block).build(), -libc::EBADF),
        ];
        for (what, entry, expected) in cases {
            let result = one(&mut ring, entry)?;
            if result != expected {
                return Err(format!("namespace {nsid}, {what}: {result}, not {expected}"));
            }
        }
        // What was zeroed reads as zeroes.
        memory.fill(7);
        let base = memory.as_mut_ptr();
        one(&mut ring, opcode::Write::new(fd, base, 2 * block).build())?;
        one(&mut ring, opcode::Fallocate::new(fd, u64::from(block)).mode(0x10).build())?;
        one(&mut ring, opcode::Read::new(fd, base, 2 * block).build())?;
        let (first, second) = memory[..2 * block as usize].split_at(block as usize);
        if first.iter().any(|&b| b != 0) || second.iter().any(|&b| b != 7) {
            return Err(format!("namespace {nsid}: zeroes are not where they should be"));
        }
        said.push(format!("{nsid}: {block} B × {}", end / u64::from(block)));
    }
    Ok(said.join(", "))
}

/// What cannot be is refused, with words that say why.
pub fn refuses(context: &mut Context) -> Result<String, String> {
    let function = context.vfio(0)?;
    let refused = |what: &str, result: Result<Nvme, String>, words: &[&str]| match result {
        Ok(_) => Err(format!("{what} was taken")),
        Err(said) if words.iter().all(|word| said.contains(word)) => Ok(said),
        Err(said) => Err(format!("{what}: {said:?} does not say {words:?}")),
    };
    let open = |address: &str| Nvme::open(address).map_err(|e| e.to_string());
    refused("nonsense", open("nonsense"), &["nonsense"])?;
    refused("no such function", open("0000:7f:00.0"), &["0000:7f:00.0"])?;
    let first = open(&function.address)?;
    refused("a controller in use", open(&function.address), &["in use"])?;
    drop(first);
    context.kernel(0)?;
    let said = refused("one that the kernel has", open(&function.address), &["nvme", "vfio-pci"])?;
    context.vfio(0)?;
    let none = Options { pairs: 0, ..Options::default() };
    let none = Nvme::open_with(&function.address, none).map_err(|e| e.to_string());
    refused("no queue pairs", none, &["queue pair"])?;
    // As many rings as there are queue pairs, and not one more.
    let few = Options { pairs: 2, ..Options::default() };
    let nvme = Nvme::open_with(&function.address, few).map_err(|e| e.to_string())?;
    let _rings = [ring(&nvme, "polled", 4)?, ring(&nvme, "polled", 4)?];
    match Ring::builder().setup_iopoll().build_on(&nvme, 4) {
        Ok(_) => return Err("a third ring on two queue pairs".into()),
        Err(e) if e.to_string().contains("queue pairs") => {}
        Err(e) => return Err(format!("a third ring: {e}")),
    }
    Ok(said)
}

/// Processor time of this process, in ms.
fn used() -> u128 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_millis()
}

/// A ring that waits uses no processor, unless it was asked to poll.
pub fn idle_is_idle(context: &mut Context) -> Result<String, String> {
    const WAIT: Duration = Duration::from_secs(2);
    let nvme = open(context, 0, Options::default())?;
    let mut memory = vec![0u8; 4096];
    let mut said = Vec::new();
    for way in &WAYS[1..] {
        let mut ring = ring(&nvme, way, 8)?;
        for _ in 0..50 {
            let entry = opcode::Read::new(Fd(1), memory.as_mut_ptr(), 4096).build();
            if one(&mut ring, entry)? != 4096 {
                return Err(format!("{way}: a read failed"));
            }
        }
        // A medium that does not answer: the ring has something to wait for.
        context.host.ask(crate::control::Request::Stall("ns0".into()))?;
        for _ in 0..4 {
            let entry = opcode::Read::new(Fd(1), memory.as_mut_ptr(), 4096).build();
            // SAFETY: the memory stays; what is in flight is awaited below.
            unsafe { ring.submission().push(&entry) }.map_err(|e| e.to_string())?;
        }
        ring.submit().map_err(|e| e.to_string())?;
        let before = used();
        let timeout = annulus_linux::types::Timespec::from(WAIT);
        let args = annulus_linux::types::SubmitArgs::new().timespec(&timeout);
        // It comes back when the time is up.
        let _ = ring.submitter().submit_with_args(4, &args);
        let took = used() - before;
        context.host.ask(crate::control::Request::Resume("ns0".into()))?;
        while ring.completion().len() < 4 {
            ring.submit_and_wait(4).map_err(|e| e.to_string())?;
        }
        if took > WAIT.as_millis() / 10 {
            return Err(format!("{way}: {took} ms of processor time in {WAIT:?} of waiting"));
        }
        said.push(format!("{way}: {took} ms in {} ms", WAIT.as_millis()));
    }
    Ok(said.join(", "))
}
