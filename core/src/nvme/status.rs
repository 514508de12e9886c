//! What a controller answers (Base section 4.6.1, figures 93 to 99), and the
//! errno that says the same.

use core::fmt;

use crate::errno::Errno;

/// The status field of a completion: code type, code, and the bits beside
/// them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

const MORE: u16 = 1 << 13;
const DO_NOT_RETRY: u16 = 1 << 14;

/// One row a status: type and code, the errno, the name of the specification.
macro_rules! statuses {
    ($($kind:literal $code:literal $errno:ident $name:literal;)*) => {
        /// The errno and the name of a status that has a row.
        const fn row(status: u16) -> Option<(Errno, &'static str)> {
            match (status >> 8, status & 0xff) {
                $(($kind, $code) => Some((Errno::$errno, $name)),)*
                _ => None,
            }
        }
    };
}

// The errnos are those of Linux's block layer for the same status, with two
// exceptions: a write protected namespace is EROFS, and an aborted command is
// ECANCELED (Linux tries it again).
statuses! {
    0 0x01 EOPNOTSUPP "Invalid Command Opcode";
    0 0x02 EOPNOTSUPP "Invalid Field in Command";
    0 0x03 EIO "Command ID Conflict";
    0 0x04 EIO "Data Transfer Error";
    0 0x05 EIO "Commands Aborted due to Power Loss Notification";
    0 0x06 EIO "Internal Error";
    0 0x07 ECANCELED "Command Abort Requested";
    0 0x08 ECANCELED "Command Aborted due to SQ Deletion";
    0 0x09 EIO "Command Aborted due to Failed Fused Command";
    0 0x0a EIO "Command Aborted due to Missing Fused Command";
    0 0x0b EOPNOTSUPP "Invalid Namespace or Format";
    0 0x0c EIO "Command Sequence Error";
    0 0x0d EIO "Invalid SGL Segment Descriptor";
    0 0x0e EIO "Invalid Number of SGL Descriptors";
    0 0x0f EIO "Data SGL Length Invalid";
    0 0x10 EIO "Metadata SGL Length Invalid";
    0 0x11 EIO "SGL Descriptor Type Invalid";
    0 0x13 EIO "PRP Offset Invalid";
    0 0x1c EIO "Sanitize Failed";
    0 0x1d EBUSY "Sanitize In Progress";
    0 0x20 EROFS "Namespace is Write Protected";
    0 0x21 EREMOTEIO "Command Interrupted";
    0 0x22 EIO "Transient Transport Error";
    0 0x80 EREMOTEIO "LBA Out of Range";
    0 0x81 ENOSPC "Capacity Exceeded";
    0 0x82 EREMOTEIO "Namespace Not Ready";
    0 0x83 EBADE "Reservation Conflict";
    0 0x84 EBUSY "Format In Progress";
    1 0x00 EIO "Completion Queue Invalid";
    1 0x01 EIO "Invalid Queue Identifier";
    1 0x02 EIO "Invalid Queue Size";
    1 0x03 EIO "Abort Command Limit Exceeded";
    1 0x05 EIO "Asynchronous Event Request Limit Exceeded";
    1 0x08 EIO "Invalid Interrupt Vector";
    1 0x09 EIO "Invalid Log Page";
    1 0x80 EOPNOTSUPP "Conflicting Attributes";
    1 0x81 EILSEQ "Invalid Protection Information";
    1 0x82 EROFS "Attempted Write to Read Only Range";
    2 0x80 ENODATA "Write Fault";
    2 0x81 ENODATA "Unrecovered Read Error";
    2 0x82 EILSEQ "End-to-end Guard Check Error";
    2 0x83 EILSEQ "End-to-end Application Tag Check Error";
    2 0x84 EILSEQ "End-to-end Reference Tag Check Error";
    2 0x85 ENODATA "Compare Failure";
    2 0x86 ENODATA "Access Denied";
    2 0x87 ENODATA "Deallocated or Unwritten Logical Block";
    3 0x00 EIO "Internal Path Error";
    3 0x60 EIO "Controller Pathing Error";
    3 0x70 EIO "Host Pathing Error";
}

impl Status {
    /// Of a completion's status field: dword 3, bits 17 to 31.
    pub fn from_field(field: u16) -> Self {
        Self(field & 0x7fff)
    }

    /// Whether the command did what it was asked for.
    pub fn is_success(self) -> bool {
        self.0 & 0x7ff == 0
    }

    /// `SCT`: 0 generic, 1 command specific, 2 media, 3 path, 7 the vendor's.
    pub fn code_type(self) -> u8 {
        (self.0 >> 8 & 7) as u8
    }

    /// `SC`, within its type.
    pub fn code(self) -> u8 {
        self.0 as u8
    }

    /// Whether trying again will fail again (`DNR`).
    pub fn do_not_retry(self) -> bool {
        self.0 & DO_NOT_RETRY != 0
    }

    /// Whether the error log has more on this (`M`).
    pub fn more(self) -> bool {
        self.0 & MORE != 0
    }

    /// The errno of a CQE; `EIO` for what has no row of its own.
    pub fn errno(self) -> Errno {
        row(self.0 & 0x7ff).map_or(Errno::EIO, |(errno, _)| errno)
    }

    /// The specification's name, where it is known here.
    pub fn name(self) -> Option<&'static str> {
        if self.is_success() {
            return Some("Successful Completion");
        }
        row(self.0 & 0x7ff).map(|(_, name)| name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("a status without a name here");
        write!(f, "{name} (type {:#x}, code {:#04x}", self.code_type(), self.code())?;
        f.write_str(if self.do_not_retry() { ", do not retry)" } else { ")" })
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#06x}: {self})", self.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_status_keeps_its_meaning() {
        let status = Status::from_field(2 << 8 | 0x81 | DO_NOT_RETRY);
        assert!(!status.is_success() && status.do_not_retry() && !status.more());
        assert_eq!(status.errno(), Errno::ENODATA);
        assert_eq!(
            status.to_string(),
            "Unrecovered Read Error (type 0x2, code 0x81, do not retry)"
        );
        assert_eq!(Status::from_field(7 << 8 | 1).errno(), Errno::EIO);
        // Bits beside type and code do not make a failure.
        assert!(Status::from_field(MORE).is_success());
    }
}
