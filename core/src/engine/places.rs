//! Requests that change the table of registered files.

use super::Engine;
use super::submit::Issue;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host, Start};
use crate::request::DIRECT;
use crate::sqe::Sqe;
use crate::uapi::IORING_FILE_INDEX_ALLOC;

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// FILES_UPDATE. It ends here, so an array of file numbers is the
    /// application's again when the SQE is.
    #[cold]
    pub(super) fn files_update(&mut self, index: u32, sqe: &Sqe) -> Issue {
        // Checked to fit.
        let (array, count) = (sqe.addr as usize, sqe.len);
        // The kernel's offset has 32 bits; what is above them is not looked at.
        let updated = match sqe.off as u32 {
            IORING_FILE_INDEX_ALLOC => self.fill_empty_places(array, count),
            offset => {
                let offset = offset + u32::from(fault::on(Fault::FilesUpdateOffByOne));
                self.update_each(offset, count, |engine, at| {
                    engine.file_number(array, at).map(|fd| (fd, 0))
                })
            }
        };
        let result = updated.map_or_else(Errno::to_result, |done| done as i32);
        self.end(index, sqe.user_data, result)
    }

    /// Opens each file of the array into an empty place, and writes the place
    /// where the file's number was.
    fn fill_empty_places(&mut self, array: usize, count: u32) -> Result<u32, Errno> {
        if !self.files.registered() {
            return Err(Errno::ENXIO);
        }
        for done in 0..count {
            if let Err(errno) = self.fill_empty_place(array, done) {
                return if done == 0 { Err(errno) } else { Ok(done) };
            }
        }
        Ok(count)
    }

    fn fill_empty_place(&mut self, array: usize, at: u32) -> Result<(), Errno> {
        let fd = self.file_number(array, at)?;
        let file = self.backend.open(fd)?;
        let place = self.install(IORING_FILE_INDEX_ALLOC, file)?;
        if fault::on(Fault::FilesUpdateSilent) {
            return Ok(());
        }
        // SAFETY: whoever pushed the SQE promised the array for the request.
        let told = unsafe { self.backend.write_memory(element(array, at), &place.to_ne_bytes()) };
        if told.is_err() {
            self.empty_place(place);
        }
        told
    }

    /// The number at `at` of an array of file numbers.
    fn file_number(&mut self, array: usize, at: u32) -> Result<i32, Errno> {
        let mut number = [0; 4];
        // SAFETY: whoever pushed the SQE promised the array for the request.
        unsafe { self.backend.read_memory(element(array, at), &mut number)? };
        Ok(i32::from_ne_bytes(number))
    }

    /// CLOSE of a registered file. Requests in flight keep it.
    #[cold]
    pub(super) fn close_place(&mut self, index: u32, sqe: &Sqe, file_index: u32) -> Issue {
        let place = file_index - 1;
        let result = if !self.files.registered() {
            Errno::ENXIO.to_result()
        } else if place >= self.files.len() {
            Errno::EINVAL.to_result()
        } else if fault::on(Fault::DirectCloseForgotten) || self.empty_place(place) {
            0
        } else {
            Errno::EBADF.to_result()
        };
        self.end(index, sqe.user_data, result)
    }

    /// What became of the start of an OPENAT that opens a registered file.
    #[cold]
    pub(super) fn opening(&mut self, index: u32, file_index: u32, start: Start) -> Start {
        match start {
            Start::Done(result) => {
                // Its slot is still armed, so it is one of those in flight.
                self.pending += 1;
                let result = self.opened(file_index, result);
                self.pending -= 1;
                Start::Done(result)
            }
            Start::Pending => {
                self.pool.outcomes[index as usize].cflags = file_index;
                self.pool.records[index as usize].what.set(DIRECT);
                Start::Pending
            }
            other => other,
        }
    }

    /// The result of an OPENAT that opens a registered file: 0, or its place
    /// if that was the engine's choice.
    pub(super) fn opened(&mut self, file_index: u32, result: i32) -> i32 {
        if result < 0 {
            return result;
        }
        let installed = self.backend.adopt(result).and_then(|file| self.install(file_index, file));
        match installed {
            Ok(place) if file_index == IORING_FILE_INDEX_ALLOC => place as i32,
            Ok(_) => 0,
            Err(errno) => errno.to_result(),
        }
    }

    /// Registers a file in the place that `file_index` means, from which an
    /// older one goes. If that fails, the file is closed.
    fn install(&mut self, file_index: u32, file: B::File) -> Result<u32, Errno> {
        match self.shared.sent.claim(file_index) {
            Ok((place, sent)) => {
                self.drop_sent(sent);
                self.put_file(place, file);
                Ok(place)
            }
            Err(errno) => {
                self.backend.close(file);
                Err(errno)
            }
        }
    }
}

/// The address of an element of an array of file numbers.
fn element(array: usize, at: u32) -> usize {
    array.wrapping_add(at as usize * size_of::<i32>())
}
