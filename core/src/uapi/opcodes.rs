//! Operation codes (`sqe.opcode`) and their names.

/// Defines each opcode once: as a constant, and as a row of [`opcode_name`].
macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$doc])* pub const $name: u8 = $number;)*

        /// The name of an operation code as the kernel spells it, without its `IORING_OP_` prefix; `None` from
        /// [`IORING_OP_LAST`] on. For messages and dumps.
        #[must_use]
        pub const fn opcode_name(opcode: u8) -> Option<&'static str> {
            let full = match opcode {
                $($name => stringify!($name),)*
                _ => return None,
            };
            Some(full.split_at("IORING_OP_".len()).1)
        }
    };
}

opcodes! {
    /// Nothing; completes at once.
    IORING_OP_NOP = 0;
    /// Read into several buffers.
    IORING_OP_READV = 1;
    /// Write from several buffers.
    IORING_OP_WRITEV = 2;
    /// Make a file's written data durable.
    IORING_OP_FSYNC = 3;
    /// Read into a registered buffer.
    IORING_OP_READ_FIXED = 4;
    /// Write from a registered buffer.
    IORING_OP_WRITE_FIXED = 5;
    /// Wait until a file is ready.
    IORING_OP_POLL_ADD = 6;
    /// End or change a waiting poll.
    IORING_OP_POLL_REMOVE = 7;
    /// Start or await write-back of a part of a file.
    IORING_OP_SYNC_FILE_RANGE = 8;
    /// Send a message with ancillary data.
    IORING_OP_SENDMSG = 9;
    /// Receive a message with ancillary data.
    IORING_OP_RECVMSG = 10;
    /// Complete after a time, or after a number of completions.
    IORING_OP_TIMEOUT = 11;
    /// End or change a timeout.
    IORING_OP_TIMEOUT_REMOVE = 12;
    /// Accept a connection.
    IORING_OP_ACCEPT = 13;
    /// Cancel other requests.
    IORING_OP_ASYNC_CANCEL = 14;
    /// Limit the time of the request that it is linked to.
    IORING_OP_LINK_TIMEOUT = 15;
    /// Open a connection.
    IORING_OP_CONNECT = 16;
    /// Allocate or punch a part of a file.
    IORING_OP_FALLOCATE = 17;
    /// Open a file.
    IORING_OP_OPENAT = 18;
    /// Close a file.
    IORING_OP_CLOSE = 19;
    /// Change the table of registered files.
    IORING_OP_FILES_UPDATE = 20;
    /// Ask for a file's attributes.
    IORING_OP_STATX = 21;
    /// Read into one buffer.
    IORING_OP_READ = 22;
    /// Write from one buffer.
    IORING_OP_WRITE = 23;
    /// Announce how a file will be accessed.
    IORING_OP_FADVISE = 24;
    /// Announce how memory will be accessed.
    IORING_OP_MADVISE = 25;
    /// Send on a socket.
    IORING_OP_SEND = 26;
    /// Receive from a socket.
    IORING_OP_RECV = 27;
    /// Open a file, with resolution rules.
    IORING_OP_OPENAT2 = 28;
    /// Change an epoll set.
    IORING_OP_EPOLL_CTL = 29;
    /// Move data between a pipe and a file.
    IORING_OP_SPLICE = 30;
    /// Hand buffers to a group for the ring to choose from.
    IORING_OP_PROVIDE_BUFFERS = 31;
    /// Take buffers back from a group.
    IORING_OP_REMOVE_BUFFERS = 32;
    /// Duplicate data from one pipe into another.
    IORING_OP_TEE = 33;
    /// Shut down a part of a connection.
    IORING_OP_SHUTDOWN = 34;
    /// Rename a file.
    IORING_OP_RENAMEAT = 35;
    /// Remove a file or directory.
    IORING_OP_UNLINKAT = 36;
    /// Make a directory.
    IORING_OP_MKDIRAT = 37;
    /// Make a symbolic link.
    IORING_OP_SYMLINKAT = 38;
    /// Make a hard link.
    IORING_OP_LINKAT = 39;
    /// Post a completion to, or pass a file to, another ring.
    IORING_OP_MSG_RING = 40;
    /// Set an extended attribute of an open file.
    IORING_OP_FSETXATTR = 41;
    /// Set an extended attribute by path.
    IORING_OP_SETXATTR = 42;
    /// Get an extended attribute of an open file.
    IORING_OP_FGETXATTR = 43;
    /// Get an extended attribute by path.
    IORING_OP_GETXATTR = 44;
    /// Make a socket.
    IORING_OP_SOCKET = 45;
    /// A command that the file's driver defines.
    IORING_OP_URING_CMD = 46;
    /// Send without copying, with a second completion when the buffer is free.
    IORING_OP_SEND_ZC = 47;
    /// Send a message without copying.
    IORING_OP_SENDMSG_ZC = 48;
    /// Read again and again into provided buffers.
    IORING_OP_READ_MULTISHOT = 49;
    /// Wait for a child process.
    IORING_OP_WAITID = 50;
    /// Wait on a futex.
    IORING_OP_FUTEX_WAIT = 51;
    /// Wake waiters of a futex.
    IORING_OP_FUTEX_WAKE = 52;
    /// Wait on several futexes.
    IORING_OP_FUTEX_WAITV = 53;
    /// Make an ordinary descriptor of a registered file.
    IORING_OP_FIXED_FD_INSTALL = 54;
    /// Set a file's length.
    IORING_OP_FTRUNCATE = 55;
    /// Bind a socket to an address.
    IORING_OP_BIND = 56;
    /// Let a socket accept connections.
    IORING_OP_LISTEN = 57;
    /// Receive without copying.
    IORING_OP_RECV_ZC = 58;
    /// Fetch events of an epoll set.
    IORING_OP_EPOLL_WAIT = 59;
    /// Read into several parts of a registered buffer.
    IORING_OP_READV_FIXED = 60;
    /// Write from several parts of a registered buffer.
    IORING_OP_WRITEV_FIXED = 61;
    /// Make a pipe.
    IORING_OP_PIPE = 62;
}

/// One past the last opcode of Linux 6.18; not itself an operation.
pub const IORING_OP_LAST: u8 = IORING_OP_PIPE + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_has_a_name_and_nothing_else_has() {
        for opcode in 0..=u8::MAX {
            assert_eq!(opcode_name(opcode).is_some(), opcode < IORING_OP_LAST, "opcode {opcode}");
        }
        assert_eq!(opcode_name(IORING_OP_NOP), Some("NOP"));
        assert_eq!(opcode_name(IORING_OP_READ_FIXED), Some("READ_FIXED"));
    }
}
