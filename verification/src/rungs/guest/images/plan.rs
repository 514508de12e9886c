//! The machines for images, and the scenarios that each runs.

use super::super::machine::Drive;
use super::super::plan::{Check, Line};
use super::super::power_cut;
use super::fat::{self, Fat};
use super::machine::{Bus, Disk, Kind, Machine};

/// The block of 512 bytes that cannot be read on a failing medium.
const BAD: u64 = 64;
const EIO: i32 = 5;
/// MiB of a disk.
const MIB: u64 = 64;

/// A machine and what its image runs, in this order.
pub struct Planned {
    /// The machine.
    pub machine: Machine,
    /// Its scenarios.
    pub scenarios: &'static [Line],
    /// Scenarios that must fail, each in a boot of its own: what must be said,
    /// and the seconds.
    pub failing: &'static [(&'static str, &'static str, u64)],
    /// What is checked of its directory once it is off.
    pub checks: &'static [Check],
}

/// All machines.
pub fn all() -> Vec<Planned> {
    let mut all = Vec::new();
    for kind in [Kind::Q35, Kind::Microvm, Kind::Virt, Kind::VirtMmio] {
        all.push(bare(kind));
        all.extend(DRIVEN.iter().map(|driven| driven.on(kind)));
        all.push(read_only(kind));
        all.push(faults(kind, Bus::Virtio));
        all.push(power_cuts(kind));
    }
    for kind in [Kind::Q35, Kind::Virt] {
        all.push(nvme(kind));
        all.push(faults(kind, Bus::Nvme));
        all.push(unplug(kind, Bus::Virtio));
        all.push(unplug(kind, Bus::Nvme));
    }
    all.extend(FAT.iter().map(OnFat::planned));
    all.push(spoiled(Kind::Q35));
    all.push(spoiled(Kind::VirtMmio));
    all.push(bench());
    all
}

/// No disk: the machine is what the others take it for.
fn bare(kind: Kind) -> Planned {
    Planned {
        machine: Machine::new(named("bare", kind), kind),
        scenarios: &[("sleeps", 20), ("wakes-the-second-core", 30)],
        // A rung that took these for passed would show nothing.
        failing: &[
            ("fails how=says-so", "as it was asked to", 10),
            ("fails how=panics", "PANIC on core 0: as it was asked to", 10),
            ("fails how=excepts", "EXCEPTION", 10),
            ("fails how=hangs", "the image says nothing more", 3),
        ],
        checks: &[],
    }
}

/// Ways in which a virtio disk is driven, on either bus.
struct Driven {
    name: &'static str,
    block: u32,
    properties: &'static str,
    scenarios: &'static [Line],
}

/// What every way of driving a disk is shown with.
macro_rules! io {
    ($is:literal $(, $more:expr)*) => {
        &[
            ($is, 20),
            ("rules-of-a-disk completions=adaptive", 20),
            ("verified-io mode=inline completions=polled", 40),
            ("verified-io mode=inline completions=interrupts", 40),
            ("verified-io mode=sqpoll completions=polled", 40),
            ("verified-io mode=sqpoll completions=interrupts", 40),
            $($more,)*
        ]
    };
}

const DRIVEN: &[Driven] = &[
    Driven {
        name: "split",
        block: 512,
        properties: "num-queues=1",
        scenarios: io!("disk-is queues=1 is=split,indirect,event-idx,block-512,cached"),
    },
    Driven {
        name: "split-plain",
        block: 4096,
        properties: "num-queues=1,indirect_desc=off,event_idx=off",
        scenarios: io!("disk-is queues=1 is=split,direct,flags,block-4096"),
    },
    Driven {
        name: "split-4-queues",
        block: 512,
        properties: "num-queues=4",
        scenarios: io!(
            "disk-is queues=4 is=split,indirect,event-idx",
            ("many-rings rings=4 completions=interrupts", 60),
            ("many-rings rings=4 completions=adaptive", 60)
        ),
    },
    Driven {
        name: "packed",
        block: 512,
        properties: "num-queues=1,packed=on",
        scenarios: io!("disk-is queues=1 is=packed,indirect,event-idx"),
    },
    Driven {
        name: "packed-plain",
        block: 4096,
        properties: "num-queues=1,packed=on,indirect_desc=off,event_idx=off",
        scenarios: io!("disk-is queues=1 is=packed,direct,flags,block-4096"),
    },
    Driven {
        name: "packed-4-queues",
        block: 4096,
        properties: "num-queues=4,packed=on",
        scenarios: io!(
            "disk-is queues=4 is=packed,indirect,event-idx,block-4096",
            ("many-rings rings=4 completions=interrupts", 60),
            ("many-rings rings=4 completions=adaptive", 60)
        ),
    },
];

impl Driven {
    fn on(&self, kind: Kind) -> Planned {
        let disk = Disk::new(Bus::Virtio, Drive::file(MIB), self.block).with(self.properties);
        Planned {
            machine: Machine::new(named(self.name, kind), kind).disk(disk),
            scenarios: self.scenarios,
            failing: &[],
            checks: &[],
        }
    }
}

/// An NVMe controller, in blocks of either size.
fn nvme(kind: Kind) -> Planned {
    let disk = |block| Disk::new(Bus::Nvme, Drive::file(MIB), block).with("max_ioqpairs=4");
    Planned {
        machine: Machine::new(named("nvme", kind), kind).disk(disk(512)).disk(disk(4096)),
        scenarios: io!(
            "disk-is queues=4 is=nvme,block-512",
            ("disk-is disk=1 is=nvme,block-4096", 20),
            ("rules-of-a-disk disk=1 completions=interrupts", 20),
            ("verified-io disk=1 mode=sqpoll completions=adaptive", 40),
            ("many-rings rings=4 completions=interrupts", 60)
        ),
        failing: &[],
        checks: &[],
    }
}

