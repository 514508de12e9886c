//! Registered files from ring to ring, with threads and real descriptors.

use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use annulus_linux::opcode::{Close, MsgRingData, MsgRingSendFd, Read};
use annulus_linux::squeue::Entry;
use annulus_linux::types::{DestinationSlot, Fd, Fixed};
use annulus_linux::{Builder, Ring};

/// The result of an entry whose memory lasts.
fn result(ring: &mut Ring, entry: &Entry) -> i32 {
    // SAFETY: as said.
    unsafe { ring.submission().push(entry) }.unwrap();
    loop {
        ring.submit_and_wait(1).unwrap();
        let own = ring.completion().find(|cqe| cqe.user_data() == entry.user_data);
        if let Some(cqe) = own {
            return cqe.result();
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One thread sends messages all the time, so that the news of a file is often
/// another's to tell; another sends files, and uses each at once on the ring that
/// has got it.
#[test]
fn row_messages_files_are_used_by_who_sent_them() {
    let files: Vec<_> = (1..=3_u8)
        .map(|byte| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[byte]).unwrap();
            file
        })
        .collect();
    let fds: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    for ways in [
        (|_| {}) as fn(&mut Builder),
        |builder| _ = builder.setup_served(),
        |builder| _ = builder.setup_sqpoll(1),
    ] {
        let before = descriptors();
        let mut one = Ring::new(8).unwrap();
        let mut builder = Ring::builder();
        ways(&mut builder);
        let mut other = builder.build(8).unwrap();
        one.submitter().register_files(&fds).unwrap();
        other.submitter().register_files_sparse(4).unwrap();
        let (stop, number) = (AtomicBool::new(false), other.as_raw_fd());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut talker = Ring::new(8).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let message = MsgRingData::new(Fd(number), 0, 99, None).build();
                    result(&mut talker, &message);
                }
            });
            for round in 0..2000_u32 {
                let from = Fixed(round % 3);
                let any = DestinationSlot::auto_target();
                let sent = MsgRingSendFd::new(Fd(number), from, any, 98).opcode_flags(1).build();
                let place = match result(&mut one, &sent) {
                    place @ 0.. => place as u32,
                    // The talker was faster.
                    full => {
                        assert_eq!(full, -libc::EOVERFLOW);
                        other.submit_and_wait(0).unwrap();
                        other.completion().for_each(drop);
                        continue;
                    }
                };
                let mut byte = [0];
                let read = Read::new(Fixed(place), byte.as_mut_ptr(), 1).build().user_data(1);
                assert_eq!(result(&mut other, &read), 1, "round {round}");
                assert_eq!(u32::from(byte[0]), round % 3 + 1);
                let close = Close::new(Fixed(place)).build().user_data(2);
                assert_eq!(result(&mut other, &close), 0);
            }
            stop.store(true, Ordering::Relaxed);
        });
        drop((one, other));
        assert_eq!(descriptors(), before, "nothing is left open");
    }
}
