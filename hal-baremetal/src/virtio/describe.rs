//! What a disk says of itself by a request.

use core::ops::Deref;

use annulus::errno::Errno;

use super::backend::DiskBackend;
use super::disk::{GONE, KIND, RESETTING};
use super::issue::head;
use super::places::STATUS;
use super::queue::Next;
use super::spec::{HEADER_BYTES, ID_BYTES, request as kind};
use super::{Disk, Error, Lie, Platform, Transport};

impl<P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> DiskBackend<'_, P, T, D> {
    /// The disk's identifier (its serial number, as a rule), in ASCII, padded
    /// with zeroes. Waits for it.
    ///
    /// # Errors
    /// [`Error::Argument`] while requests are in flight: ask before the ring
    /// begins. [`Error::Request`] if the device has none, or no answer in
    /// time; it is reset in the latter case.
    pub fn id(&mut self) -> Result<[u8; ID_BYTES as usize], Error> {
        if self.in_flight != 0 || !self.waiting.is_empty() {
            return Err(Error::Argument("ask for a disk's id while nothing is in flight"));
        }
        // Others may have reset it since this ring looked; that ends.
        while self.disk.state() & KIND == RESETTING {
            self.disk.platform().relax();
        }
        self.notice_state();
        match self.disk.state() {
            state if state == self.armed => {}
            state if state & KIND == GONE => return Err(Error::Gone),
            _ => return Err(Error::Dead),
        }
        let Some(place) = self.take_place() else { return Err(Error::Dead) };
        let memory = self.memory(place);
        let extra = self.extra(memory);
        let to = self.place(place, memory);
        // SAFETY: a free place was taken, so it has nothing in flight.
        let count = unsafe {
            head(memory, kind::GET_ID, 0);
            let mut chain = self.ring.open(to);
            chain.add(memory.device, HEADER_BYTES, false);
            chain.add(extra.device, ID_BYTES, true);
            chain.end(memory.device + STATUS as u64, 1);
            self.ring.close(to, &chain)
        };
        if self.ring.publish() {
            self.notify();
        }
        let answer = self.wait_for(place, count);
        self.free_place(place);
        let failed = |errno| Error::Request { what: "ask the disk for its id", errno };
        match answer {
            Ok(0) => {
                let mut id = [0; ID_BYTES as usize];
                for (at, byte) in id.iter_mut().enumerate() {
                    // SAFETY: the place's memory, of which this much is for
                    // data; volatile, for the device wrote it.
                    *byte = unsafe { extra.at.cast::<u8>().add(at).read_volatile() };
                }
                Ok(id)
            }
            Ok(status) => Err(failed(Errno::from_raw(-self.failed(kind::GET_ID, 0, status)))),
            Err(errno) => {
                self.notice_state();
                Err(failed(errno))
            }
        }
    }

    /// Waits for the only request that is in flight. Answers its status.
    fn wait_for(&mut self, place: u16, count: u16) -> Result<u8, Errno> {
        let platform = self.disk.platform();
        let limit = u64::from(self.disk.options().timeout_ms) * 1_000_000;
        let deadline = platform.now().saturating_add(limit);
        loop {
            let lie = match self.ring.next(self.shift, 1) {
                Next::Used { place: used, len } if used == place.into() => {
                    self.ring.took(count);
                    match self.status(place) {
                        _ if len > ID_BYTES + 1 => Lie::Length(len),
                        super::issue::NO_STATUS => Lie::NoStatus,
                        status => return Ok(status),
                    }
                }
                Next::Used { place, .. } => Lie::Id(place),
                Next::Lie(lie) => lie,
                Next::Nothing if !self.live() => return Err(Errno::EIO),
                Next::Nothing if self.disk.platform().now() >= deadline => {
                    self.ask_for_reset();
                    return Err(Errno::ETIMEDOUT);
                }
                Next::Nothing => {
                    self.disk.platform().relax();
                    continue;
                }
            };
            self.accuse(lie);
            return Err(Errno::EIO);
        }
    }
}
