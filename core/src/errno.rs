//! Error numbers, as they appear (negated) in a completion's result and in the answers of a ring's calls.
//!
//! The numbers are Linux's generic ones (x86, Arm, RISC-V, s390 and most others) on every machine, with or without Linux
//! beneath: they are a part of the contract. On Linux machines with numbers of their own (MIPS, SPARC, PA-RISC, Alpha) a
//! place translates them.

use core::fmt;
use core::num::NonZeroU16;

/// One error number, positive and never 0.
///
/// ```
/// use annulus::errno::Errno;
/// assert_eq!(Errno::EINVAL.to_string(), "EINVAL (22): invalid argument");
/// assert_eq!(Errno::from_result(-9), Some(Errno::EBADF));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(NonZeroU16);

/// Defines each number once: as a constant, and as a row of the name table.
macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(
                #[doc = concat!($text, " (", $number, ").")]
                pub const $name: Errno = Errno(NonZeroU16::new($number).unwrap());
            )*

            /// Every number with a name, in ascending order.
            pub const ALL: &[Errno] = &[$(Errno::$name),*];

            /// The name, such as `"EINVAL"`, and its meaning in a few words.
            const fn entry(self) -> Option<(&'static str, &'static str)> {
                match self.0.get() {
                    $($number => Some((stringify!($name), $text)),)*
                    _ => None,
                }
            }
        }
    };
}

impl Errno {
    /// The largest number that a result can carry: Linux reserves the results from -4095 to -1 for errors.
    pub const MAX: i32 = 4095;

    /// Another name of [`EAGAIN`](Errno::EAGAIN).
    pub const EWOULDBLOCK: Errno = Errno::EAGAIN;
    /// Another name of [`EDEADLK`](Errno::EDEADLK).
    pub const EDEADLOCK: Errno = Errno::EDEADLK;
    /// Another name of [`EOPNOTSUPP`](Errno::EOPNOTSUPP).
    pub const ENOTSUP: Errno = Errno::EOPNOTSUPP;

    /// The error with this positive number.
    ///
    /// # Panics
    ///
    /// If `number` is not in 1..=4095. For numbers from outside use [`checked`](Errno::checked) or
    /// [`from_result`](Errno::from_result).
    #[must_use]
    #[track_caller]
    pub const fn from_raw(number: i32) -> Errno {
        match Errno::checked(number) {
            Some(errno) => errno,
            None => {
                panic!("an error number lies in 1..=4095; negate a result before it is passed here")
            }
        }
    }

    /// The error with this positive number, or `None` if it is not in 1..=4095.
    #[must_use]
    pub const fn checked(number: i32) -> Option<Errno> {
        if number < 1 || number > Errno::MAX {
            return None;
        }
        match NonZeroU16::new(number as u16) {
            Some(number) => Some(Errno(number)),
            None => None,
        }
    }

    /// The error in a completion's result, or `None` if the result is no error (not in -4095..=-1).
    #[must_use]
    pub const fn from_result(result: i32) -> Option<Errno> {
        Errno::checked(result.saturating_neg())
    }

