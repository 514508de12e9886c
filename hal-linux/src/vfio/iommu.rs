//! The two interfaces to an IOMMU: VFIO's type 1 container, and iommufd.

use std::io;

use iommufd_bindings as iommufd;
use vfio_bindings::bindings::vfio;

use super::caps;
use super::sys::{self, Handle};

/// An address space of the device's, which we fill.
#[derive(Debug)]
pub enum Iommu {
    /// `VFIO_TYPE1v2_IOMMU`. The group stays open while it is used.
    Type1 { container: Handle, _group: Handle },
    /// An IOAS that the device is attached to.
    Iommufd { iommu: Handle, ioas: u32 },
}

/// What an IOMMU without the capability is taken to translate: 39 bits, the
/// least of Intel's, without the window that x86 keeps for interrupts.
const FALLBACK: [(u64, u64); 2] = [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)];

/// What an IOMMU offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// First and last address of each range that can be mapped.
    pub ranges: Vec<(u64, u64)>,
    /// The smallest page, in bytes.
    pub page: u64,
    /// How many mappings there may be, where that is known.
    pub entries: Option<u32>,
}

impl Iommu {
    /// # Errors
    /// `ioctl(2)`'s.
    pub fn offer(&self) -> io::Result<Offer> {
        match self {
            Iommu::Type1 { container, .. } => type1_offer(container),
            Iommu::Iommufd { iommu, ioas } => ioas_offer(iommu, *ioas),
        }
    }

    /// Lets the device read and write `len` bytes at `addr`, by the address
    /// `iova`. The kernel pins the pages until [`unmap`](Self::unmap).
    ///
    /// # Safety
    /// The device may write to the memory that is there now, even where this
    /// process gives it up.
    ///
    /// # Errors
    /// `ioctl(2)`'s.
    pub unsafe fn map(&self, addr: usize, iova: u64, len: usize) -> io::Result<()> {
        match self {
            Iommu::Type1 { container, .. } => {
                let mut map = vfio::vfio_iommu_type1_dma_map {
                    argsz: size_of::<vfio::vfio_iommu_type1_dma_map>() as u32,
                    flags: vfio::VFIO_DMA_MAP_FLAG_READ | vfio::VFIO_DMA_MAP_FLAG_WRITE,
                    vaddr: addr as u64,
                    iova,
                    size: len as u64,
                };
                // SAFETY: the request's structure; the caller lends the memory.
                unsafe { container.call_raw(sys::IOMMU_MAP_DMA, &mut map) }.map(drop)
            }
            Iommu::Iommufd { iommu, ioas } => {
                let mut map = iommufd::iommu_ioas_map {
                    size: size_of::<iommufd::iommu_ioas_map>() as u32,
                    flags: iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
                        | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
                        | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
                    ioas_id: *ioas,
                    user_va: addr as u64,
                    length: len as u64,
                    iova,
                    ..Default::default()
                };
                // SAFETY: as above.
                unsafe { iommu.call_raw(sys::IOAS_MAP, &mut map) }.map(drop)
            }
        }
    }

    /// Ends a mapping, whole.
    ///
    /// # Errors
    /// `ioctl(2)`'s, and `EIO` if less was unmapped.
    pub fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
        let done = match self {
            Iommu::Type1 { container, .. } => {
                let mut unmap = vfio::vfio_iommu_type1_dma_unmap {
                    argsz: size_of::<vfio::vfio_iommu_type1_dma_unmap>() as u32,
                    iova,
                    size: len as u64,
                    ..Default::default()
                };
                // SAFETY: the request's structure; without flags no memory
                // follows it.
                unsafe { container.call_raw(sys::IOMMU_UNMAP_DMA, &mut unmap) }?;
                unmap.size
            }
            Iommu::Iommufd { iommu, ioas } => {
                let mut unmap = iommufd::iommu_ioas_unmap {
                    ioas_id: *ioas,
                    iova,
                    length: len as u64,
                    ..Default::default()
                };
                iommu.call(&mut unmap)?;
                unmap.length
            }
        };
        if done == len as u64 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
    }
}

fn type1_offer(container: &Handle) -> io::Result<Offer> {
    let (info, answer) = container.call_long(vfio::vfio_iommu_type1_info::default())?;
    let has = |flag| info.flags & flag != 0;
    let first = if has(vfio::VFIO_IOMMU_INFO_CAPS) { info.cap_offset } else { 0 };
    let ranges = caps::find(&answer, first, vfio::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE);
    let avail = caps::find(&answer, first, vfio::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
    let sizes = if has(vfio::VFIO_IOMMU_INFO_PGSIZES) { info.iova_pgsizes } else { 0 };
    Ok(Offer {
        ranges: ranges.map_or_else(|| FALLBACK.to_vec(), caps::pairs),
        page: if sizes == 0 { 1 } else { 1 << sizes.trailing_zeros() },
        entries: avail.and_then(caps::number),
    })
}

fn ioas_offer(iommu: &Handle, ioas: u32) -> io::Result<Offer> {
    let mut room = 16;
    loop {
        let mut list = vec![iommufd::iommu_iova_range::default(); room];
        let mut ask = iommufd::iommu_ioas_iova_ranges {
            size: size_of::<iommufd::iommu_ioas_iova_ranges>() as u32,
            ioas_id: ioas,
            num_iovas: room as u32,
            allowed_iovas: list.as_mut_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the request's structure; the kernel writes at most
        // `num_iovas` ranges to the list, which has room for them.
        let answer = unsafe { iommu.call_raw(sys::IOAS_IOVA_RANGES, &mut ask) };
        let count = ask.num_iovas as usize;
        match answer {
            Ok(_) => {
                let ranges = list.iter().take(count).map(|range| (range.start, range.last));
                let ranges = ranges.collect();
                return Ok(Offer { ranges, page: ask.out_iova_alignment.max(1), entries: None });
            }
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) && count > room => {
                // Ranges lie between reserved windows, of which machines have
                // a few dozen.
                room = count.min(1 << 16);
                if room < count {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
    }
}
