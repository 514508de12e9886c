//! Where a copy comes from.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use annulus_linux::nvme::Options;

use super::end::End;
use super::extents::{Chunks, Holes};
use crate::device::{self, Namespace};
use crate::error::{Failure, failed, usage};
use crate::human;

/// The permission bits that a copy takes over. Setuid, setgid and sticky would mean something else
/// under a new owner.
const PERMISSIONS: u32 = 0o777;

/// A source that is open.
pub enum Source {
    /// A regular file.
    File { path: PathBuf, file: File, metadata: Metadata },
    /// A namespace, and how much of it is copied.
    Namespace(Namespace, u64),
}

impl Source {
    /// Opens the source; `size` is how much of a namespace is wanted.
    ///
    /// # Errors
    /// It is not there, or cannot be copied.
    pub fn open(end: &End, size: Option<u64>) -> Result<Self, Failure> {
        match end {
            End::File(path) => {
                if size.is_some() {
                    return Err(usage!(
                        "--size is for copies from a namespace; {} is copied whole",
                        path.display()
                    ));
                }
                let (file, metadata) = open_file(path)?;
                Ok(Self::File { path: path.clone(), file, metadata })
            }
            &End::Namespace { address, nsid } => {
                let nvme = device::open(address, Options { pairs: 1, ..Options::default() })?;
                let namespace = Namespace::find(&nvme, address, nsid)?;
                let all = namespace.info.bytes;
                match size {
                    Some(size) if size > all => Err(usage!(
                        "--size {size}: {} has only {all} bytes; use --size {all} or less",
                        namespace.name()
                    )),
                    size => Ok(Self::Namespace(namespace, size.unwrap_or(all))),
                }
            }
        }
    }

    /// What it is called in a sentence.
    pub fn name(&self) -> String {
        match self {
            Self::File { path, .. } => human::path(path),
            Self::Namespace(namespace, _) => namespace.name(),
        }
    }

    /// Bytes to copy.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { metadata, .. } => metadata.len(),
            Self::Namespace(_, size) => *size,
        }
    }

    /// The number that it has on rings.
    pub fn fd(&self) -> RawFd {
        match self {
            Self::File { file, .. } => file.as_raw_fd(),
            Self::Namespace(namespace, _) => namespace.fd,
        }
    }

    /// The namespace, if it is one.
    pub fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::File { .. } => None,
            Self::Namespace(namespace, _) => Some(namespace),
        }
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<(&Path, &Metadata)> {
        match self {
            Self::File { path, metadata, .. } => Some((path, metadata)),
            Self::Namespace(..) => None,
        }
    }

    /// What is to be copied, in blocks of at most `block` bytes.
    pub fn chunks(&self, block: u64, holes: Holes) -> Chunks<'_> {
        match self {
            Self::File { file, metadata, .. } => Chunks::new(file, metadata.len(), block, holes),
            Self::Namespace(_, size) => Chunks::plain(*size, block),
        }
    }

    /// The permission bits for a file that is made of it.
    pub fn permissions(&self) -> u32 {
        match self {
            Self::File { metadata, .. } => metadata.mode() & PERMISSIONS,
            // A disk holds everybody's files.
            Self::Namespace(..) => 0o600,
        }
    }

    /// Says what happened to a file behind the copy's back. The copy itself is whole: it is what
    /// was read.
    pub fn note_changes(&self) {
        let Self::File { path, file, metadata: before } = self else { return };
        let Ok(after) = file.metadata() else { return };
        let shown = path.display();
        if after.nlink() == 0 {
            eprintln!(
                "annulus: note: {shown} was removed while it was copied; the copy is complete and \
                is the only one left"
            );
        } else if after.len() != before.len() {
            eprintln!(
                "annulus: note: {shown} grew while it was copied; the copy has its first {} \
                bytes, copy it again for the rest",
                before.len()
            );
        } else if (after.mtime(), after.mtime_nsec()) != (before.mtime(), before.mtime_nsec()) {
            eprintln!(
                "annulus: note: {shown} was written to while it was copied; the copy may mix its \
                old and new content"
            );
        }
    }
}

fn open_file(path: &Path) -> Result<(File, Metadata), Failure> {
    let shown = path.display();
    let look = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => failed!("{shown} does not exist; nothing was copied"),
        _ => failed!("cannot open {shown}: {error}; nothing was copied"),
    };
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let kind = std::fs::metadata(path).map_err(look)?.file_type();
    if kind.is_dir() {
        return Err(usage!(
            "{shown} is a directory; annulus copy copies one file, so name a file in it"
        ));
    }
    if !kind.is_file() {
        return Err(usage!(
            "{shown} is not a regular file; annulus copy copies regular files and, as \
            vfio:ADDRESS, namespaces of NVMe controllers only"
        ));
    }
    let file = File::open(path).map_err(look)?;
    let metadata = file.metadata().map_err(look)?;
    Ok((file, metadata))
}
