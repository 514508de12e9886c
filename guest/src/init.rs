//! Process 1: sets the guest up, and runs what the host asks for.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot, uname};

use crate::control::{FromGuest, Host, ToGuest};
use crate::scenarios::RESULT;

/// The first argument of a scenario's process.
pub const SCENARIO: &str = "scenario";

/// Where the modules lie in the initramfs, and the list of them in the order
/// to be loaded: one file name a line.
pub const MODULES: &str = "/modules";
/// The list's name in [`MODULES`].
pub const MODULES_ORDER: &str = "order";

/// The same program with seeded faults, for scenarios with `fault=NAME`; it
/// is there if the plan has one.
pub const FAULTY: &str = "/bin/annulus-guest-faults";
/// The program `annulus`, as users have it.
pub const ANNULUS: &str = "/bin/annulus";

/// File systems of every guest: what, where.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/dev/shm"),
    ("hugetlbfs", "/dev/hugepages"),
];

/// Sets the guest up, does what the host says, and powers off.
pub fn main() -> ExitCode {
    if let Err(why) = serve() {
        // The console is all that is left to say it on.
        println!("annulus-guest: {why}");
    }
    let _ = reboot(RebootCommand::PowerOff);
    // A kernel that cannot power off panics now, and the host sees that.
    ExitCode::FAILURE
}

fn serve() -> Result<(), String> {
    for (kind, place) in MOUNTS {
        mount_at(kind, place)?;
    }
    load_modules()?;
    let line = |e| format!("the control channel: {e}");
    let mut host = Host::open().map_err(line)?;
    let release = uname().release().to_string_lossy().into_owned();
    host.say(&FromGuest::Ready(release)).map_err(line)?;
    loop {
        match host.hear().map_err(line)? {
            ToGuest::Run { seconds, words } => {
                let result = run(&words, Duration::from_secs(seconds));
                let name = words.first().map_or("", String::as_str);
                let (verdict, said) = match result {
                    Ok(text) => (format!("ok ({text})"), FromGuest::Passed(text)),
                    Err(why) => (format!("FAILED {why}"), FromGuest::Failed(why)),
                };
                println!("scenario {name} ... {verdict}");
                host.say(&said).map_err(line)?;
            }
            ToGuest::Off => return Ok(()),
            other => return Err(format!("nobody asked for {other}")),
        }
    }
}

fn mount_at(kind: &str, place: &str) -> Result<(), String> {
    fs::create_dir_all(place).map_err(|e| format!("{place}: {e}"))?;
    mount(kind, place, kind, MountFlags::empty(), None)
        .map_err(|e| format!("cannot mount {kind} at {place}: {e}"))
}

/// Loads the modules in their order, with the parameters that the kernel's
/// command line has for them, as modprobe does.
fn load_modules() -> Result<(), String> {
    let cmdline = fs::read_to_string("/proc/cmdline").map_err(|e| format!("/proc/cmdline: {e}"))?;
    let list = format!("{MODULES}/{MODULES_ORDER}");
    let list = fs::read_to_string(&list).map_err(|e| format!("{list}: {e}"))?;
    for file in list.lines() {
        let path = format!("{MODULES}/{file}");
        let failed = |e: &dyn std::fmt::Display| format!("cannot load {path}: {e}");
        let name = file.trim_end_matches(".ko");
        let params = CString::new(parameters(&cmdline, name)).map_err(|e| failed(&e))?;
        let module = File::open(&path).map_err(|e| failed(&e))?;
        match finit_module(&module, &params, 0) {
            // Some are tried for several devices; one may be there already.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(failed(&e)),
        }
    }
    Ok(())
}

/// The parameters of a module on the kernel's command line.
fn parameters(cmdline: &str, module: &str) -> String {
    // The kernel takes - and _ in names for the same.
    let plain = |name: &str| name.replace('-', "_");
    let own = |word: &str| {
        let (name, parameter) = word.split_once('.')?;
        (plain(name) == plain(module)).then(|| parameter.to_owned())
    };
    cmdline.split_whitespace().filter_map(own).collect::<Vec<_>>().join(" ")
}

/// Runs a scenario in a process of its own, so that what it leaves behind,
/// and a crash, are over with it.
fn run(words: &[String], limit: Duration) -> Result<String, String> {
    match fs::remove_file(RESULT) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(format!("{RESULT}: {e}")),
        _ => {}
    }
    let faulty = words.iter().any(|word| word.starts_with("fault="));
    let program = if faulty { FAULTY } else { "/proc/self/exe" };
    let failed = |e: std::io::Error| format!("its process, {program}: {e}");
    let mut child = Command::new(program).arg(SCENARIO).args(words).spawn().map_err(failed)?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(format!("not done after {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = fs::read_to_string(RESULT);
    match (status.code(), said) {
        (Some(0), Ok(text)) => Ok(text),
        (Some(1), Ok(why)) => Err(why),
        (None, _) => Err(format!("ended by signal {}", status.signal().unwrap_or_default())),
        _ => Err(format!("its process ended with {status} and said nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_get_their_parameters() {
        let cmdline = "console=ttyS0 nvme.poll_queues=2 vfio_pci.disable_idle_d3=1 nvme.x=y";
        assert_eq!(parameters(cmdline, "nvme"), "poll_queues=2 x=y");
        assert_eq!(parameters(cmdline, "vfio-pci"), "disable_idle_d3=1");
        assert_eq!(parameters(cmdline, "nvme-core"), "");
    }
}
