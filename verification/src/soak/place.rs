//! What rings of a run work on, besides their own files: files that fail, each in
//! its way.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// No file of this process may be longer.
pub const LIMIT: u64 = 64 << 20;
/// Bytes of the small file system.
const SMALL: &str = "size=2m";

/// A pipe.
pub struct Pipe {
    pub from: OwnedFd,
    pub to: OwnedFd,
}

impl Pipe {
    /// A new one.
    ///
    /// # Errors
    /// Of the system.
    pub fn new() -> io::Result<Self> {
        let mut fds = [0; 2];
        // SAFETY: room for two; the descriptors are ours.
        unsafe {
            if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { from: OwnedFd::from_raw_fd(fds[0]), to: OwnedFd::from_raw_fd(fds[1]) })
        }
    }
}

/// The place.
pub struct Place {
    pub dir: PathBuf,
    /// A file system that is soon full, if one could be mounted.
    pub small: Option<PathBuf>,
    /// Has no room, ever.
    pub full: File,
    /// Memory that is sealed against writing.
    pub sealed: File,
    /// The end of a pipe that nobody reads from.
    pub unread: OwnedFd,
    /// A pipe in which nothing ever comes.
    pub silent: Pipe,
    /// What cannot be read as a file.
    pub directory: File,
}

fn sealed() -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a name; the descriptor is ours.
    let mut file = unsafe {
        match libc::memfd_create(c"annulus-sealed".as_ptr(), flags) {
            -1 => return Err(io::Error::last_os_error()),
            fd => File::from_raw_fd(fd),
        }
    };
    file.write_all(&[0; 4096])?;
    // SAFETY: no memory is passed.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mounts a small file system for this process alone, before it has any thread.
fn mount(at: &Path) -> Option<PathBuf> {
    fs::create_dir_all(at).ok()?;
    let target = std::ffi::CString::new(at.as_os_str().as_encoded_bytes()).ok()?;
    let data = std::ffi::CString::new(SMALL).ok()?;
    let (none, tmpfs) = (std::ptr::null(), c"tmpfs".as_ptr());
    // SAFETY: names that live through the calls. The mounts are a copy of this
    // process's own, and what is mounted here is not seen elsewhere.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast())
                == 0
            && libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, data.as_ptr().cast()) == 0
    };
    mounted.then(|| at.to_owned())
}

/// No file may be longer than [`LIMIT`], and who tries is told by the answer.
fn limit_files() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for one; nothing is called when the signal comes.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = LIMIT.min(limit.rlim_max);
        if libc::setrlimit(libc::RLIMIT_FSIZE, &limit) != 0
            || libc::signal(libc::SIGXFSZ, libc::SIG_IGN) == libc::SIG_ERR
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

impl Place {
    /// Sets this process up. It has no other thread yet.
    ///
    /// # Errors
    /// Of the system.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let small = mount(&dir.join("small"));
        limit_files()?;
        let Pipe { from, to: unread } = Pipe::new()?;
        drop(from);
        Ok(Self {
            dir: dir.to_owned(),
            small,
            full: File::options().write(true).open("/dev/full")?,
            sealed: sealed()?,
            unread,
            silent: Pipe::new()?,
            directory: File::open(dir)?,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let small = self
            .small
            .take()
            .and_then(|path| std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).ok());
        if let Some(small) = small {
            // SAFETY: a name. If it fails, it goes with this process.
            unsafe { libc::umount2(small.as_ptr(), libc::MNT_DETACH) };
        }
    }
}
