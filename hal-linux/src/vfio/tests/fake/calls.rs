//! The scripted kernel's ioctls.

use std::ffi::c_void;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use iommufd_bindings as iommufd;
use vfio_bindings::bindings::vfio;

use super::{BAR, BDF, COMMAND, CONFIG, Fake, IOAS, Kind, PAGE, State};
use crate::vfio::sys::{self, Sys};

fn errno<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

impl Sys for Fake {
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        if let Some(&number) = self.state().no_open.get(path) {
            return errno(number);
        }
        fs::metadata(path)?;
        let name = path.strip_prefix(&self.roots.dev).expect("below /dev");
        Ok(self.open_as(match name.to_str().expect("a name") {
            "vfio/vfio" => Kind::Container,
            "vfio/7" => Kind::Group,
            "iommu" => Kind::Iommu,
            "vfio/devices/vfio2" => Kind::Cdev,
            other => panic!("{other} is not a file of VFIO's"),
        }))
    }

    unsafe fn ioctl(
        &self,
        fd: BorrowedFd<'_>,
        request: u32,
        argument: *mut c_void,
    ) -> io::Result<u32> {
        let kind = self.state().files[&fd.as_raw_fd()];
        if let Some(&number) = self.state().fail.get(&request) {
            return errno(number);
        }
        // SAFETY: below, each request with its own structure, as the kernel.
        unsafe {
            match (kind, request) {
                (Kind::Container, r) if r == sys::GET_API_VERSION.0 => Ok(0),
                (Kind::Container, r) if r == sys::CHECK_EXTENSION.0 => {
                    assert_eq!(argument.addr(), vfio::VFIO_TYPE1v2_IOMMU as usize);
                    Ok(self.state().type1.into())
                }
                (Kind::Container, r) if r == sys::SET_IOMMU.0 => Ok(0),
                (Kind::Group, sys::GROUP_GET_STATUS) => {
                    let status = &mut *argument.cast::<vfio::vfio_group_status>();
                    assert_eq!(status.argsz, 8);
                    status.flags = self.state().viable.into();
                    Ok(0)
                }
                (Kind::Group, sys::GROUP_SET_CONTAINER) => {
                    let container = *argument.cast::<i32>();
                    assert_eq!(self.state().files[&container], Kind::Container);
                    Ok(0)
                }
                (Kind::Group, sys::GROUP_GET_DEVICE_FD) => {
                    let name = std::ffi::CStr::from_ptr(argument.cast());
                    assert_eq!(name.to_str(), Ok(BDF));
                    Ok(self.open_as(Kind::Device).into_raw_fd() as u32)
                }
                (Kind::Cdev, sys::DEVICE_BIND_IOMMUFD) => {
                    let bind = &mut *argument.cast::<vfio::vfio_device_bind_iommufd>();
                    assert_eq!((bind.argsz, bind.flags), (24, 0));
                    let mut state = self.state();
                    assert_eq!(state.files[&bind.iommufd], Kind::Iommu);
                    // Only now the file is good for anything.
                    state.files.insert(fd.as_raw_fd(), Kind::Device);
                    state.log.push("bind".into());
                    bind.out_devid = 1;
                    Ok(0)
                }
                (Kind::Iommu, sys::IOAS_ALLOC) => {
                    let alloc = &mut *argument.cast::<iommufd::iommu_ioas_alloc>();
                    assert_eq!((alloc.size, alloc.flags), (12, 0));
                    alloc.out_ioas_id = IOAS;
                    Ok(0)
                }
                (Kind::Device, sys::DEVICE_ATTACH_IOMMUFD_PT) => {
                    let attach = &*argument.cast::<vfio::vfio_device_attach_iommufd_pt>();
                    assert_eq!((attach.argsz, attach.flags, attach.pt_id), (16, 0, IOAS));
                    self.state().log.push("attach".into());
                    Ok(0)
                }
                (Kind::Container, sys::IOMMU_GET_INFO) => self.type1_info(argument),
                (Kind::Iommu, sys::IOAS_IOVA_RANGES) => {
                    let ask = &mut *argument.cast::<iommufd::iommu_ioas_iova_ranges>();
                    assert_eq!((ask.size, ask.ioas_id), (32, IOAS));
                    let ranges = &self.state().ranges;
                    let room = ask.num_iovas as usize;
                    (ask.num_iovas, ask.out_iova_alignment) = (ranges.len() as u32, PAGE);
                    let list = ask.allowed_iovas as *mut iommufd::iommu_iova_range;
                    for (n, &(start, last)) in ranges.iter().take(room).enumerate() {
                        list.add(n).write(iommufd::iommu_iova_range { start, last });
                    }
                    if room < ranges.len() { errno(libc::EMSGSIZE) } else { Ok(0) }
                }
                (Kind::Container, sys::IOMMU_MAP_DMA) => {
                    let map = &*argument.cast::<vfio::vfio_iommu_type1_dma_map>();
                    assert_eq!((map.argsz, map.flags), (32, 3));
                    self.map(map.iova, map.vaddr, map.size)
                }
                (Kind::Iommu, sys::IOAS_MAP) => {
                    let map = &*argument.cast::<iommufd::iommu_ioas_map>();
                    assert_eq!((map.size, map.flags, map.ioas_id), (40, 7, IOAS));
                    self.map(map.iova, map.user_va, map.length)
                }
                (Kind::Container, sys::IOMMU_UNMAP_DMA) => {
                    let unmap = &mut *argument.cast::<vfio::vfio_iommu_type1_dma_unmap>();
                    assert_eq!((unmap.argsz, unmap.flags), (24, 0));
                    self.unmap(unmap.iova, unmap.size)
                }
                (Kind::Iommu, sys::IOAS_UNMAP) => {
                    let unmap = &*argument.cast::<iommufd::iommu_ioas_unmap>();
                    assert_eq!((unmap.size, unmap.ioas_id), (24, IOAS));
                    self.unmap(unmap.iova, unmap.length)
                }
                (Kind::Device, _) => self.device_ioctl(request, argument),
                _ => errno(libc::ENOTTY),
            }
        }
    }
}

