//! Archives in cpio's "newc" format, which the kernel unpacks as its initramfs.
//! (Linux: Documentation/driver-api/early-userspace/buffer-format.rst)

/// What an entry is.
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const CHARACTERS: u32 = 0o020_600;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: Vec<String>,
}

impl Archive {
    /// A file that can be run, and the directories that it lies in.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.parents(path);
        self.entry(path, EXECUTABLE, (0, 0), content);
    }

    /// A character device.
    pub fn device(&mut self, path: &str, number: (u32, u32)) {
        self.parents(path);
        self.entry(path, CHARACTERS, number, &[]);
    }

    /// The whole of it.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        // The kernel makes no directory by itself.
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if !parent.is_empty() && !self.directories.iter().any(|there| there == parent) {
                self.directories.push(parent.to_owned());
                self.entry(parent, DIRECTORY, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let path = path.trim_start_matches('/');
        self.entries += 1;
        let length = content.len() as u32;
        let name_length = path.len() as u32 + 1;
        // Inode, mode, user, group, links, time, length, the device that it
        // lies on, the device that it is, length of the name, checksum.
        let (major, minor) = device;
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, major, minor, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of the entry at `at`, its name, and where the next begins.
    fn read(bytes: &[u8], at: usize) -> (Vec<u32>, String, usize) {
        assert_eq!(&bytes[at..at + 6], b"070701");
        let hex = |n: usize| {
            let from = at + 6 + 8 * n;
            let digits = std::str::from_utf8(&bytes[from..from + 8]).expect("digits");
            u32::from_str_radix(digits, 16).expect("a number")
        };
        let fields: Vec<u32> = (0..13).map(hex).collect();
        let (length, name_length) = (fields[6] as usize, fields[11] as usize);
        let name = &bytes[at + 110..at + 110 + name_length - 1];
        let content = (at + 110 + name_length).next_multiple_of(4);
        let name = String::from_utf8_lossy(name).into_owned();
        (fields, name, (content + length).next_multiple_of(4))
    }

    #[test]
    fn entries_are_where_the_kernel_looks_for_them() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", b"12345");
        archive.file("/a/d", b"");
        archive.device("/dev/console", (5, 1));
        let bytes = archive.finish();
        let mut at = 0;
        let mut names = Vec::new();
        while at < bytes.len() {
            let (fields, name, next) = read(&bytes, at);
            match name.as_str() {
                "a/b/c" => {
                    assert_eq!((fields[1], fields[6]), (EXECUTABLE, 5));
                    assert_eq!(&bytes[next - 8..next - 3], b"12345");
                }
                "dev/console" => assert_eq!((fields[1], fields[9], fields[10]), (CHARACTERS, 5, 1)),
                _ => assert_eq!(fields[6], 0),
            }
            names.push(name);
            at = next;
        }
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/d", "dev", "dev/console", "TRAILER!!!"]);
    }
}
