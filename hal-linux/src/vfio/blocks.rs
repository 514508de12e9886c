//! Who uses the block devices of a controller.

use std::fs;
use std::path::{Path, PathBuf};

use super::sysfs::{Function, names, users};

/// A block device or a partition: its name, its folder in sysfs.
type Block = (String, PathBuf);

/// What uses the namespaces of a controller, in words, and how it is ended;
/// `None` if nothing does. `claimed` tells whether the kernel itself holds a
/// device file's block device.
pub fn in_use(function: &Function, claimed: &dyn Fn(&Path) -> bool) -> Option<String> {
    let roots = &function.roots;
    let blocks = blocks(function);
    let mounts = fs::read_to_string(roots.proc.join("self/mountinfo")).unwrap_or_default();
    let swaps = fs::read_to_string(roots.proc.join("swaps")).unwrap_or_default();
    let node = |name: &str| roots.dev.join(name);
    let each = |look: &dyn Fn(&Block) -> Option<String>| blocks.iter().find_map(look);
    // The answers that tell most first.
    each(&|(name, dir)| {
        let number = fs::read_to_string(dir.join("dev")).unwrap_or_default();
        let point = mounted(&mounts, number.trim(), &node(name))?;
        Some(format!("{name} is mounted on {point}; `umount {point}` first"))
    })
    .or_else(|| {
        each(&|(name, _)| {
            let path = node(name).display().to_string();
            let here = swaps.lines().any(|line| line.split([' ', '\t']).next() == Some(&path));
            here.then(|| format!("the system swaps to {name}; `swapoff {path}` first"))
        })
    })
    .or_else(|| {
        each(&|(name, dir)| {
            let holders = names(&dir.join("holders"));
            (!holders.is_empty()).then(|| {
                format!(
                    "{name} is part of {}; take that down first (LVM, dm-crypt, RAID: `lsblk`)",
                    holders.join(", ")
                )
            })
        })
    })
    .or_else(|| {
        each(&|(name, _)| {
            let by = users(roots, &node(name));
            (!by.is_empty()).then(|| format!("{} has {name} open; end it first", by.join(", ")))
        })
    })
    .or_else(|| {
        each(&|(name, _)| {
            claimed(&node(name)).then(|| {
                format!(
                    "the kernel holds {name}: a file system of several devices, or one that is \
                     mounted in another namespace (`lsblk`, `findmnt -A`)"
                )
            })
        })
    })
}

/// The block devices of a controller's namespaces, and their partitions.
fn blocks(function: &Function) -> Vec<Block> {
    let mut found = Vec::new();
    let controllers = function.dir.join("nvme");
    for controller in names(&controllers) {
        gather(&controllers.join(&controller), &mut found);
        // With several paths to a namespace its block device belongs to the
        // subsystem, of which the controller is a part.
        let subsystems = function.roots.sys.join("class/nvme-subsystem");
        for subsystem in names(&subsystems) {
            let dir = subsystems.join(subsystem);
            if dir.join(&controller).exists() {
                gather(&dir, &mut found);
            }
        }
    }
    found
}

/// Block devices right in `dir`, and partitions in them.
fn gather(dir: &Path, found: &mut Vec<Block>) {
    for name in names(dir) {
        let path = dir.join(&name);
        // Not the links to where a folder belongs, nor to other controllers.
        if path.is_symlink() || !path.join("holders").is_dir() {
            continue;
        }
        found.push((name, path.clone()));
        gather(&path, found);
    }
}

/// Where the device with this `major:minor`, or this file, is mounted.
///
/// `/proc/self/mountinfo` (proc_pid_mountinfo(5)): number, parent, device,
/// root, mount point, options, ... `-`, type, source, ... File systems of
/// several devices (btrfs) have a device number of their own, so the source
/// counts too.
fn mounted(mounts: &str, number: &str, node: &Path) -> Option<String> {
    let node = node.to_str()?;
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(2);
        let (device, point) = (front.next()?, front.nth(1)?);
        let source = back.split(' ').nth(1);
        (device == number || source == Some(node)).then(|| unescape(point))
    })
}

/// Blanks and the like stand as `\040` in mountinfo.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|octal| std::str::from_utf8(octal).ok());
        match code.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
40 28 0:35 /home /mnt/my\\040disk rw shared:20 - btrfs /dev/nvme1n1 rw,space_cache=v2
";

    #[test]
    fn mounts_are_found_by_number_and_by_source() {
        let at = |number, node: &str| mounted(MOUNTS, number, Path::new(node));
        assert_eq!(at("259:2", "/dev/nvme0n1p2").as_deref(), Some("/"));
        assert_eq!(at("259:5", "/dev/nvme1n1").as_deref(), Some("/mnt/my disk"));
        assert_eq!(at("259:1", "/dev/nvme0n1"), None);
    }

    #[test]
    fn escapes_are_undone_and_the_rest_kept() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
        assert_eq!(unescape("/ä"), "/ä");
    }
}