impl Fake {
    /// # Safety
    /// As [`Sys::ioctl`].
    unsafe fn device_ioctl(&self, request: u32, argument: *mut c_void) -> io::Result<u32> {
        let mut state = self.state();
        // SAFETY: each request with its own structure, as the kernel.
        unsafe {
            match request {
                sys::DEVICE_GET_INFO => {
                    let info = &mut *argument.cast::<vfio::vfio_device_info>();
                    assert_eq!(info.argsz, 24);
                    info.flags = state.device_flags;
                }
                sys::DEVICE_GET_REGION_INFO => {
                    let info = &mut *argument.cast::<vfio::vfio_region_info>();
                    (info.size, info.offset, info.flags) = match info.index {
                        vfio::VFIO_PCI_BAR0_REGION_INDEX => (BAR, 0, state.region_flags),
                        vfio::VFIO_PCI_CONFIG_REGION_INDEX => (4096, CONFIG, 0),
                        other => panic!("region {other}"),
                    };
                    if let (0, Some(areas)) = (info.index, &state.sparse) {
                        let mut chain = header(vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0);
                        chain.push(areas.len() as u64);
                        chain.extend(areas.iter().flat_map(|&(offset, len)| [offset, len]));
                        info.flags |= vfio::VFIO_REGION_INFO_FLAG_CAPS;
                        info.cap_offset = 32;
                        info.argsz = answer(argument, info.argsz, 32, &chain);
                    }
                }
                sys::DEVICE_GET_IRQ_INFO => {
                    let info = &mut *argument.cast::<vfio::vfio_irq_info>();
                    assert_eq!(info.argsz, 16);
                    info.count = state.irqs[info.index as usize];
                    info.flags = vfio::VFIO_IRQ_INFO_EVENTFD;
                    if info.count == 0 {
                        return errno(libc::EINVAL);
                    }
                }
                sys::DEVICE_SET_IRQS => return state.set_irqs(argument.cast()),
                r if r == sys::DEVICE_RESET.0 => {
                    state.log.push("reset".into());
                    let command = self.config(COMMAND);
                    state.resets.push(command);
                    // As a reset leaves the register.
                    let _ = self.memory.write_all_at(&[0; 2], CONFIG + COMMAND);
                }
                _ => return errno(libc::ENOTTY),
            }
        }
        Ok(0)
    }

