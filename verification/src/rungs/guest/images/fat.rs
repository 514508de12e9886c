//! FAT volumes: made and filled by the host, and looked at by it after an
//! image has worked on them (`annulus_unikernel::fat`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use annulus_unikernel::fat::{AFTER, BEFORE, Content, DIRECTORIES, PARTITION};

use crate::rungs::Found;
use crate::rungs::exec::Cmd;

/// Its programs, and the packages that they come from.
pub const PROGRAMS: &[(&str, &str)] =
    &[("mkfs.fat", "dosfstools"), ("mcopy", "mtools"), ("mdir", "mtools"), ("mmd", "mtools")];

const BLOCK: u64 = 512;
const START: u64 = PARTITION as u64 * BLOCK;

/// A medium with one partition, and in it a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fat {
    /// Entries of 16 bits.
    Fat16,
    /// Entries of 32 bits, and a summary of what is free.
    Fat32,
    /// As the first, and a byte of a file is not what it should be.
    Spoiled,
}

impl Fat {
    /// For mkfs, and in a partition table.
    fn kind(self) -> (&'static str, u8) {
        match self {
            Self::Fat16 | Self::Spoiled => ("16", 0x0e),
            Self::Fat32 => ("32", 0x0c),
        }
    }

    /// How large its medium is. The kind of entries depends on how many
    /// clusters there are.
    pub fn mib(self) -> u64 {
        match self {
            Self::Fat16 | Self::Spoiled => 16,
            Self::Fat32 => 64,
        }
    }

    /// Makes a volume of the whole medium in the file at `path`, with the
    /// files that an image expects there.
    ///
    /// # Errors
    /// What keeps it from being made.
    pub fn make(self, path: &Path) -> Result<(), String> {
        let at = |e: io::Error| format!("{}: {e}", path.display());
        let (bits, kind) = self.kind();
        let file = File::options().write(true).open(path).map_err(at)?;
        let bytes = file.metadata().map_err(at)?.len() - START;
        file.write_all_at(&boot_record(kind, (bytes / BLOCK) as u32), 0).map_err(at)?;
        let offset = format!("--offset={PARTITION}");
        let name = path.display().to_string();
        let blocks = (bytes / 1024).to_string();
        Cmd::new("mkfs.fat", &["-F", bits, "-n", "ANNULUS", &offset, &name, &blocks]).ask()?;
        let volume = volume(path);
        Cmd::new("mmd", &["-i", &volume, &format!("::/{}", DIRECTORIES[0])]).ask()?;
        let from = path.with_extension("from");
        for content in BEFORE {
            fs::write(&from, bytes_of(content)).map_err(at)?;
            let from = from.display().to_string();
            Cmd::new("mcopy", &["-i", &volume, &from, &place(content)]).ask()?;
        }
        fs::remove_file(&from).map_err(at)?;
        if self == Self::Spoiled { spoil(path) } else { Ok(()) }
    }
}

/// Looks at the medium of the file `path` after an image has done its work:
/// the file system is consistent, and every file is there with every byte.
///
/// # Errors
/// What is wrong with it.
pub fn holds(path: &Path) -> Found {
    let at = |e: io::Error| format!("    {}: {e}", path.display());
    // The checker knows of no partitions.
    let alone = path.with_extension("volume");
    let medium = fs::read(path).map_err(at)?;
    fs::write(&alone, &medium[START as usize..]).map_err(at)?;
    let checked = Cmd::new("fsck.fat", &["-n"]).args([alone.display().to_string()]).ask();
    let said = checked.map_err(|why| format!("    {why}"))?;
    let volume = volume(path);
    let found = Cmd::new("mdir", &["-/", "-b", "-i", &volume, "::"]).ask()?;
    let found: BTreeSet<String> = found.lines().map(str::to_owned).collect();
    let directories = DIRECTORIES.iter().map(|name| format!("::/{name}/"));
    let expected: BTreeSet<String> = AFTER.iter().map(place).chain(directories).collect();
    if found != expected {
        return Err(format!("    there is {found:?}, and should be {expected:?}"));
    }
    let to = path.with_extension("to");
    for content in AFTER {
        let to_name = to.display().to_string();
        Cmd::new("mcopy", &["-n", "-o", "-i", &volume, &place(content), &to_name]).ask()?;
        let (is, should) = (fs::read(&to).map_err(at)?, bytes_of(content));
        if is != should {
            let first = is.iter().zip(&should).position(|(a, b)| a != b);
            let (is, should) = (is.len(), should.len());
            return Err(format!(
                "    {} has {is} bytes of {should}, and the first wrong one is {first:?}",
                place(content)
            ));
        }
    }
    fs::remove_file(&to).map_err(at)?;
    // NAME: FILES, CLUSTERS
    let said = said.lines().last().and_then(|line| line.split_once(": ")).unwrap_or_default().1;
    Ok(format!("    {} files as they should be; fsck.fat: {said}", AFTER.len()))
}

/// Spoils a byte of the longest file.
///
/// # Errors
/// Of the system; or the file is not found in one piece.
fn spoil(path: &Path) -> Result<(), String> {
    let at = |e: io::Error| format!("{}: {e}", path.display());
    let big = BEFORE.iter().max_by_key(|content| content.len()).ok_or("there is no file")?;
    let bytes = bytes_of(big);
    let medium = fs::read(path).map_err(at)?;
    let begin = medium.windows(BLOCK as usize).position(|window| window == &bytes[..window.len()]);
    let begin = begin.ok_or("the file is not found on the medium")?;
    let place = begin + bytes.len() / 2;
    let file = File::options().write(true).open(path).map_err(at)?;
    file.write_all_at(&[medium[place] ^ 0x40], place as u64).map_err(at)
}

/// A table with one partition, of so many blocks.
fn boot_record(kind: u8, blocks: u32) -> [u8; BLOCK as usize] {
    const TABLE: usize = 446;
    let mut record = [0; BLOCK as usize];
    record[TABLE + 4] = kind;
    record[TABLE + 8..TABLE + 12].copy_from_slice(&PARTITION.to_le_bytes());
    record[TABLE + 12..TABLE + 16].copy_from_slice(&blocks.to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

/// As mtools name it.
fn volume(path: &Path) -> String {
    format!("{}@@{START}", path.display())
}

fn place(content: &Content) -> String {
    match content.directory {
        "" => format!("::/{}", content.name),
        directory => format!("::/{directory}/{}", content.name),
    }
}

fn bytes_of(content: &Content) -> Vec<u8> {
    content.bytes().collect()
}
