//! What the program does not do, and how it says so.

use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::annulus;
use crate::init::ANNULUS;
use crate::scenarios::Context;

/// Bad requests on a controller that is there, and one that is in use.
pub fn refuses(context: &mut Context) -> Result<String, String> {
    let function = context.vfio(0)?;
    let address = &function.address;
    let bench = format!("bench --vfio {address} --time 0.2");
    let copy_to = format!("copy /init vfio:{address}");
    let cases: &[(String, i32, &str)] = &[
        (format!("{bench} --namespace 9"), 2, "has no active namespace 9; it has 1, 2"),
        (format!("{bench} --namespace 0"), 2, "has no active namespace 0; it has 1, 2"),
        (format!("{bench} --bs 1000"), 2, "whole blocks of 512 bytes only; use --bs 1024"),
        (format!("{bench} --namespace 2 --bs 512"), 2, "use --bs 4096"),
        (format!("{bench} --size 1G"), 2, "has only 33554432 bytes; use --size 33554432 or less"),
        (format!("{bench} --size 1k"), 2, "1024 bytes are less than one block"),
        (format!("{bench} --rw randwrite"), 2, "add --overwrite"),
        (format!("{bench} --verify"), 2, "add --overwrite"),
        (format!("{bench} --compare"), 2, "the kernel has no driver"),
        (copy_to.clone(), 2, "use --force if nothing on it is needed any more"),
        (format!("{copy_to}/7 --force"), 2, "has no active namespace 7; it has 1, 2"),
        (format!("{copy_to}/2 --force --bs 1000"), 2, "use --bs 4096"),
        (format!("copy vfio:{address} /tmp"), 2, "is a directory; name the file"),
        (format!("copy vfio:{address} vfio:{address} --force"), 2, "onto itself"),
        (format!("copy vfio:{address} /tmp/x --size 1G"), 2, "has only 33554432 bytes"),
        (format!("copy /tmp/none vfio:{address} --force"), 1, "does not exist"),
        ("info --vfio 0000:00:1e.7".into(), 1, "there is no PCI device 0000:00:1e.7"),
        // The machine's bridge to ISA.
        ("info --vfio 0000:00:1f.0".into(), 2, "is no NVMe controller"),
        ("bench --vfio 0000:00:1f.0".into(), 2, "is no NVMe controller"),
    ];
    for (line, code, words) in cases {
        annulus(line)?.fails(*code, &[words])?;
    }
    // One user at a time.
    let mut other = Command::new(ANNULUS)
        .args(["bench", "--vfio", address, "--time", "60"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{ANNULUS}: {e}"))?;
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let said = format!("{address} is in use by process {} (annulus)", other.id());
    let info = annulus(&format!("info --vfio {address}"));
    let unbind = annulus(&format!("unbind {address}"));
    other.kill().and_then(|()| other.wait()).map_err(|e| e.to_string())?;
    info?.fails(1, &[&said, "end its user first"])?;
    unbind?.fails(1, &[&said])?;
    // A process that was killed has left nothing behind.
    annulus(&format!("info --vfio {address}"))?.says(&["no warnings"])?;
    // Last: what follows in this process, and what it starts, may lock less and less.
    for (limit, line) in [
        // Enough for the driver's own.
        (8 << 20, format!("{bench} --registered --bs 1m --depth 16")),
        // Not for the ring's, and not for the controller's.
        (64 << 10, format!("{bench} --registered --depth 128")),
        (4 << 10, format!("info --vfio {address}")),
    ] {
        limit_locked_memory(limit)?;
        let said = format!("exceeds this process's limit of locked memory, {limit} bytes");
        annulus(&line)?.fails(1, &[&said, "ulimit -l"])?;
    }
    Ok(format!("{} requests", cases.len() + 5))
}

/// Not to be exceeded by root either.
fn limit_locked_memory(bytes: u64) -> Result<(), String> {
    let text = |e: rustix::io::Errno| e.to_string();
    remove_capability_from_bounding_set(CapabilitySet::IPC_LOCK).map_err(text)?;
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Memlock, limit).map_err(text)
}