    /// # Safety
    /// As [`Sys::ioctl`].
    unsafe fn type1_info(&self, argument: *mut c_void) -> io::Result<u32> {
        let state = self.state();
        // SAFETY: the request's structure, of the size in its first word.
        unsafe {
            let info = &mut *argument.cast::<vfio::vfio_iommu_type1_info>();
            info.flags = vfio::VFIO_IOMMU_INFO_PGSIZES;
            info.iova_pgsizes = PAGE | 2 << 20;
            if !state.ranges.is_empty() {
                info.flags |= vfio::VFIO_IOMMU_INFO_CAPS;
                info.cap_offset = 24;
                let mut chain = header(vfio::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 24 + 16);
                chain.push(state.entries as u64);
                chain.extend(header(vfio::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 0));
                chain.push(state.ranges.len() as u64);
                chain.extend(state.ranges.iter().flat_map(|&(first, last)| [first, last]));
                info.argsz = answer(argument, info.argsz, 24, &chain);
            }
        }
        Ok(0)
    }

    fn map(&self, iova: u64, addr: u64, len: u64) -> io::Result<u32> {
        let mut state = self.state();
        assert!(len != 0 && (iova | addr | len).is_multiple_of(PAGE));
        let last = iova + len - 1;
        let ranges = &state.ranges;
        let inside = ranges.is_empty() || ranges.iter().any(|&(f, l)| f <= iova && last <= l);
        if !inside {
            return errno(libc::EINVAL);
        }
        if state.maps.range(..=last).next_back().is_some_and(|(&at, &(_, l))| at + l > iova) {
            return errno(libc::EEXIST);
        }
        if state.maps.len() == state.entries {
            return errno(libc::ENOSPC);
        }
        let mut pages = vec![0u8; (len / PAGE) as usize];
        // SAFETY: the kernel checks the range; there is room for a byte a page.
        let there = unsafe { libc::mincore(addr as *mut _, len as usize, pages.as_mut_ptr()) };
        if there != 0 {
            return errno(libc::EFAULT);
        }
        if state.maps.values().map(|&(_, len)| len).sum::<u64>() + len > state.locked {
            return errno(libc::ENOMEM);
        }
        state.maps.insert(iova, (addr, len));
        state.most_maps = state.most_maps.max(state.maps.len());
        state.log.push("map".into());
        Ok(0)
    }

    fn unmap(&self, iova: u64, len: u64) -> io::Result<u32> {
        let mut state = self.state();
        // Type 1 v2: never a part of a mapping.
        if state.maps.get(&iova).is_none_or(|&(_, whole)| whole != len) {
            return errno(libc::EINVAL);
        }
        state.maps.remove(&iova);
        state.log.push("unmap".into());
        Ok(0)
    }
}

impl State {
    /// # Safety
    /// `words` is a `struct vfio_irq_set` of the size in its first word.
    unsafe fn set_irqs(&mut self, words: *const i32) -> io::Result<u32> {
        // SAFETY: the caller's promise.
        let words = unsafe { std::slice::from_raw_parts(words, *words as usize / 4) };
        let (flags, index, start, count) = (words[1] as u32, words[2] as u32, words[3], words[4]);
        assert_eq!(start, 0);
        self.log.push(format!("irqs {index} {count}"));
        if count == 0 {
            assert_eq!(flags, vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_TRIGGER);
            self.events.remove(&index);
            return Ok(0);
        }
        assert_eq!(flags, vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER);
        assert_eq!(words.len(), 5 + count as usize);
        if self.irq_answer != 0 && count > 1 {
            return Ok(self.irq_answer);
        }
        // SAFETY: descriptors that the caller has open; duplicates are ours.
        let events = words[5..].iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(libc::dup(fd)) });
        self.events.insert(index, events.collect());
        Ok(0)
    }
}

/// A capability's header, as a word.
fn header(id: u32, next: u32) -> Vec<u64> {
    vec![u64::from(id) | 1 << 16 | u64::from(next) << 32]
}

/// Puts a chain behind a structure of `at` bytes if there is room, and
/// answers the size that it takes.
///
/// # Safety
/// There is room for `room` bytes.
unsafe fn answer(to: *mut c_void, room: u32, at: usize, chain: &[u64]) -> u32 {
    let size = at + size_of_val(chain);
    if size <= room as usize {
        // SAFETY: by the line above, and the caller's promise.
        unsafe { to.cast::<u8>().add(at).copy_from(chain.as_ptr().cast(), size_of_val(chain)) };
    }
    size as u32
}
