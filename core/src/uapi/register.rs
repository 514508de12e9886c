//! `io_uring_register(2)`: operations, and the flags and special values of their arguments.

/// Defines each operation once: as a constant, and as a row of [`register_name`].
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$doc])* pub const $name: u32 = $number;)*

        /// The name of a register operation as the kernel spells it, without its `IORING_` prefix; `None` from
        /// [`IORING_REGISTER_LAST`] on.
        #[must_use]
        pub const fn register_name(operation: u32) -> Option<&'static str> {
            let full = match operation {
                $($name => stringify!($name),)*
                _ => return None,
            };
            Some(full.split_at("IORING_".len()).1)
        }
    };
}

operations! {
    /// Register buffers.
    IORING_REGISTER_BUFFERS = 0;
    /// Give all registered buffers back.
    IORING_UNREGISTER_BUFFERS = 1;
    /// Register files.
    IORING_REGISTER_FILES = 2;
    /// Give all registered files back.
    IORING_UNREGISTER_FILES = 3;
    /// Signal an eventfd at every completion.
    IORING_REGISTER_EVENTFD = 4;
    /// Stop that.
    IORING_UNREGISTER_EVENTFD = 5;
    /// Replace registered files.
    IORING_REGISTER_FILES_UPDATE = 6;
    /// Signal an eventfd at completions that did not happen in place.
    IORING_REGISTER_EVENTFD_ASYNC = 7;
    /// Ask which opcodes are supported.
    IORING_REGISTER_PROBE = 8;
    /// Register the caller's credentials.
    IORING_REGISTER_PERSONALITY = 9;
    /// Give them back.
    IORING_UNREGISTER_PERSONALITY = 10;
    /// Restrict what the ring may do.
    IORING_REGISTER_RESTRICTIONS = 11;
    /// Start a ring that was set up disabled.
    IORING_REGISTER_ENABLE_RINGS = 12;
    /// Register files, with tags or as empty places.
    IORING_REGISTER_FILES2 = 13;
    /// Replace registered files, with tags.
    IORING_REGISTER_FILES_UPDATE2 = 14;
    /// Register buffers, with tags or as empty places.
    IORING_REGISTER_BUFFERS2 = 15;
    /// Replace registered buffers, with tags.
    IORING_REGISTER_BUFFERS_UPDATE = 16;
    /// Choose the workers' processors.
    IORING_REGISTER_IOWQ_AFF = 17;
    /// Let workers run anywhere.
    IORING_UNREGISTER_IOWQ_AFF = 18;
    /// Limit the number of workers.
    IORING_REGISTER_IOWQ_MAX_WORKERS = 19;
    /// Register ring descriptors.
    IORING_REGISTER_RING_FDS = 20;
    /// Give them back.
    IORING_UNREGISTER_RING_FDS = 21;
    /// Register a ring of provided buffers.
    IORING_REGISTER_PBUF_RING = 22;
    /// Give it back.
    IORING_UNREGISTER_PBUF_RING = 23;
    /// Cancel requests and wait for their end.
    IORING_REGISTER_SYNC_CANCEL = 24;
    /// Limit where the ring picks free file places.
    IORING_REGISTER_FILE_ALLOC_RANGE = 25;
    /// Ask how far a ring of provided buffers was used.
    IORING_REGISTER_PBUF_STATUS = 26;
    /// Poll the network device while waiting.
    IORING_REGISTER_NAPI = 27;
    /// Stop that.
    IORING_UNREGISTER_NAPI = 28;
    /// Choose the clock of waits.
    IORING_REGISTER_CLOCK = 29;
    /// Take over another ring's registered buffers.
    IORING_REGISTER_CLONE_BUFFERS = 30;
    /// Post to a ring without having one.
    IORING_REGISTER_SEND_MSG_RING = 31;
    /// Register a network queue for receiving without copies.
    IORING_REGISTER_ZCRX_IFQ = 32;
    /// Change the sizes of the rings.
    IORING_REGISTER_RESIZE_RINGS = 33;
    /// Register a region of memory for the ring's own use.
    IORING_REGISTER_MEM_REGION = 34;
    /// Ask what the kernel can do, without a ring.
    IORING_REGISTER_QUERY = 35;
}

