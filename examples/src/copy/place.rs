//! Where the copy goes: a temporary name first, the real one at the end.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::transfer::{Fault, Transfer};
use crate::error::{Failure, failed, usage};

/// How temporary names start; the rest is random.
const PREFIX: &str = ".annulus-copy-";

/// A destination that may be written.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    directory: PathBuf,
    replaces: bool,
}

impl Place {
    /// Finds the destination, as `cp` does: a directory means a file in it, a link means what it
    /// points to.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a destination that is the source file `src`, exists (without `force`), or is no
    /// regular file.
    pub fn find(src: Option<(&Path, &Metadata)>, dst: &Path, force: bool) -> Result<Self, Failure> {
        let mut path = dst.to_path_buf();
        if path.is_dir() {
            // A source that is a regular file has a name, a namespace has none.
            let name = src.and_then(|(src, _)| src.file_name());
            path.push(name.ok_or_else(|| {
                usage!("{} is a directory; name the file to be made in it", dst.display())
            })?);
        }
        let shown = path.display();
        let replaces = match std::fs::metadata(&path) {
            Ok(there) => {
                if let Some((src, source)) = src
                    && (there.dev(), there.ino()) == (source.dev(), source.ino())
                {
                    return Err(usage!(
                        "{} and {shown} are the same file; name another destination",
                        src.display()
                    ));
                }
                if !there.is_file() {
                    return Err(usage!(
                        "{shown} exists and is not a regular file; name another destination"
                    ));
                }
                if !force {
                    return Err(usage!(
                        "{shown} exists; use --force to replace it, or name another destination"
                    ));
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(usage!(
                        "{shown} is a link to nothing; remove it, or name another destination"
                    ));
                }
                false
            }
            Err(error) => {
                return Err(failed!("cannot look at {shown}: {error}; nothing was copied"));
            }
        };
        if replaces {
            let there = std::fs::canonicalize(&path);
            path = there.map_err(|error| {
                failed!("cannot follow {}: {error}; nothing was copied", path.display())
            })?;
        }
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        Ok(Self { path, directory, replaces })
    }

    /// The file to be made.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that it is in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether there is a file already, to be replaced.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// A new file beside the destination; it goes away when it is dropped.
    ///
    /// # Errors
    /// What keeps the directory from being written.
    pub fn temporary(&self) -> Result<NamedTempFile, Failure> {
        let dir = self.directory.display();
        let made = tempfile::Builder::new().prefix(PREFIX).tempfile_in(&self.directory);
        made.map_err(|error| {
            // Why, without the temporary name: the directory is what the user knows.
            let why = match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => {
                    return failed!(
                        "the directory {dir} does not exist; make it first (mkdir -p), nothing was \
                        copied"
                    );
                }
                ErrorKind::PermissionDenied => "permission denied".into(),
                ErrorKind::ReadOnlyFilesystem => "read-only file system".into(),
                _ => error.to_string(),
            };
            failed!(
                "cannot write to {dir}: {why}; choose a destination that you may write, nothing \
                was copied"
            )
        })
    }

    /// Gives the finished copy its name.
    ///
    /// # Errors
    /// The rename's; the copy is gone then, and what was at the destination stays.
    pub fn publish(&self, copy: NamedTempFile) -> Result<(), Failure> {
        let shown = self.path.display();
        let named = if self.replaces {
            copy.persist(&self.path)
        } else {
            copy.persist_noclobber(&self.path)
        };
        named.map(drop).map_err(|error| match error.error.kind() {
            ErrorKind::AlreadyExists => {
                usage!(
                    "{shown} was made by somebody else in the meantime, and is left alone; use \
                    --force to replace it"
                )
            }
            _ => failed!(
                "cannot give the copy its name {shown}: {}; it was removed again",
                error.error
            ),
        })
    }

    /// Makes the new name durable.
    ///
    /// # Errors
    /// The file system's.
    pub fn sync_directory(&self, transfer: &mut Transfer) -> Result<(), Failure> {
        let shown = self.directory.display();
        let directory = File::open(&self.directory)
            .map_err(|error| failed!("cannot open {shown} to sync it: {error}"))?;
        match transfer.sync(directory.as_raw_fd()) {
            Ok(()) => Ok(()),
            // Not every file system can sync a directory; the copy itself is synced.
            Err(Fault::Sync { error }) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            Err(Fault::Sync { error }) => {
                Err(failed!("the copy is complete, but syncing {shown} failed: {error}"))
            }
            Err(_) => Err(failed!("the copy is complete, but {shown} could not be synced")),
        }
    }
}
