//! `io_uring_register(2)`: operations, and the flags and special values of their arguments.

// Operations

/// Register buffers.
pub const IORING_REGISTER_BUFFERS: u32 = 0;
/// Give all registered buffers back.
pub const IORING_UNREGISTER_BUFFERS: u32 = 1;
/// Register files.
pub const IORING_REGISTER_FILES: u32 = 2;
/// Give all registered files back.
pub const IORING_UNREGISTER_FILES: u32 = 3;
/// Signal an eventfd at every completion.
pub const IORING_REGISTER_EVENTFD: u32 = 4;
/// Stop that.
pub const IORING_UNREGISTER_EVENTFD: u32 = 5;
/// Replace registered files.
pub const IORING_REGISTER_FILES_UPDATE: u32 = 6;
/// Signal an eventfd at completions that did not happen in place.
pub const IORING_REGISTER_EVENTFD_ASYNC: u32 = 7;
/// Ask which opcodes are supported.
pub const IORING_REGISTER_PROBE: u32 = 8;
/// Register the caller's credentials.
pub const IORING_REGISTER_PERSONALITY: u32 = 9;
/// Give them back.
pub const IORING_UNREGISTER_PERSONALITY: u32 = 10;
/// Restrict what the ring may do.
pub const IORING_REGISTER_RESTRICTIONS: u32 = 11;
/// Start a ring that was set up disabled.
pub const IORING_REGISTER_ENABLE_RINGS: u32 = 12;
/// Register files, with tags or as empty places.
pub const IORING_REGISTER_FILES2: u32 = 13;
/// Replace registered files, with tags.
pub const IORING_REGISTER_FILES_UPDATE2: u32 = 14;
/// Register buffers, with tags or as empty places.
pub const IORING_REGISTER_BUFFERS2: u32 = 15;
/// Replace registered buffers, with tags.
pub const IORING_REGISTER_BUFFERS_UPDATE: u32 = 16;
/// Choose the workers' processors.
pub const IORING_REGISTER_IOWQ_AFF: u32 = 17;
/// Let workers run anywhere.
pub const IORING_UNREGISTER_IOWQ_AFF: u32 = 18;
/// Limit the number of workers.
pub const IORING_REGISTER_IOWQ_MAX_WORKERS: u32 = 19;
/// Register ring descriptors.
pub const IORING_REGISTER_RING_FDS: u32 = 20;
/// Give them back.
pub const IORING_UNREGISTER_RING_FDS: u32 = 21;
/// Register a ring of provided buffers.
pub const IORING_REGISTER_PBUF_RING: u32 = 22;
/// Give it back.
pub const IORING_UNREGISTER_PBUF_RING: u32 = 23;
/// Cancel requests and wait for their end.
pub const IORING_REGISTER_SYNC_CANCEL: u32 = 24;
/// Limit where the ring picks free file places.
pub const IORING_REGISTER_FILE_ALLOC_RANGE: u32 = 25;
/// Ask how far a ring of provided buffers was used.
pub const IORING_REGISTER_PBUF_STATUS: u32 = 26;
/// Poll the network device while waiting.
pub const IORING_REGISTER_NAPI: u32 = 27;
/// Stop that.
pub const IORING_UNREGISTER_NAPI: u32 = 28;
/// Choose the clock of waits.
pub const IORING_REGISTER_CLOCK: u32 = 29;
/// Take over another ring's registered buffers.
pub const IORING_REGISTER_CLONE_BUFFERS: u32 = 30;
/// Post to a ring without having one.
pub const IORING_REGISTER_SEND_MSG_RING: u32 = 31;
/// Register a network queue for receiving without copies.
pub const IORING_REGISTER_ZCRX_IFQ: u32 = 32;
/// Change the sizes of the rings.
pub const IORING_REGISTER_RESIZE_RINGS: u32 = 33;
/// Register a region of memory for the ring's own use.
pub const IORING_REGISTER_MEM_REGION: u32 = 34;
/// Ask what the kernel can do, without a ring.
pub const IORING_REGISTER_QUERY: u32 = 35;
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