/// One past the last operation of Linux 6.18; not itself an operation.
pub const IORING_REGISTER_LAST: u32 = IORING_REGISTER_QUERY + 1;
/// Added to an operation: the descriptor is a registered ring.
pub const IORING_REGISTER_USE_REGISTERED_RING: u32 = 1 << 31;

// Files, buffers and probes

/// A descriptor in an update that leaves its place as it is.
pub const IORING_REGISTER_FILES_SKIP: i32 = -2;
/// Register empty places, to be filled by updates.
pub const IORING_RSRC_REGISTER_SPARSE: u32 = 1 << 0;
/// Cloning buffers: the source is a registered ring.
pub const IORING_REGISTER_SRC_REGISTERED: u32 = 1 << 0;
/// Cloning buffers: places in use are replaced.
pub const IORING_REGISTER_DST_REPLACE: u32 = 1 << 1;
/// Ring of provided buffers: the kernel provides its memory.
pub const IOU_PBUF_RING_MMAP: u32 = 1 << 0;
/// Ring of provided buffers: a buffer is used up piece by piece.
pub const IOU_PBUF_RING_INC: u32 = 1 << 1;
/// In a probe's answer: the opcode is supported.
pub const IO_URING_OP_SUPPORTED: u16 = 1 << 0;

// Workers, restrictions, regions and network

/// Workers for what ends in bounded time, such as reading a regular file.
pub const IO_WQ_BOUND: u32 = 0;
/// Workers for what may wait for ever, such as a socket.
pub const IO_WQ_UNBOUND: u32 = 1;
/// Allow a register operation.
pub const IORING_RESTRICTION_REGISTER_OP: u32 = 0;
/// Allow an opcode.
pub const IORING_RESTRICTION_SQE_OP: u32 = 1;
/// Allow SQE flags.
pub const IORING_RESTRICTION_SQE_FLAGS_ALLOWED: u32 = 2;
/// Demand SQE flags.
pub const IORING_RESTRICTION_SQE_FLAGS_REQUIRED: u32 = 3;
/// One past the last restriction.
pub const IORING_RESTRICTION_LAST: u32 = 4;
/// The region lies in the application's memory.
pub const IORING_MEM_REGION_TYPE_USER: u32 = 1 << 0;
/// The region holds the arguments of waits.
pub const IORING_MEM_REGION_REG_WAIT_ARG: u32 = 1 << 0;
/// A wait in such a region has a timeout.
pub const IORING_REG_WAIT_TS: u32 = 1 << 0;
/// Set how the network device is polled.
pub const IO_URING_NAPI_REGISTER_OP: u32 = 0;
/// Add a network queue to be polled.
pub const IO_URING_NAPI_STATIC_ADD_ID: u32 = 1;
/// Remove a network queue.
pub const IO_URING_NAPI_STATIC_DEL_ID: u32 = 2;
/// The kernel finds the queues to poll.
pub const IO_URING_NAPI_TRACKING_DYNAMIC: u32 = 0;
/// The application names the queues to poll.
pub const IO_URING_NAPI_TRACKING_STATIC: u32 = 1;
/// No queue is polled.
pub const IO_URING_NAPI_TRACKING_INACTIVE: u32 = 255;
/// The area of a network queue is a dmabuf.
pub const IORING_ZCRX_AREA_DMABUF: u32 = 1;
/// Where the area's id starts in a buffer's offset.
pub const IORING_ZCRX_AREA_SHIFT: u32 = 48;
/// The bits of a buffer's offset that hold the area's id.
pub const IORING_ZCRX_AREA_MASK: u64 = !((1 << IORING_ZCRX_AREA_SHIFT) - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_name_and_nothing_else_has() {
        for operation in 0..=IORING_REGISTER_LAST {
            assert_eq!(register_name(operation).is_some(), operation < IORING_REGISTER_LAST);
        }
        assert_eq!(register_name(IORING_UNREGISTER_FILES), Some("UNREGISTER_FILES"));
    }
}