/// A disk that fails a read, and one that takes next to no writes.
fn faults(kind: Kind, bus: Bus) -> Planned {
    let failing = Disk::new(bus, Drive::file(MIB).fails("read", Some(BAD), EIO), 512);
    // Requests merged into one would fail together.
    let failing = if bus == Bus::Virtio { failing.with("request-merging=off") } else { failing };
    let stalled = Disk::new(bus, Drive::file(MIB).stalled(), 512);
    let what = match bus {
        Bus::Virtio => "faults",
        Bus::Nvme => "nvme-faults",
    };
    let machine = Machine::new(named(what, kind), kind).disk(failing).disk(stalled);
    let scenarios: &[Line] = &[
        ("failing-medium sector=64 completions=polled", 20),
        ("failing-medium sector=64 completions=interrupts", 20),
        ("stalled-medium disk=1 timeout-ms=1000 completions=polled", 40),
        ("stalled-medium disk=1 timeout-ms=1000 completions=interrupts", 40),
    ];
    Planned { machine, scenarios, failing: &[], checks: &[] }
}

/// A disk that cannot be written.
fn read_only(kind: Kind) -> Planned {
    let disk = Disk::new(Bus::Virtio, Drive::file(MIB).read_only(), 512);
    Planned {
        machine: Machine::new(named("read-only", kind), kind).disk(disk),
        scenarios: &[("disk-is is=read-only", 20), ("rules-of-a-disk", 20)],
        failing: &[],
        checks: &[],
    }
}

/// The benchmark; its table is on the serial line.
fn bench() -> Planned {
    let disk = Disk::new(Bus::Virtio, Drive::null(1024), 512);
    Planned {
        machine: Machine::new("image-microvm-bench", Kind::Microvm).disk(disk),
        scenarios: &[("bench turns=3 ms=200", 60)],
        failing: &[],
        checks: &[],
    }
}

/// A disk that is taken out while it is read.
fn unplug(kind: Kind, bus: Bus) -> Planned {
    let name = match bus {
        Bus::Virtio => named("unplug", kind),
        Bus::Nvme => named("nvme-unplug", kind),
    };
    Planned {
        machine: Machine::new(name, kind).disk(Disk::new(bus, Drive::file(MIB), 512)),
        // The machine goes on without it.
        scenarios: &[("hot-unplug completions=interrupts", 60), ("sleeps times=50", 20)],
        failing: &[],
        checks: &[],
    }
}

/// A FAT volume: where, of which kind, and how the ring below it is driven.
struct OnFat(Kind, Bus, Fat, &'static [Line]);

const FAT: &[OnFat] = &[
    OnFat(Kind::Q35, Bus::Nvme, Fat::Fat16, &[("fat mode=sqpoll completions=interrupts", 60)]),
    OnFat(Kind::Microvm, Bus::Virtio, Fat::Fat32, &[("fat completions=interrupts", 60)]),
    OnFat(Kind::Virt, Bus::Virtio, Fat::Fat32, &[("fat completions=interrupts", 60)]),
    OnFat(Kind::VirtMmio, Bus::Virtio, Fat::Fat16, &[("fat mode=sqpoll completions=adaptive", 60)]),
];

impl OnFat {
    fn planned(&self) -> Planned {
        let Self(kind, bus, fat, scenarios) = *self;
        let disk = Disk::new(bus, Drive::fat(fat), 512);
        Planned {
            machine: Machine::new(named("fat", kind), kind).disk(disk),
            scenarios,
            failing: &[],
            checks: &[("the host finds every file", |dir| fat::holds(&dir.join("disk0")))],
        }
    }
}

/// A byte of a file is not what it should be: the image must see it.
fn spoiled(kind: Kind) -> Planned {
    let disk = Disk::new(Bus::Virtio, Drive::fat(Fat::Spoiled), 512);
    Planned {
        machine: Machine::new(named("fat-spoiled", kind), kind).disk(disk),
        scenarios: &[],
        failing: &[("fat", "BIG.BIN is wrong from byte 150000 on", 60)],
        checks: &[],
    }
}

/// Every write and flush is recorded, and replayed up to each cut: as it is,
/// and by a build that leaves the flushes out.
fn power_cuts(kind: Kind) -> Planned {
    let disk = || Disk::new(Bus::Virtio, Drive::file(8).logged(), 512);
    Planned {
        machine: Machine::new(named("power-cuts", kind), kind).disk(disk()).disk(disk()),
        scenarios: &[
            ("power-cut-workload completions=adaptive", 60),
            ("power-cut-workload disk=1 fault=FlushForgotten", 60),
        ],
        failing: &[],
        checks: &[
            ("every cut leaves what was flushed", |dir| power_cut::holds(&dir.join("disk0.log"))),
            ("flushes left out are caught", |dir| power_cut::caught(&dir.join("disk1.log"))),
        ],
    }
}

fn named(what: &str, kind: Kind) -> String {
    format!("image-{}-{what}", kind.name())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn machines_have_names_of_their_own_and_images_have_the_scenarios() {
        let mut names = HashSet::new();
        for Planned { machine, scenarios, failing, .. } in all() {
            assert!(names.insert(machine.name.clone()), "{} is there twice", machine.name);
            let failing = failing.iter().map(|(words, ..)| *words);
            for words in scenarios.iter().map(|(words, _)| *words).chain(failing) {
                let name = words.split(' ').next().unwrap_or_default();
                let there = annulus_unikernel::script::NAMES.contains(&name);
                assert!(there, "no image has {name}");
            }
        }
    }
}
