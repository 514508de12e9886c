//! Tags of registered files and buffers.

use std::os::fd::AsRawFd;

use annulus_linux::{IoUring, cqueue};

fn seen(ring: &mut IoUring) -> Vec<(u64, i32, u32)> {
    let told = |cqe: cqueue::Entry| (cqe.user_data(), cqe.result(), cqe.flags());
    ring.completion().map(told).collect()
}

#[test]
fn tags_come_as_completions_when_their_resource_goes() {
    let mut ring = IoUring::builder().tags(4).build(4).unwrap();
    assert!(ring.params().is_feature_resource_tagging());
    let file = tempfile::tempfile().unwrap();
    let fd = file.as_raw_fd();
    let mut memory = [[0u8; 64]; 2];
    let buffers = memory
        .each_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
    ring.submitter().register_files_tags(&[fd, fd], &[1, 2]).unwrap();
    assert_eq!(ring.submitter().register_files_update_tag(0, &[fd], &[3]).unwrap(), 1);
    assert_eq!(seen(&mut ring), [(1, 0, 0)]);
    // SAFETY: nobody uses the memory while it is registered.
    unsafe {
        ring.submitter().register_buffers2(&buffers, &[4, 0]).unwrap();
        let update =
            |count, tags| ring.submitter().register_buffers_update(0, &buffers[..count], tags);
        assert_eq!(update(2, Some(&[5, 6])).unwrap(), 2);
        let error = update(1, Some(&[7])).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "four are all");
        assert_eq!(update(1, None).unwrap(), 1);
    }
    assert_eq!(seen(&mut ring), [(4, 0, 0), (5, 0, 0)]);
    ring.submitter().unregister_buffers().unwrap();
    ring.submitter().unregister_files().unwrap();
    assert_eq!(seen(&mut ring), [(6, 0, 0), (2, 0, 0), (3, 0, 0)]);
}
