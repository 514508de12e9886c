//! The one place that talks to the kernel's VFIO and IOMMU devices: opening
//! them, and ioctls whose numbers are tied to their structures.
//!
//! Everything above goes through [`Sys`], so that the tests put a scripted
//! kernel in its place. The structures and numbers are those of the kernel's
//! `include/uapi/linux/vfio.h` and `include/uapi/linux/iommufd.h`.

use std::ffi::c_void;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use iommufd_bindings as iommufd;
use vfio_bindings::bindings::vfio;

/// `_IO(';', number)`: the type character is the same for both headers.
const fn nr(number: u32) -> u32 {
    (b';' as u32) << 8 | number
}

const fn vfio_nr(number: u32) -> u32 {
    nr(vfio::VFIO_BASE + number)
}

/// A request that takes a number, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Plain(pub u32);

pub const GET_API_VERSION: Plain = Plain(vfio_nr(0));
pub const CHECK_EXTENSION: Plain = Plain(vfio_nr(1));
pub const SET_IOMMU: Plain = Plain(vfio_nr(2));
pub const GROUP_GET_STATUS: u32 = vfio_nr(3);
pub const GROUP_SET_CONTAINER: u32 = vfio_nr(4);
pub const GROUP_GET_DEVICE_FD: u32 = vfio_nr(6);
pub const DEVICE_GET_INFO: u32 = vfio_nr(7);
pub const DEVICE_GET_REGION_INFO: u32 = vfio_nr(8);
pub const DEVICE_GET_IRQ_INFO: u32 = vfio_nr(9);
pub const DEVICE_SET_IRQS: u32 = vfio_nr(10);
pub const DEVICE_RESET: Plain = Plain(vfio_nr(11));
pub const DEVICE_BIND_IOMMUFD: u32 = vfio_nr(18);
pub const DEVICE_ATTACH_IOMMUFD_PT: u32 = vfio_nr(19);
pub const IOMMU_GET_INFO: u32 = vfio_nr(12);
pub const IOMMU_MAP_DMA: u32 = vfio_nr(13);
pub const IOMMU_UNMAP_DMA: u32 = vfio_nr(14);
pub const IOAS_ALLOC: u32 = nr(iommufd::IOMMUFD_CMD_IOAS_ALLOC);
pub const IOAS_IOVA_RANGES: u32 = nr(iommufd::IOMMUFD_CMD_IOAS_IOVA_RANGES);
pub const IOAS_MAP: u32 = nr(iommufd::IOMMUFD_CMD_IOAS_MAP);
pub const IOAS_UNMAP: u32 = nr(iommufd::IOMMUFD_CMD_IOAS_UNMAP);

/// What of the kernel a test replaces.
pub trait Sys: Send + Sync + fmt::Debug {
    /// Opens a device file for reading and writing, closed on exec.
    fn open(&self, path: &Path) -> io::Result<OwnedFd>;

    /// `ioctl(2)`; the answer is not negative.
    ///
    /// # Safety
    /// `argument` is what `request` takes: a number, or the address of memory
    /// that the kernel may use as the request says.
    unsafe fn ioctl(
        &self,
        fd: BorrowedFd<'_>,
        request: u32,
        argument: *mut c_void,
    ) -> io::Result<u32>;
}

/// Linux.
#[derive(Debug)]
pub struct Kernel;

impl Sys for Kernel {
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        // std adds O_CLOEXEC, and tries again after a signal.
        Ok(OpenOptions::new().read(true).write(true).open(path)?.into())
    }

    unsafe fn ioctl(
        &self,
        fd: BorrowedFd<'_>,
        request: u32,
        argument: *mut c_void,
    ) -> io::Result<u32> {
        // SAFETY: the caller's promise. The cast is for C libraries that
        // declare the request as an int.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, argument) };
        u32::try_from(answer).map_err(|_| io::Error::last_os_error())
    }
}

/// A structure that stands for one ioctl.
///
/// # Safety
/// The first word of `Self` is its size. The kernel, asked
/// [`REQUEST`](Argument::REQUEST) with the address of `Self`, touches at most
/// so many bytes, and follows no address in it. Any bytes make a valid `Self`.
pub unsafe trait Argument: Copy {
    const REQUEST: u32;
}

// SAFETY: vfio.h; `argsz` is the first word; plain numbers.
unsafe impl Argument for vfio::vfio_group_status {
    const REQUEST: u32 = GROUP_GET_STATUS;
}
// SAFETY: as above.
unsafe impl Argument for vfio::vfio_device_info {
    const REQUEST: u32 = DEVICE_GET_INFO;
}
// SAFETY: as above.
unsafe impl Argument for vfio::vfio_region_info {
    const REQUEST: u32 = DEVICE_GET_REGION_INFO;
}
// SAFETY: as above.
unsafe impl Argument for vfio::vfio_irq_info {
    const REQUEST: u32 = DEVICE_GET_IRQ_INFO;
}
// SAFETY: as above; the token's address is only used with a flag that
// `bind_iommufd` does not set.
unsafe impl Argument for vfio::vfio_device_bind_iommufd {
    const REQUEST: u32 = DEVICE_BIND_IOMMUFD;
}
// SAFETY: as above.
unsafe impl Argument for vfio::vfio_device_attach_iommufd_pt {
    const REQUEST: u32 = DEVICE_ATTACH_IOMMUFD_PT;
}
// SAFETY: as above.
unsafe impl Argument for vfio::vfio_iommu_type1_info {
    const REQUEST: u32 = IOMMU_GET_INFO;
}
// SAFETY: iommufd.h; `size` is the first word; plain numbers.
unsafe impl Argument for iommufd::iommu_ioas_alloc {
    const REQUEST: u32 = IOAS_ALLOC;
}
// SAFETY: as above; unmapping follows no address.
unsafe impl Argument for iommufd::iommu_ioas_unmap {
    const REQUEST: u32 = IOAS_UNMAP;
}

