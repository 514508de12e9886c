//! Row *provided buffers*: rings whose buffers are used up by parts, in every way
//! to drive a ring. What Linux does is compared by verification's scripts.

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicU16, Ordering};

use annulus_linux::types::BufRingEntry;
use annulus_linux::{Ring, cqueue, opcode, squeue};
use common::*;

const GROUP: u16 = 3;
const LEN: u32 = 64;

/// A ring of four buffers, and their memory.
struct Parts {
    page: *mut BufRingEntry,
    memory: Vec<u8>,
    tail: u16,
}

#[repr(C, align(4096))]
struct Page([BufRingEntry; 256]);

impl Parts {
    fn new(ring: &Ring, buffers: u16) -> Self {
        let page = Box::leak(Box::new(Page([const { BufRingEntry::new() }; 256])));
        let page = (&raw mut page.0).cast::<BufRingEntry>();
        let mut parts = Self { page, memory: vec![0; 4 * LEN as usize], tail: 0 };
        (0..buffers).for_each(|_| parts.fill());
        let flags = annulus::uapi::IOU_PBUF_RING_INC as u16;
        let at = page.expose_provenance() as u64;
        // SAFETY: the page is leaked, and the memory outlives the last read.
        unsafe { ring.submitter().register_buf_ring_with_flags(at, 4, GROUP, flags) }.unwrap();
        parts
    }

    fn fill(&mut self) {
        let place = self.tail % 4;
        let at = usize::from(place) * LEN as usize;
        // SAFETY: one of the four; the tail is a word that the ring loads.
        unsafe {
            let entry = self.page.add(place.into());
            (*entry).set_addr((&raw mut self.memory[at]).expose_provenance() as u64);
            (*entry).set_len(LEN);
            (*entry).set_bid(self.tail);
            self.tail += 1;
            let word = BufRingEntry::tail(self.page).cast_mut();
            AtomicU16::from_ptr(word).store(self.tail, Ordering::Release);
        }
    }
}

fn read(from: &impl std::os::fd::AsRawFd, len: u32, off: u64) -> squeue::Entry {
    let read = opcode::Read::new(fd(from), std::ptr::null_mut(), len).offset(off);
    read.buf_group(GROUP).build().flags(squeue::Flags::BUFFER_SELECT)
}

/// Result, buffer, and whether there is more of it.
fn told(cqe: &cqueue::Entry) -> (i32, Option<u16>, bool) {
    (cqe.result(), cqueue::buffer_select(cqe.flags()), cqueue::buffer_more(cqe.flags()))
}

#[test]
fn row_provided_buffers_by_parts_are_filled_without_gaps_by_a_pipe() {
    each(8, |ring| {
        let (from, to) = pipe(0);
        let parts = Parts::new(ring, 2);
        let sent: Vec<u8> = (0..2 * LEN as u8).map(|byte| byte + 1).collect();
        let mut left = &sent[..];
        let mut got = 0;
        while !left.is_empty() {
            let chunk = left.len().min(9);
            push(ring, &[read(&from, 0, u64::MAX)]);
            ring.submit().unwrap();
            put(&to, &left[..chunk]);
            left = &left[chunk..];
            let mut here = 0;
            while here < chunk as u32 {
                let (moved, id, more) = told(&reap(ring, 1)[0]);
                assert!(moved > 0);
                assert_eq!(id, Some((got / LEN) as u16));
                here += moved as u32;
                got += moved as u32;
                assert_eq!(more, !got.is_multiple_of(LEN));
                if here < chunk as u32 {
                    // The buffer was at its end; the next has the rest.
                    push(ring, &[read(&from, 0, u64::MAX)]);
                    ring.submit().unwrap();
                }
            }
        }
        assert_eq!(parts.memory[..sent.len()], sent);
        assert_eq!(ring.submitter().buf_ring_head(GROUP).unwrap(), 2);
        assert_eq!(one(ring, &read(&from, 0, u64::MAX)), -libc::ENOBUFS);
    });
}

#[test]
fn row_provided_buffers_by_parts_of_a_file_are_each_reads_own() {
    each(8, |ring| {
        let mut file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..LEN as u8).map(|byte| byte ^ 0x5a).collect();
        file.write_all(&data).unwrap();
        let parts = Parts::new(ring, 1);
        // Together, some by workers.
        let reads: Vec<_> = (0..4)
            .map(|n| {
                let entry = read(&file, 16, 16 * n).user_data(n);
                let odd = if n % 2 == 0 { squeue::Flags::empty() } else { squeue::Flags::ASYNC };
                entry.flags(squeue::Flags::BUFFER_SELECT | odd)
            })
            .collect();
        let cqes = run(ring, &reads);
        assert!(cqes.iter().all(|cqe| (cqe.result(), told(cqe).1) == (16, Some(0))));
        assert_eq!(cqes.iter().filter(|cqe| !told(cqe).2).count(), 1);
        assert_eq!(parts.memory[..LEN as usize], data);
        assert_eq!(ring.submitter().buf_ring_head(GROUP).unwrap(), 1);
        assert_eq!(one(ring, &read(&file, 1, 0)), -libc::ENOBUFS);
    });
}

#[test]
fn row_provided_buffers_by_parts_who_waits_for_a_pipe_has_none_of_it() {
    each(8, |ring| {
        let (from, to) = pipe(0);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 64]).unwrap();
        let parts = Parts::new(ring, 1);
        push(ring, &[read(&from, 8, u64::MAX).user_data(1)]);
        ring.submit().unwrap();
        nothing_comes(ring);
        push(ring, &[read(&file, 60, 0).user_data(2)]);
        ring.submit().unwrap();
        assert_eq!(told(&reap(ring, 1)[0]), (60, Some(0), true));
        put(&to, b"abcdefgh");
        assert_eq!(told(&reap(ring, 1)[0]), (4, Some(0), false));
        assert_eq!(parts.memory[56..64], *b"\x07\x07\x07\x07abcd");
    });
}
