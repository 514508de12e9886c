//! `annulus bench --vfio`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::annulus;
use crate::init::ANNULUS;
use crate::scenarios::Context;

/// Verified reads and writes in every mode, registered and not, completions
/// found in one way. Arguments: `completions=WAY`, `nsid=N`; `shadow=yes` for
/// shadow doorbells in the first mode only.
pub fn measures(context: &mut Context) -> Result<String, String> {
    let way = context.arg("completions").unwrap_or("adaptive").to_owned();
    let nsid = context.arg("nsid").unwrap_or("1").to_owned();
    let (shadow, modes) = match context.arg("shadow") {
        Some("yes") => ("--shadow-doorbells", &["inline"][..]),
        _ => ("", &["inline", "sqpoll", "served"][..]),
    };
    let address = context.vfio(0)?.address;
    let before = context.host.stats("ns0")?;
    let mut operations = 0;
    for &mode in modes {
        for (shape, more) in [
            ("--bs 4k --depth 32", "--registered"),
            ("--bs 4k --depth 128 --batch 16", ""),
            ("--bs 1M --depth 4", ""),
            ("--bs 4k --depth 1", "--registered"),
        ] {
            let line = format!(
                "bench --vfio {address} --namespace {nsid} --completions {way} {shadow} --mode \
                 {mode} {shape} {more} --rw randrw --verify --overwrite --size 4M --time 0.2 --json"
            );
            let ran = annulus(&line)?;
            let said: Value =
                serde_json::from_str(&ran.says(&[])?.out).map_err(|e| format!("{line}: {e}"))?;
            if said["engine"] != "annulus" || said["mode"] != mode || said["errors"] != 0 {
                return Err(format!("`{line}` says {said}"));
            }
            operations += said["ops"].as_u64().unwrap_or_default();
        }
    }
    annulus(&format!("bench --vfio {address} --namespace {nsid} --completions {way} --time 0.3"))?
        .says(&[
            &format!("namespace {nsid} of QEMU NVMe Ctrl at {address}"),
            &format!("VFIO, completions: {way}"),
            "latency",
        ])?;
    let after = context.host.stats("ns0")?;
    if nsid == "1" && after.writes == before.writes {
        return Err("the medium saw nothing of it".into());
    }
    Ok(format!("{operations} verified operations"))
}

/// Ctrl-C ends a measurement soon, also one that waits for interrupts, and
/// the controller can be had again.
pub fn is_interrupted(context: &mut Context) -> Result<String, String> {
    let address = context.vfio(0)?.address;
    let mut longest = Duration::ZERO;
    for way in ["polled", "interrupts", "adaptive"] {
        let line = format!("bench --vfio {address} --completions {way} --time 60");
        let mut child = Command::new(ANNULUS)
            .args(line.split_whitespace())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("{ANNULUS}: {e}"))?;
        std::thread::sleep(Duration::from_millis(1500));
        let asked = Instant::now();
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::INT).map_err(|e| format!("a signal: {e}"))?;
        let status = child.wait().map_err(|e| e.to_string())?;
        longest = longest.max(asked.elapsed());
        if status.code() != Some(130) || asked.elapsed() > Duration::from_secs(5) {
            return Err(format!("{way}: it ended with {status} after {:?}", asked.elapsed()));
        }
        annulus(&format!("info --vfio {address}"))?.says(&["no warnings"])?;
    }
    Ok(format!("ended after {} ms at most", longest.as_millis()))
}
