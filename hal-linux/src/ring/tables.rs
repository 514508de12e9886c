//! Registering files and buffers.

use std::io;
use std::os::fd::RawFd;

use annulus::register::Call;
use annulus::types::Iovec;

use super::{RingBackend, Submitter};

impl<B: RingBackend> Submitter<'_, B> {
    /// Registers files for [`types::Fixed`](annulus::types::Fixed); -1 leaves
    /// a place empty. They stay open until they are unregistered and their
    /// last request has ended, whatever becomes of the numbers.
    ///
    /// # Errors
    /// `EBUSY` if there are registered files already, `EMFILE` if there are
    /// more than [`Builder::files`](super::Builder::files) allows (or no
    /// descriptors are left), `EBADF` for a number that is no file, `EINVAL`
    /// for none at all. Then nothing is registered.
    pub fn register_files(&self, fds: &[RawFd]) -> io::Result<()> {
        self.call(Call::RegisterFiles(fds)).map(drop)
    }

    /// As [`register_files`](Self::register_files), with a tag for each file, or
    /// 0 for none: when the last use of a file is over, a completion comes with
    /// its tag as user data and 0 as result.
    ///
    /// # Errors
    /// As there; `EINVAL` for not as many tags as files and for the tag of an
    /// empty place, `ENOMEM` for more than
    /// [`Builder::tags`](super::Builder::tags) allows.
    pub fn register_files_tags(&self, fds: &[RawFd], tags: &[u64]) -> io::Result<()> {
        self.call(Call::RegisterFilesTagged { fds, tags }).map(drop)
    }

    /// Registers `count` empty places.
    ///
    /// # Errors
    /// As [`register_files`](Self::register_files).
    pub fn register_files_sparse(&self, count: u32) -> io::Result<()> {
        self.call(Call::RegisterFilesSparse(count)).map(drop)
    }

    /// Replaces places from `offset` on; -1 empties one, -2 leaves it as it
    /// is. Answers how many were done.
    ///
    /// # Errors
    /// `ENXIO` without registered files, `EINVAL` outside of them; otherwise
    /// what was wrong with the first place.
    pub fn register_files_update(&self, offset: u32, fds: &[RawFd]) -> io::Result<usize> {
        self.call(Call::UpdateFiles { offset, fds }).map(|count| count as usize)
    }

    /// As [`register_files_update`](Self::register_files_update), with tags.
    ///
    /// # Errors
    /// As for it and for [`register_files_tags`](Self::register_files_tags).
    pub fn register_files_update_tag(
        &self,
        offset: u32,
        fds: &[RawFd],
        tags: &[u64],
    ) -> io::Result<usize> {
        self.call(Call::UpdateFilesTagged { offset, fds, tags }).map(|count| count as usize)
    }

    /// Ends the registration; requests in flight keep their files.
    ///
    /// # Errors
    /// `ENXIO` without registered files.
    pub fn unregister_files(&self) -> io::Result<()> {
        self.call(Call::UnregisterFiles).map(drop)
    }

    /// Registers buffers for `ReadFixed` and `WriteFixed`; their pages are
    /// made present now.
    ///
    /// # Errors
    /// `EBUSY` if there are registered buffers already, `EFAULT` for memory
    /// that is not all writable, `ENOMEM` for more than
    /// [`Builder::buffers`](super::Builder::buffers) allows. Then nothing is
    /// registered. On an NVMe controller also what stands in the way of mapping
    /// the memory, which [`Nvme::take_refusal`](crate::nvme::Nvme::take_refusal)
    /// puts into words.
    ///
    /// # Safety
    /// The memory stays valid until it is unregistered and its last request
    /// has ended, or the ring is gone.
    pub unsafe fn register_buffers(&self, buffers: &[libc::iovec]) -> io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.ring.call(Call::RegisterBuffers(iovecs(buffers))) }.map(drop)
    }

    /// As [`register_buffers`](Self::register_buffers), with tags, as for files.
    ///
    /// # Errors
    /// As for it and for [`register_files_tags`](Self::register_files_tags).
    ///
    /// # Safety
    /// As for [`register_buffers`](Self::register_buffers).
    pub unsafe fn register_buffers2(
        &self,
        buffers: &[libc::iovec],
        tags: &[u64],
    ) -> io::Result<()> {
        let call = Call::RegisterBuffersTagged { buffers: iovecs(buffers), tags };
        // SAFETY: the caller's promise.
        unsafe { self.ring.call(call) }.map(drop)
    }

    /// Registers `count` empty places.
    ///
    /// # Errors
    /// As [`register_buffers`](Self::register_buffers).
    pub fn register_buffers_sparse(&self, count: u32) -> io::Result<()> {
        self.call(Call::RegisterBuffersSparse(count)).map(drop)
    }

    /// Replaces places from `offset` on; a null base of length 0 empties one.
    /// Answers how many were done.
    ///
    /// # Errors
    /// As [`register_files_update`](Self::register_files_update), with tags as
    /// [`register_files_tags`](Self::register_files_tags).
    ///
    /// # Safety
    /// As for [`register_buffers`](Self::register_buffers).
    pub unsafe fn register_buffers_update(
        &self,
        offset: u32,
        buffers: &[libc::iovec],
        tags: Option<&[u64]>,
    ) -> io::Result<usize> {
        let buffers = iovecs(buffers);
        let call = match tags {
            Some(tags) => Call::UpdateBuffersTagged { offset, buffers, tags },
            None => Call::UpdateBuffers { offset, buffers },
        };
        // SAFETY: the caller's promise.
        unsafe { self.ring.call(call) }.map(|count| count as usize)
    }

    /// Ends the registration. The memory is still used by requests in flight.
    ///
    /// # Errors
    /// `ENXIO` without registered buffers.
    pub fn unregister_buffers(&self) -> io::Result<()> {
        self.call(Call::UnregisterBuffers).map(drop)
    }
}

/// The same array by core's name for its element.
fn iovecs(buffers: &[libc::iovec]) -> &[Iovec] {
    const {
        assert!(size_of::<libc::iovec>() == size_of::<Iovec>());
        assert!(align_of::<libc::iovec>() == align_of::<Iovec>());
    }
    // SAFETY: the same layout (`Iovec` says so), only read.
    unsafe { std::slice::from_raw_parts(buffers.as_ptr().cast(), buffers.len()) }
}
