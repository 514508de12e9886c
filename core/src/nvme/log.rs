//! What a controller tells of itself and of what went wrong.

use super::Status;

/// SMART / health information (Base section 5.16.1.3), the part that is read
/// most.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Critical warning bits: 0 spare low, 1 temperature, 2 reliability, 3
    /// read only, 4 backup of the volatile memory failed.
    pub critical_warning: u8,
    /// Composite temperature in kelvin; 0 if it is not reported.
    pub temperature_kelvin: u16,
    /// Spare capacity left, percent.
    pub spare_percent: u8,
    /// The spare capacity at which the warning comes, percent.
    pub spare_threshold_percent: u8,
    /// Life used, percent; may pass 100.
    pub used_percent: u8,
    /// Units of 1,000 × 512 bytes read, and written.
    pub data_units: (u128, u128),
    /// Power cycles.
    pub power_cycles: u128,
    /// Hours with power.
    pub power_on_hours: u128,
    /// Shutdowns without notice.
    pub unsafe_shutdowns: u128,
    /// Errors of media or data integrity.
    pub media_errors: u128,
    /// Entries of the error log over the controller's life.
    pub error_entries: u128,
}

impl Health {
    /// Of the first 512 bytes of the log page.
    pub(super) fn parse(data: &[u8; 4096]) -> Self {
        let number = |at: usize| u128::from_le_bytes(core::array::from_fn(|i| data[at + i]));
        Self {
            critical_warning: data[0],
            temperature_kelvin: u16::from_le_bytes([data[1], data[2]]),
            spare_percent: data[3],
            spare_threshold_percent: data[4],
            used_percent: data[5],
            data_units: (number(32), number(48)),
            power_cycles: number(112),
            power_on_hours: number(128),
            unsafe_shutdowns: number(144),
            media_errors: number(160),
            error_entries: number(176),
        }
    }
}

/// A command that failed, as a controller's [`recent_errors`] and its error
/// log tell of it.
///
/// [`recent_errors`]: super::Controller::recent_errors
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentError {
    /// The queue; 0 is the admin queue.
    pub queue: u16,
    /// The command's identifier.
    pub command: u16,
    /// Its opcode; 0xff where it is not known.
    pub opcode: u8,
    /// The namespace; 0 where the command is not known.
    pub nsid: u32,
    /// The first block; 0 where the command is not known.
    pub block: u64,
    /// What the controller answered.
    pub status: Status,
}

/// The last failures, oldest forgotten first.
#[derive(Debug)]
pub(super) struct Errors {
    last: [Option<RecentError>; 16],
    pub count: u64,
}

impl Errors {
    pub const fn new() -> Self {
        Self { last: [None; 16], count: 0 }
    }

    pub fn note(&mut self, error: RecentError) {
        self.last[(self.count % self.last.len() as u64) as usize] = Some(error);
        self.count += 1;
    }

    /// The last failures, newest first.
    pub fn newest(&self) -> [Option<RecentError>; 16] {
        let len = self.last.len() as u64;
        core::array::from_fn(|i| {
            let age = i as u64 + 1;
            if age > self.count { None } else { self.last[((self.count - age) % len) as usize] }
        })
    }
}

/// An entry of the error log (Base section 5.16.1.2), 64 bytes each.
pub(super) fn error_entry(data: &[u8]) -> Option<RecentError> {
    let u16_at = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    // An error count of 0: no entry.
    (u64_at(0) != 0).then(|| RecentError {
        queue: u16_at(8),
        command: u16_at(10),
        opcode: 0xff,
        nsid: u32_at(24),
        block: u64_at(16),
        // With the phase tag in bit 0.
        status: Status::from_field(u16_at(12) >> 1),
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_newest_failures_are_kept() {
        let mut errors = Errors::new();
        let error = |command| RecentError {
            queue: 1,
            command,
            opcode: 2,
            nsid: 1,
            block: 0,
            status: Status::from_field(0x281),
        };
        assert_eq!(errors.newest(), [None; 16]);
        for command in 0..20 {
            errors.note(error(command));
        }
        let newest = errors.newest();
        assert_eq!((newest[0], newest[15]), (Some(error(19)), Some(error(4))));
    }
}
