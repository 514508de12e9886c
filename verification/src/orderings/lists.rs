//! What the models do not run, with the argument; and what can be weakened
//! without a change, with the proof.

use super::Site;

/// Operations that no model runs: the file, the function (`*`: any end), and why
/// that is right. The first that fits.
const APART: &[(&str, &str, &str)] = &[
    ("core/src/engine/bell.rs", "*", WISH),
    ("core/src/engine/build.rs", "StaticMemory::take", ONCE),
    ("core/src/engine/remote.rs", "Remote::sq_flags", EYE),
    ("core/src/engine/restrict.rs", "Engine::enable_rings", CALL),
    ("core/src/engine/wait.rs", "Shared::until", CALL),
    ("core/src/engine/wait.rs", "Engine::register_clock", CALL),
    ("core/src/hal/device.rs", "*", DEVICE),
    ("core/src/nvme/controller.rs", "Controller::leak", STATISTIC),
    ("core/src/nvme/controller.rs", "Controller::leaked_pages", STATISTIC),
    ("core/src/nvme/controller.rs", "*", STATE),
    ("core/src/provided.rs", "Ring::first", APPLICATION),
    ("core/src/ring/cq.rs", "CompletionQueue::disable_eventfd", WISH),
    ("core/src/ring/cq.rs", "CompletionQueue::overflow", STATISTIC),
    ("core/src/ring/entry.rs", "*", "under loom an entry is a cell, which is watched instead"),
    ("core/src/signal.rs", "Signal::lower", "tells nothing"),
    (
        "core/src/slot.rs",
        "Message::*",
        "under loom the message is a cell, which is watched instead",
    ),
    ("core/src/wake.rs", "EventCount::sleeping", EYE),
    ("core/src/worker/lane.rs", "Lane::remove_idle", "under the pool's lock, which models run"),
    ("hal-baremetal/src/arena.rs", "Pages::take", ONCE),
    ("hal-baremetal/src/lib.rs", "Spinning::park", "who parks looks again by itself"),
    ("hal-baremetal/src/pci/slot.rs", "*", WISH),
    ("hal-baremetal/src/virtio/disk.rs", "Disk::leak", STATISTIC),
    ("hal-baremetal/src/virtio/disk.rs", "Disk::leaked_pages", STATISTIC),
    ("hal-baremetal/src/virtio/disk.rs", "*", STATE),
    ("hal-linux/src/file/blocks.rs", "*", LINUX),
    ("hal-linux/src/file/held.rs", "*", LINUX),
    ("hal-linux/src/guard.rs", "*", "carries no data; a fork orders itself"),
    ("hal-linux/src/host.rs", "LinuxHost::sleep", LINUX),
    ("hal-linux/src/rings.rs", "*", LINUX),
    ("hal-linux/src/own.rs", "*", "the number comes to other threads by the kernel"),
];

const WISH: &str = "a wish, that carries no data";
const ONCE: &str = "one caller gets it, whatever the order";
const EYE: &str = "for the eye only";
const CALL: &str = "the answer to the call orders it: the mailbox's models";
const DEVICE: &str = "towards devices: argued beside the code";
const STATISTIC: &str = "a statistic";
const STATE: &str = "a number; what goes with it is under a lock";
const APPLICATION: &str = "in memory that the application lays out: no twin would fit";
const LINUX: &str = "Linux's files and futexes are not loom's: hal-linux's tests, in threads";

/// Weakenings that change nothing: the file, the function, the operation, which
/// of them in the function, how it is weakened, and the proof.
const EQUIVALENT: &[(&str, &str, &str, usize, &str, &str)] = &[(
    "core/src/engine/mod.rs",
    "Engine::shutdown",
    "store",
    0,
    "relaxed",
    "`publish` before it ends with a full fence in every mode in which another thread can ask, \
     and the fence and the store release what the store alone would",
)];

fn meant(site: &Site, (file, function): (&str, &str)) -> bool {
    let whole = function.strip_suffix('*');
    site.file == file
        && whole.map_or(site.function == function, |begin| site.function.starts_with(begin))
}

/// Why no model runs it.
pub fn apart(site: &Site) -> Option<&'static str> {
    APART.iter().find(|&&(file, function, _)| meant(site, (file, function))).map(|row| row.2)
}

/// Why it changes nothing to weaken it so.
pub fn equivalent(site: &Site, how: &str) -> Option<&'static str> {
    let same = |row: &&(&str, &str, &str, usize, &str, &str)| {
        meant(site, (row.0, row.1)) && row.2 == site.operation && row.3 == site.nth && row.4 == how
    };
    EQUIVALENT.iter().find(same).map(|row| row.5)
}

/// Rows that name what is not there.
pub fn unused(sites: &[Site]) -> Vec<String> {
    let apart = APART.iter().map(|&(file, function, _)| (file, function));
    let equivalent = EQUIVALENT.iter().map(|row| (row.0, row.1));
    apart
        .chain(equivalent)
        .filter(|&row| !sites.iter().any(|site| meant(site, row)))
        .map(|(file, function)| format!("{file} {function}"))
        .collect()
}
