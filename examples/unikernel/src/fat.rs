//! Work on a FAT volume, over anything that reads and writes blocks: what the
//! host has put there is read and compared, changed, and more is written. Both
//! sides know every byte of every file, before and after.

use embedded_sdmmc::{
    BlockDevice, Directory, Mode, TimeSource, Timestamp, VolumeIdx, VolumeManager,
};

/// The volume's first block, of 512 bytes: the first partition's.
pub const PARTITION: u32 = 2048;

/// A file and all that is in it.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// The directory below the root, or nothing for the root itself.
    pub directory: &'static str,
    /// As FAT has names: eight letters and three.
    pub name: &'static str,
    /// What follows each other in it.
    pub parts: &'static [Part],
}

/// So many bytes of a noise, from a place in it on.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Which noise.
    pub seed: u32,
    /// Where in it.
    pub from: u32,
    /// Bytes.
    pub len: u32,
}

const fn part(seed: u32, from: u32, len: u32) -> Part {
    Part { seed, from, len }
}

const fn file(directory: &'static str, name: &'static str, parts: &'static [Part]) -> Content {
    Content { directory, name, parts }
}

/// The host's directory, which is there before, and the image's.
pub const DIRECTORIES: [&str; 2] = ["HOST", "IMAGE"];

/// Of many clusters, and not a whole number of blocks.
const BIG: &[Part] = &[part(2, 0, 300_001)];
const LOG: u32 = 700;
const PATCHED: u32 = 20_000;
const PATCH: Part = part(9, 0, 3_000);
/// From the middle of a block to the middle of another.
const PATCH_AT: u32 = 7_900;
const NEW: &[Part] = &[part(7, 0, 123_457)];

/// What the host puts there.
pub const BEFORE: &[Content] = &[
    file("", "HELLO.TXT", &[part(1, 0, 13)]),
    file("HOST", "BIG.BIN", BIG),
    file("HOST", "EMPTY.BIN", &[]),
    file("HOST", "LOG.TXT", &[part(3, 0, LOG)]),
    file("HOST", "PATCHED.BIN", &[part(4, 0, PATCHED)]),
    // Empty, because the crate does not free what a deleted file has.
    file("HOST", "GONE.BIN", &[]),
];

/// What the host finds: one file is gone, one is longer, one is changed in its
/// middle, and two are new.
pub const AFTER: &[Content] = &[
    file("", "HELLO.TXT", &[part(1, 0, 13)]),
    file("HOST", "BIG.BIN", BIG),
    file("HOST", "EMPTY.BIN", &[]),
    file("HOST", "LOG.TXT", &[part(3, 0, LOG), part(8, 0, 1_500)]),
    file(
        "HOST",
        "PATCHED.BIN",
        &[
            part(4, 0, PATCH_AT),
            PATCH,
            part(4, PATCH_AT + PATCH.len, PATCHED - PATCH_AT - PATCH.len),
        ],
    ),
    file("IMAGE", "COPY.BIN", BIG),
    file("IMAGE", "NEW.BIN", NEW),
];

impl Content {
    /// Its bytes, one after the other.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<> {
        self.parts.iter().flat_map(|part| part.bytes())
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Part {
    fn bytes(&self) -> impl Iterator<Item = u8> + use<> {
        let seed = self.seed;
        (self.from..self.from + self.len).map(move |at| noise(seed, at))
    }
}

/// A byte that hangs together with none beside it (the finaliser of
/// MurmurHash3 over seed and place).
fn noise(seed: u32, at: u32) -> u8 {
    let mut word = at ^ seed.wrapping_mul(0x9e37_79b9);
    word = (word ^ word >> 16).wrapping_mul(0x85eb_ca6b);
    word = (word ^ word >> 13).wrapping_mul(0xc2b2_ae35);
    (word >> 24) as u8
}

/// Why the work was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failed<E: core::error::Error + 'static> {
    /// The file system or what is below it says so.
    #[error("{name}: {why}")]
    Volume {
        /// What it was about.
        name: &'static str,
        /// What is said.
        why: embedded_sdmmc::Error<E>,
    },
    /// A file is too long or too short.
    #[error("{name} has {len} bytes, not {wanted}")]
    Length {
        /// The file.
        name: &'static str,
        /// What it has.
        len: u32,
        /// What it should.
        wanted: u32,
    },
    /// What is in a file is not what was put there.
    #[error("{name} is wrong from byte {at} on")]
    Differs {
        /// The file.
        name: &'static str,
        /// The first byte that is.
        at: u32,
    },
}

/// How much was done, in bytes of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Read and compared.
    pub read: u64,
    /// Written.
    pub written: u64,
}

/// A machine without a calendar: everything was written on one day.
#[derive(Clone, Copy, Debug)]
pub struct NoCalendar;

impl TimeSource for NoCalendar {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp {
            year_since_1970: 56,
            zero_indexed_month: 0,
            zero_indexed_day: 0,
            hours: 0,
            minutes: 0,
            seconds: 0,
        }
    }
}

/// Two directories, two files, one volume at once.
pub type Volumes<D> = VolumeManager<D, NoCalendar, 2, 2, 1>;
type Dir<'v, D> = Directory<'v, D, NoCalendar, 2, 2, 1>;
type Done<D> = Result<(), Failed<<D as BlockDevice>::Error>>;