/// An open device file.
#[derive(Debug)]
pub struct Handle {
    sys: Arc<dyn Sys>,
    fd: OwnedFd,
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handle {
    /// # Errors
    /// `open(2)`'s.
    pub fn open(sys: &Arc<dyn Sys>, path: &Path) -> io::Result<Self> {
        Ok(Self { fd: sys.open(path)?, sys: sys.clone() })
    }

    /// An ioctl that takes a number.
    ///
    /// # Errors
    /// `ioctl(2)`'s.
    pub fn number(&self, request: Plain, number: u32) -> io::Result<u32> {
        let number = ptr::without_provenance_mut(number as usize);
        // SAFETY: not one of these requests takes an address; the kernel sees
        // a number, whatever it means.
        unsafe { self.sys.ioctl(self.as_fd(), request.0, number) }
    }

    /// An ioctl that takes and answers in `argument`, whose size is filled in.
    ///
    /// # Errors
    /// `ioctl(2)`'s.
    pub fn call<T: Argument>(&self, argument: &mut T) -> io::Result<u32> {
        // SAFETY: the promise of `Argument`, and the size is the true one.
        unsafe {
            ptr::from_mut(argument).cast::<u32>().write(size_of::<T>() as u32);
            self.call_raw(T::REQUEST, argument)
        }
    }

    /// [`call`](Self::call) for a structure that names memory.
    ///
    /// # Safety
    /// `T` is `request`'s structure, and the kernel may use the memory that it
    /// names as the request says.
    ///
    /// # Errors
    /// `ioctl(2)`'s.
    pub unsafe fn call_raw<T>(&self, request: u32, argument: &mut T) -> io::Result<u32> {
        // SAFETY: the caller's promise.
        unsafe { self.sys.ioctl(self.as_fd(), request, ptr::from_mut(argument).cast()) }
    }

    /// An ioctl whose answer goes on behind the structure, as capability
    /// chains do: all bytes of it. Sizes are filled in.
    ///
    /// # Errors
    /// `ioctl(2)`'s.
    pub fn call_long<T: Argument>(&self, argument: T) -> io::Result<(T, Vec<u8>)> {
        // What a kernel asks for is bounded here; a chain is some hundred bytes.
        const MOST: usize = 1 << 20;
        let mut size = size_of::<T>();
        loop {
            let mut words = vec![0u64; size.div_ceil(8)];
            let at = words.as_mut_ptr().cast::<c_void>();
            // SAFETY: room for `size` bytes, which is at least one `T`; a
            // u64 is aligned for every structure of these headers.
            unsafe {
                at.cast::<T>().write(argument);
                at.cast::<u32>().write(size as u32);
                self.sys.ioctl(self.as_fd(), T::REQUEST, at)?;
            }
            // SAFETY: as above; any bytes make a `T`, and a first word.
            let (answer, wanted) = unsafe { (at.cast::<T>().read(), at.cast::<u32>().read()) };
            let wanted = (wanted as usize).min(MOST);
            if wanted <= size {
                let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).take(size).collect();
                return Ok((answer, bytes));
            }
            size = wanted;
        }
    }

    /// `VFIO_GROUP_GET_DEVICE_FD`.
    ///
    /// # Errors
    /// `ioctl(2)`'s.
    pub fn device(&self, name: &std::ffi::CStr) -> io::Result<Self> {
        let name = name.as_ptr().cast_mut().cast();
        // SAFETY: a C string, which the kernel reads. The answer is a new
        // descriptor, ours.
        let fd = unsafe {
            let fd = self.sys.ioctl(self.as_fd(), GROUP_GET_DEVICE_FD, name)?;
            OwnedFd::from_raw_fd(fd as i32)
        };
        Ok(Self { sys: self.sys.clone(), fd })
    }

    /// `VFIO_GROUP_SET_CONTAINER`.
    ///
    /// # Errors
    /// `ioctl(2)`'s.
    pub fn set_container(&self, container: &Handle) -> io::Result<()> {
        let mut fd: i32 = container.fd.as_raw_fd();
        // SAFETY: the address of an int, which the kernel reads.
        unsafe { self.call_raw(GROUP_SET_CONTAINER, &mut fd) }.map(drop)
    }

    /// `VFIO_DEVICE_SET_IRQS` for `count` vectors from 0 on, with `data`
    /// behind the header. Answers what the kernel answers: more than 0 is the
    /// number of vectors that it could have had.
    ///
    /// # Errors
    /// `ioctl(2)`'s.
    pub fn set_irqs(&self, index: u32, flags: u32, count: u32, data: &[i32]) -> io::Result<u32> {
        let header = size_of::<vfio::vfio_irq_set>() / 4;
        let size = (header + data.len()) * 4;
        let mut words = vec![size as i32, flags as i32, index as i32, 0, count as i32];
        words.extend(data);
        debug_assert_eq!(words.len() * 4, size);
        // SAFETY: `struct vfio_irq_set` is five 32-bit words and the data,
        // which the kernel reads up to the size in the first.
        unsafe { self.sys.ioctl(self.as_fd(), DEVICE_SET_IRQS, words.as_mut_ptr().cast()) }
    }
}