    /// The positive number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0.get() as i32
    }

    /// The number as a result carries it: negative.
    #[must_use]
    pub const fn to_result(self) -> i32 {
        -self.raw()
    }

    /// The name, such as `"EINVAL"`; `None` for a number that Linux does not name.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self.entry() {
            Some((name, _)) => Some(name),
            None => None,
        }
    }

    /// What this error means when it comes from a ring, and what to do next; `None` where the ring adds nothing to its
    /// general meaning.
    #[must_use]
    pub const fn hint(self) -> Option<&'static str> {
        Some(match self {
            Errno::EPERM => {
                "the ring's policy forbids this to the caller: use the needed privilege or another policy"
            }
            Errno::EINTR => "the wait was interrupted and nothing is lost: call again",
            Errno::ENXIO => {
                "nothing is registered on this ring, or not at this place: register first, or correct the index"
            }
            Errno::EBADF => {
                "the descriptor is not open, or the index is not in the table of registered files: correct it, or register \
                 the file"
            }
            Errno::EAGAIN => {
                "it would have had to wait, or something is short for the moment: try again"
            }
            Errno::ENOMEM => {
                "the ring's memory or its slots are used up: reap completions, or configure more"
            }
            Errno::EFAULT => {
                "an address is wrong, or the range leaves its registered buffer: correct address, length or buffer index"
            }
            Errno::EBUSY => {
                "on submission: no request slot is free, so reap completions and submit again; on registration: something \
                 is registered already, so unregister it first"
            }
            Errno::EINVAL => {
                "an opcode, flag or argument is not supported here or the arguments contradict each other: compare the \
                 entry with the probe and the feature bits"
            }
            Errno::EMFILE => {
                "the table of registered files has a fixed size: register fewer, or configure more"
            }
            Errno::ENOSPC => {
                "the file's device is full: free some space; the request wrote nothing"
            }
            Errno::ESPIPE => "the file has no positions (a pipe or socket): use offset -1",
            Errno::ETIME => {
                "the timeout expired before enough completions came; those that came are in the ring"
            }
            Errno::EOVERFLOW => {
                "the range ends beyond the largest position: correct offset or length"
            }
            Errno::EOPNOTSUPP => "the file or its backend cannot do this operation",
            Errno::ENOBUFS => "the buffer group is empty: provide buffers and submit again",
            Errno::ECANCELED => {
                "the request was cancelled, or an earlier one of its chain failed: it did not run"
            }
            Errno::EOWNERDEAD => "the submission thread has ended: set the ring up anew",
            Errno::EBADFD => {
                "the ring is disabled or has been shut down: enable it, or set it up anew"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry() {
            Some((name, text)) => write!(f, "{name} ({}): {text}", self.0),
            None => write!(f, "error number {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl core::error::Error for Errno {}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or entry";
    ESRCH = 3, "no such process";
    EINTR = 4, "interrupted";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or place";
    E2BIG = 7, "argument too large";
    ENOEXEC = 8, "not an executable";
    EBADF = 9, "bad file descriptor";
    ECHILD = 10, "no child process";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "access denied";
    EFAULT = 14, "bad address";
    ENOTBLK = 15, "not a block device";
    EBUSY = 16, "busy";
    EEXIST = 17, "already exists";
    EXDEV = 18, "crosses devices";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in the system";
    EMFILE = 24, "too many open files";
    ENOTTY = 25, "no such device control";
    ETXTBSY = 26, "program file in use";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    ESPIPE = 29, "cannot seek";
    EROFS = 30, "read-only file system";
    EMLINK = 31, "too many links";
    EPIPE = 32, "broken pipe";
    EDOM = 33, "argument outside the domain";
    ERANGE = 34, "result outside the range";
    EDEADLK = 35, "would deadlock";
    ENAMETOOLONG = 36, "name too long";
    ENOLCK = 37, "no locks available";
    ENOSYS = 38, "not implemented";
    ENOTEMPTY = 39, "directory not empty";
    ELOOP = 40, "too many symbolic links";
    ENOMSG = 42, "no message of that type";
    EIDRM = 43, "identifier removed";
    ECHRNG = 44, "channel number out of range";
    EL2NSYNC = 45, "level 2 not synchronized";
    EL3HLT = 46, "level 3 halted";
    EL3RST = 47, "level 3 reset";
    ELNRNG = 48, "link number out of range";
    EUNATCH = 49, "protocol driver not attached";
    ENOCSI = 50, "no CSI structure";
    EL2HLT = 51, "level 2 halted";
    EBADE = 52, "invalid exchange";
    EBADR = 53, "invalid request descriptor";
    EXFULL = 54, "exchange full";
    ENOANO = 55, "no anode";
    EBADRQC = 56, "invalid request code";
    EBADSLT = 57, "invalid slot";
    EBFONT = 59, "bad font file";
    ENOSTR = 60, "not a stream";
    ENODATA = 61, "no data";
    ETIME = 62, "time expired";
    ENOSR = 63, "out of stream resources";
    ENONET = 64, "not on the network";
    ENOPKG = 65, "package not installed";
    EREMOTE = 66, "object is remote";
    ENOLINK = 67, "link severed";
    EADV = 68, "advertise error";
    ESRMNT = 69, "remote mount error";
    ECOMM = 70, "communication error on send";
    EPROTO = 71, "protocol error";
    EMULTIHOP = 72, "multihop attempted";
    EDOTDOT = 73, "RFS error";
    EBADMSG = 74, "bad message";
    EOVERFLOW = 75, "value too large";
    ENOTUNIQ = 76, "name not unique on the network";
    EBADFD = 77, "descriptor in a bad state";
    EREMCHG = 78, "remote address changed";
    ELIBACC = 79, "shared library not accessible";
    ELIBBAD = 80, "shared library damaged";
    ELIBSCN = 81, "shared library section damaged";
    ELIBMAX = 82, "too many shared libraries";
    ELIBEXEC = 83, "cannot execute a shared library";
    EILSEQ = 84, "invalid byte sequence";
    ERESTART = 85, "should be restarted";
    ESTRPIPE = 86, "stream pipe error";
    EUSERS = 87, "too many users";
    ENOTSOCK = 88, "not a socket";
    EDESTADDRREQ = 89, "destination address required";
    EMSGSIZE = 90, "message too long";
    EPROTOTYPE = 91, "wrong protocol for the socket";
    ENOPROTOOPT = 92, "protocol option not available";
    EPROTONOSUPPORT = 93, "protocol not supported";
    ESOCKTNOSUPPORT = 94, "socket type not supported";
    EOPNOTSUPP = 95, "operation not supported";
    EPFNOSUPPORT = 96, "protocol family not supported";
    EAFNOSUPPORT = 97, "address family not supported";
    EADDRINUSE = 98, "address in use";
    EADDRNOTAVAIL = 99, "address not available";
    ENETDOWN = 100, "network down";
    ENETUNREACH = 101, "network unreachable";
    ENETRESET = 102, "connection lost by a network reset";
    ECONNABORTED = 103, "connection aborted";
    ECONNRESET = 104, "connection reset";
    ENOBUFS = 105, "no buffer available";
    EISCONN = 106, "already connected";
    ENOTCONN = 107, "not connected";
    ESHUTDOWN = 108, "shut down";
    ETOOMANYREFS = 109, "too many references";
    ETIMEDOUT = 110, "timed out";
    ECONNREFUSED = 111, "connection refused";
    EHOSTDOWN = 112, "host down";
    EHOSTUNREACH = 113, "host unreachable";
    EALREADY = 114, "already in progress";
    EINPROGRESS = 115, "now in progress";
    ESTALE = 116, "stale file handle";
    EUCLEAN = 117, "structure needs cleaning";
    ENOTNAM = 118, "not a named type file";
    ENAVAIL = 119, "no semaphore available";
    EISNAM = 120, "is a named type file";
    EREMOTEIO = 121, "remote input/output error";
    EDQUOT = 122, "quota exceeded";
    ENOMEDIUM = 123, "no medium";
    EMEDIUMTYPE = 124, "wrong medium type";
    ECANCELED = 125, "canceled";
    ENOKEY = 126, "required key not available";
    EKEYEXPIRED = 127, "key expired";
    EKEYREVOKED = 128, "key revoked";
    EKEYREJECTED = 129, "key rejected";
    EOWNERDEAD = 130, "owner died";
    ENOTRECOVERABLE = 131, "state not recoverable";
    ERFKILL = 132, "radio switched off";
    EHWPOISON = 133, "memory page damaged";
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn numbers_go_in_and_out() {
        for number in 1..=Errno::MAX {
            let errno = Errno::from_raw(number);
            assert_eq!(errno.raw(), number);
            assert_eq!(Errno::from_result(errno.to_result()), Some(errno));
        }
        for result in [0, 1, i32::MAX, -4096, i32::MIN] {
            assert_eq!(Errno::from_result(result), None, "{result}");
        }
        assert_eq!(size_of::<Option<Errno>>(), 2);
    }

    #[test]
    #[should_panic(expected = "negate a result")]
    fn a_negated_number_is_refused() {
        let _ = Errno::from_raw(-22);
    }

    #[test]
    fn messages_name_the_error() {
        assert_eq!(Errno::EINVAL.to_string(), "EINVAL (22): invalid argument");
        assert_eq!(Errno::from_raw(4000).to_string(), "error number 4000");
        assert_eq!(std::format!("{:?}", Errno::EWOULDBLOCK), "EAGAIN");
        assert!(Errno::EBUSY.hint().unwrap().contains("reap"));
    }

    #[test]
    fn the_table_is_in_ascending_order() {
        assert!(Errno::ALL.is_sorted_by(|a, b| a < b));
    }
}
