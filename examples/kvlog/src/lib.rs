//! A key-value log on a ring: the code of `docs/model-checking.md`.
//!
//! One thread appends records to a file, another looks them up. Each has a
//! ring of its own; the index that they share has no lock.

#[cfg(not(loom))]
mod place {
    pub use annulus_linux::IoUring;
    pub use std::fs::File;
    pub use std::sync::atomic::AtomicU32;
}

#[cfg(loom)]
mod place {
    pub use annulus::model::atomic::AtomicU32;
    pub use annulus::model::{File, Ring as IoUring};
}

use annulus::squeue::{Entry, Flags};
use annulus::{opcode, types};
use place::{AtomicU32, File, IoUring};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of a record in the file: a sum of the rest, the key, the length of the
/// value, the value.
const RECORD: usize = 64;
/// Bytes of a value, at most.
pub const VALUE: usize = RECORD - 12;

/// Where the last record of each key is. One thread publishes, others look.
struct Index(Box<[Place]>);

struct Place {
    key: AtomicU32,
    /// The record's number and 1; 0 is a place that is free.
    record: AtomicU32,
}

impl Index {
    fn new(keys: usize) -> Self {
        let free = || Place { key: AtomicU32::new(0), record: AtomicU32::new(0) };
        Self((0..keys).map(|_| free()).collect())
    }

    /// The place of a key, or the free one that it will have.
    fn place(&self, key: u32) -> Option<&Place> {
        // Acquire: pairs with the Release in `publish`; the key is written
        // before.
        let fits = |place: &&Place| match place.record.load(Ordering::Acquire) {
            0 => true,
            _ => place.key.load(Ordering::Relaxed) == key,
        };
        self.0.iter().find(fits)
    }

    fn find(&self, key: u32) -> Option<u32> {
        // Acquire: as above. A place that was free may have got another key.
        let place = self.place(key)?;
        let record = place.record.load(Ordering::Acquire).checked_sub(1)?;
        (place.key.load(Ordering::Relaxed) == key).then_some(record)
    }

    fn publish(&self, key: u32, record: u32) {
        let place = self.place(key).expect("the writer has looked");
        place.key.store(key, Ordering::Relaxed);
        // Release: pairs with the Acquire in `place`.
        place.record.store(record + 1, Ordering::Release);
    }
}

/// What the threads share.
struct Shared {
    file: File,
    index: Index,
}

/// A thread's part in the log. The ring is the first to be dropped: when it is
/// gone, nothing is in flight that means the record or the file.
struct Hand {
    ring: IoUring,
    record: Box<[u8; RECORD]>,
    shared: Arc<Shared>,
}

impl Hand {
    fn new(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self { ring: IoUring::new(2)?, record: Box::new([0; RECORD]), shared })
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.shared.file.as_raw_fd())
    }

    /// Starts requests; the user data of each is its place among them.
    fn start(&mut self, entries: &[Entry]) -> io::Result<()> {
        // SAFETY: they mean the file and our record, which the ring does not
        // outlive.
        unsafe { self.ring.submission().push_multiple(entries) }.expect("nothing is in it");
        self.ring.submit().map(drop)
    }

    /// Waits until all of them have ended.
    fn results<const N: usize>(&mut self) -> io::Result<[i32; N]> {
        let (mut results, mut ended) = ([0; N], 0);
        while ended < N {
            match self.ring.submit_and_wait(1) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            for cqe in self.ring.completion() {
                results[cqe.user_data() as usize] = cqe.result();
                ended += 1;
            }
        }
        Ok(results)
    }

    /// Reads a record: its key and value, or None if it is not (all) there.
    fn read(&mut self, number: u32) -> io::Result<Option<(u32, &[u8])>> {
        let read = opcode::Read::new(self.fd(), self.record.as_mut_ptr(), RECORD as u32);
        self.start(&[read.offset(at(number)).build()])?;
        let [count] = self.results()?;
        Ok(if checked(count)? == RECORD { decode(&self.record) } else { None })
    }
}

/// Who puts.
pub struct Writer {
    hand: Hand,
    /// The number of the next record.
    next: u32,
}

/// Who gets.
pub struct Reader {
    hand: Hand,
}

/// Opens a log for so many keys, and reads what is in it.
pub fn open(file: File, keys: usize) -> io::Result<(Writer, Reader)> {
    let shared = Arc::new(Shared { file, index: Index::new(keys) });
    let mut reader = Reader { hand: Hand::new(shared.clone())? };
    let mut next = 0;
    while let Some((key, _)) = reader.hand.read(next)? {
        shared.index.place(key).ok_or_else(full)?;
        shared.index.publish(key, next);
        next += 1;
    }
    Ok((Writer { hand: Hand::new(shared)?, next }, reader))
}

impl Writer {
    /// Appends a record. It is on the medium when this returns.
    pub fn put(&mut self, key: u32, value: &[u8]) -> io::Result<()> {
        let shared = self.hand.shared.clone();
        shared.index.place(key).ok_or_else(full)?;
        *self.hand.record = encode(key, value)?;
        let (fd, record) = (self.hand.fd(), self.hand.record.as_ptr());
        let write = opcode::Write::new(fd, record, RECORD as u32).offset(at(self.next)).build();
        let sync = opcode::Fsync::new(fd).build().user_data(1);
        self.hand.start(&[write.flags(Flags::IO_LINK), sync])?;
        if cfg!(feature = "publish-early") {
            shared.index.publish(key, self.next);
        }
        let [written, synced] = self.hand.results()?;
        if checked(written)? != RECORD {
            return Err(io::ErrorKind::WriteZero.into());
        }
        checked(synced)?;
        if !cfg!(feature = "publish-early") {
            shared.index.publish(key, self.next);
        }
        self.next += 1;
        Ok(())
    }
}

impl Reader {
    /// The value that was put last, if there is one.
    pub fn get(&mut self, key: u32) -> io::Result<Option<Vec<u8>>> {
        let Some(number) = self.hand.shared.index.find(key) else { return Ok(None) };
        match self.hand.read(number)? {
            Some((found, value)) if found == key => Ok(Some(value.to_vec())),
            _ => Err(io::Error::other(format!("record {number} is not that of key {key}"))),
        }
    }
}

fn at(number: u32) -> u64 {
    u64::from(number) * RECORD as u64
}

fn full() -> io::Error {
    io::Error::other("the index is full")
}

/// The bytes of a request's result, or its error.
fn checked(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, &b| (sum ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

fn word(record: &[u8; RECORD], at: usize) -> u32 {
    u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
}

fn encode(key: u32, value: &[u8]) -> io::Result<[u8; RECORD]> {
    let mut record = [0; RECORD];
    let place = record[12..].get_mut(..value.len());
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(value);
    record[4..8].copy_from_slice(&key.to_le_bytes());
    record[8..12].copy_from_slice(&(value.len() as u32).to_le_bytes());
    let sum = sum(&record[4..]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
    Ok(record)
}

fn decode(record: &[u8; RECORD]) -> Option<(u32, &[u8])> {
    let value = record[12..].get(..word(record, 8) as usize)?;
    (word(record, 0) == sum(&record[4..])).then_some((word(record, 4), value))
}
