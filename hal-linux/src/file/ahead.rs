//! How far the kernel reads ahead in a file, which bounds a run of sequential
//! requests (`order`).

use std::io::Write;

use rustix::fs::{Mode, OFlags, open};

/// Devices that are remembered.
const DEVICES: usize = 8;
/// The most bytes of a run, as a multiple of the read-ahead.
const TIMES: u64 = 8;
/// Where the kernel does not say: its own default.
const DEFAULT_KIB: u64 = 128;

/// What has been found out, for one ring.
#[derive(Debug)]
pub struct Ahead {
    /// Whether there are runs at all.
    merge: bool,
    known: [Option<(u64, u32)>; DEVICES],
    /// Which is forgotten next.
    oldest: usize,
}

impl Ahead {
    pub fn new(merge: bool) -> Self {
        Self { merge, known: [None; DEVICES], oldest: 0 }
    }

    /// The most bytes of a run in files of this device; 0 without runs.
    pub fn run(&mut self, device: u64) -> u32 {
        if !self.merge {
            return 0;
        }
        if let Some((_, run)) = self.known.iter().flatten().find(|(known, _)| *known == device) {
            return *run;
        }
        let bytes = kib(device).unwrap_or(DEFAULT_KIB) * 1024 * TIMES;
        let run = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.known[self.oldest] = Some((device, run));
        self.oldest = (self.oldest + 1) % DEVICES;
        run
    }
}

/// The read-ahead of a device in KiB. None if the kernel does not say.
fn kib(device: u64) -> Option<u64> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    // A file system without a device of its own (NFS, FUSE) has the first, a
    // disk both, a partition only that of its disk.
    ["/sys/class/bdi/", "/sys/dev/block/"].into_iter().zip(["", "/../queue"]).find_map(
        |(dir, more)| {
            let mut path = [0; 80];
            write!(&mut path[..], "{dir}{major}:{minor}{more}/read_ahead_kb").ok()?;
            let path = path.split(|&byte| byte == 0).next()?;
            let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let mut text = [0; 20];
            let len = rustix::io::read(&file, &mut text).ok()?;
            str::from_utf8(&text[..len]).ok()?.trim().parse().ok()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_asked_once() {
        let mut ahead = Ahead::new(true);
        // A device that is not there: the kernel's default.
        let nobody = libc::makedev(4000, 1);
        assert_eq!(ahead.run(nobody), 1 << 20);
        for minor in 2..10 {
            ahead.run(libc::makedev(4000, minor));
        }
        assert!(ahead.known.iter().flatten().all(|(device, _)| *device != nobody), "forgotten");
        assert_eq!(Ahead::new(false).run(nobody), 0);
    }

    #[test]
    fn the_kernel_says_it_of_this_file_system() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let (major, minor) = (libc::major(stat.st_dev), libc::minor(stat.st_dev));
        let said = std::fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"));
        if let Ok(said) = said {
            assert_eq!(kib(stat.st_dev), said.trim().parse().ok());
        }
    }
}