/// Does it all on the first partition's volume, and reads back what it wrote.
///
/// # Errors
/// What is not as it should be.
pub fn work<D: BlockDevice>(volumes: &Volumes<D>) -> Result<Tally, Failed<D::Error>> {
    let mut worker = Worker { tally: Tally::default(), buffer: [0; BUFFER] };
    let volume = named("the volume", volumes.open_volume(VolumeIdx(0)))?;
    {
        let root = named("the root", volume.open_root_dir())?;
        for content in BEFORE {
            worker.check(&root, content)?;
        }
        worker.change(&root)?;
        for content in AFTER {
            worker.check(&root, content)?;
        }
    }
    named("the volume", volume.close())?;
    Ok(worker.tally)
}

/// What a read or a write takes: no whole number of blocks, and more than one.
const BUFFER: usize = 1_111;

struct Worker {
    tally: Tally,
    buffer: [u8; BUFFER],
}

impl Worker {
    /// Reads a file and compares it.
    fn check<D: BlockDevice>(&mut self, root: &Dir<'_, D>, content: &Content) -> Done<D> {
        let name = content.name;
        within(root, content.directory, |dir| {
            let file = named(name, dir.open_file_in_dir(name, Mode::ReadOnly))?;
            let (len, wanted) = (file.length(), content.len());
            if len != wanted {
                return Err(Failed::Length { name, len, wanted });
            }
            let (mut at, mut bytes) = (0, content.bytes());
            while at < len {
                let got = named(name, file.read(&mut self.buffer))?;
                for byte in &self.buffer[..got] {
                    if bytes.next() != Some(*byte) {
                        return Err(Failed::Differs { name, at });
                    }
                    at += 1;
                }
                if got == 0 {
                    return Err(Failed::Length { name, len: at, wanted });
                }
            }
            self.tally.read += u64::from(len);
            named(name, file.close())
        })
    }

    /// Makes [`AFTER`] of [`BEFORE`].
    fn change<D: BlockDevice>(&mut self, root: &Dir<'_, D>) -> Done<D> {
        let [host, image] = DIRECTORIES;
        within(root, host, |dir| {
            let open = |name, mode| named(name, dir.open_file_in_dir(name, mode));
            let (name, log) = ("LOG.TXT", open("LOG.TXT", Mode::ReadWriteAppend)?);
            self.write(name, part(8, 0, 1_500).bytes(), |piece| log.write(piece))?;
            named(name, log.close())?;
            let (name, patched) = ("PATCHED.BIN", open("PATCHED.BIN", Mode::ReadWriteAppend)?);
            named(name, patched.seek_from_start(PATCH_AT))?;
            self.write(name, PATCH.bytes(), |piece| patched.write(piece))?;
            named(name, patched.close())?;
            named("GONE.BIN", dir.delete_entry_in_dir("GONE.BIN"))
        })?;
        named(image, root.make_dir_in_dir(image))?;
        within(root, image, |dir| {
            for (name, parts) in [("NEW.BIN", NEW), ("COPY.BIN", BIG)] {
                let file = named(name, dir.open_file_in_dir(name, Mode::ReadWriteCreate))?;
                let content = Content { directory: image, name, parts };
                self.write(name, content.bytes(), |piece| file.write(piece))?;
                named(name, file.close())?;
            }
            Ok(())
        })
    }

    /// Writes bytes piece by piece.
    fn write<E: core::error::Error>(
        &mut self,
        name: &'static str,
        mut bytes: impl Iterator<Item = u8>,
        mut write: impl FnMut(&[u8]) -> Result<(), embedded_sdmmc::Error<E>>,
    ) -> Result<(), Failed<E>> {
        loop {
            let mut len = 0;
            for (place, byte) in self.buffer.iter_mut().zip(&mut bytes) {
                *place = byte;
                len += 1;
            }
            if len == 0 {
                return Ok(());
            }
            named(name, write(&self.buffer[..len]))?;
            self.tally.written += len as u64;
        }
    }
}

/// Goes into a directory, if it is another.
fn within<D: BlockDevice>(
    root: &Dir<'_, D>,
    name: &'static str,
    work: impl FnOnce(&Dir<'_, D>) -> Done<D>,
) -> Done<D> {
    if name.is_empty() {
        return work(root);
    }
    let dir = named(name, root.open_dir(name))?;
    work(&dir)?;
    named(name, dir.close())
}

fn named<T, E: core::error::Error>(
    name: &'static str,
    result: Result<T, embedded_sdmmc::Error<E>>,
) -> Result<T, Failed<E>> {
    result.map_err(|why| Failed::Volume { name, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_was_there_with_its_changes() {
        let find = |list: &[Content], name| {
            let content = list.iter().find(|content| content.name == name);
            content.map(|content| content.bytes().collect::<Vec<_>>())
        };
        let (before, after) =
            (find(BEFORE, "PATCHED.BIN").unwrap(), find(AFTER, "PATCHED.BIN").unwrap());
        assert_eq!((before.len(), after.len()), (20_000, 20_000));
        let differ: Vec<_> = (0..20_000).filter(|&at| before[at] != after[at]).collect();
        assert_eq!((differ.first(), differ.last()), (Some(&7_900), Some(&10_899)));
        assert!(find(AFTER, "LOG.TXT").unwrap().starts_with(&find(BEFORE, "LOG.TXT").unwrap()));
        assert_eq!(find(AFTER, "COPY.BIN"), find(BEFORE, "BIG.BIN"));
        assert_eq!(find(AFTER, "GONE.BIN"), None);
        let big = &AFTER[1];
        assert_eq!((big.len() as usize, big.bytes().count()), (300_001, 300_001));
    }
}
