//! Where a copy goes.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;

use annulus_linux::nvme::Options;
use tempfile::NamedTempFile;

use super::end::End;
use super::extents::Holes;
use super::place::Place;
use super::source::Source;
use super::transfer::{Fault, Transfer};
use crate::device::{self, Namespace};
use crate::error::{Failure, failed, usage};
use crate::human;

/// A destination that may be written.
pub enum Target {
    /// A file to be made.
    File(Place, NamedTempFile),
    /// A namespace to be overwritten.
    Namespace(Namespace),
}

impl Target {
    /// Finds the destination, checks that the source may go there, and makes a temporary file for
    /// it where it is a file.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is not safe or does not fit; what keeps it from being written.
    pub fn find(end: &End, source: &Source, force: bool) -> Result<Self, Failure> {
        match end {
            End::File(path) => {
                let place = Place::find(source.file(), path, force)?;
                let copy = place.temporary()?;
                Ok(Self::File(place, copy))
            }
            &End::Namespace { address, nsid } => {
                let nvme = match source.namespace() {
                    Some(from) if from.address == address && from.info.id == nsid => {
                        return Err(usage!(
                            "{} would be copied onto itself; name another destination",
                            from.name()
                        ));
                    }
                    Some(from) if from.address == address => from.nvme.clone(),
                    _ => device::open(address, Options { pairs: 1, ..Options::default() })?,
                };
                let namespace = Namespace::find(&nvme, address, nsid)?;
                namespace.check_writable()?;
                let (size, room) = (source.size(), namespace.info.bytes);
                let bytes = |number| format!("{} bytes", human::count(number));
                if size > room {
                    return Err(usage!(
                        "{} has {}, more than the {} of {}; name a larger namespace",
                        source.name(),
                        bytes(size),
                        bytes(room),
                        namespace.name()
                    ));
                }
                Ok(Self::Namespace(namespace))
            }
        }
    }

    /// What it is called in a sentence.
    pub fn name(&self) -> String {
        match self {
            Self::File(place, _) => human::path(place.path()),
            Self::Namespace(namespace) => namespace.name(),
        }
    }

    /// The number that it has on rings.
    pub fn fd(&self) -> RawFd {
        match self {
            Self::File(_, copy) => copy.as_file().as_raw_fd(),
            Self::Namespace(namespace) => namespace.fd,
        }
    }

    /// The namespace, if it is one.
    pub fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::File(..) => None,
            Self::Namespace(namespace) => Some(namespace),
        }
    }

    /// What becomes of the source's holes: a new file has them by itself.
    pub fn holes(&self) -> Holes {
        match self {
            Self::File(..) => Holes::Skipped,
            Self::Namespace(namespace) => Holes::Told(namespace.info.block()),
        }
    }

    /// Before the first write: a file gets its length, so that what is never written is a hole.
    ///
    /// # Errors
    /// The file system's.
    pub fn prepare(&self, size: u64) -> Result<(), Fault> {
        match self {
            Self::File(_, copy) => {
                copy.as_file().set_len(size).map_err(|error| Fault::Write { offset: size, error })
            }
            Self::Namespace(_) => Ok(()),
        }
    }

    /// Sets the permissions of a file.
    ///
    /// # Errors
    /// The file system's.
    pub fn permit(&self, mode: u32) -> Result<(), Failure> {
        match self {
            Self::File(_, copy) => copy
                .as_file()
                .set_permissions(PermissionsExt::from_mode(mode))
                .map_err(|error| failed!("cannot set the permissions of the copy: {error}")),
            Self::Namespace(_) => Ok(()),
        }
    }

    /// Before it is read back: what is on the disk is to be read, not what is left in memory.
    pub fn forget(&self) {
        if let Self::File(_, copy) = self {
            // Advice only: where it is not taken, nothing is lost.
            let advice = rustix::fs::Advice::DontNeed;
            let _ = rustix::fs::fadvise(copy.as_file().as_fd(), 0, None, advice);
        }
    }

    /// Gives a file its name.
    ///
    /// # Errors
    /// The file system's.
    pub fn publish(self, transfer: &mut Transfer) -> Result<(), Failure> {
        match self {
            Self::File(place, copy) => {
                place.publish(copy)?;
                place.sync_directory(transfer)
            }
            Self::Namespace(_) => Ok(()),
        }
    }

    /// What becomes of it when a copy fails, for the end of a sentence.
    pub fn kept(&self) -> &'static str {
        match self {
            Self::File(place, _) if place.replaces() => "is as it was before",
            Self::File(..) => "was not made",
            Self::Namespace(_) => "is partly overwritten",
        }
    }
}
