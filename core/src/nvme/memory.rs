//! Memory for the device in several pieces.

use super::Platform;
use crate::errno::Errno;
use crate::hal::device::Coherent;

/// Memory of these lengths: all, or nothing.
pub(super) fn alloc_all<const N: usize>(
    platform: &impl Platform,
    lens: [usize; N],
) -> Result<[Coherent; N], Errno> {
    let mut all = [const { None }; N];
    for (at, &len) in lens.iter().enumerate() {
        match platform.alloc(len) {
            Ok(memory) => all[at] = Some(memory),
            Err(errno) => {
                for memory in all.into_iter().flatten() {
                    // SAFETY: from this platform, and not used yet.
                    unsafe { platform.free(memory) };
                }
                return Err(errno);
            }
        }
    }
    Ok(all.map(|memory| memory.expect("allocated above")))
}
