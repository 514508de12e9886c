//! Flag bits of rings, entries and single operations.

// `sqe.flags`

/// `fd` is an index into the registered files.
pub const IOSQE_FIXED_FILE: u8 = 1 << 0;
/// Starts when everything before it has completed; what follows waits for it.
pub const IOSQE_IO_DRAIN: u8 = 1 << 1;
/// The next entry starts when this one has succeeded; a failure cancels the rest of the chain.
pub const IOSQE_IO_LINK: u8 = 1 << 2;
/// As [`IOSQE_IO_LINK`], but a failure does not end the chain.
pub const IOSQE_IO_HARDLINK: u8 = 1 << 3;
/// Goes to a worker at once, without a try in place.
pub const IOSQE_ASYNC: u8 = 1 << 4;
/// The ring picks the buffer, from the group in `buf_group`.
pub const IOSQE_BUFFER_SELECT: u8 = 1 << 5;
/// No completion is posted unless the request fails.
pub const IOSQE_CQE_SKIP_SUCCESS: u8 = 1 << 6;

// Set-up: `io_uring_params.flags`

/// Completions are found by polling the device.
pub const IORING_SETUP_IOPOLL: u32 = 1 << 0;
/// A thread of the ring takes the submissions.
pub const IORING_SETUP_SQPOLL: u32 = 1 << 1;
/// That thread runs on the processor in `sq_thread_cpu`.
pub const IORING_SETUP_SQ_AFF: u32 = 1 << 2;
/// The application gives the size of the completion queue.
pub const IORING_SETUP_CQSIZE: u32 = 1 << 3;
/// Sizes above the limit are lowered to it instead of refused.
pub const IORING_SETUP_CLAMP: u32 = 1 << 4;
/// Shares the workers of the ring in `wq_fd`.
pub const IORING_SETUP_ATTACH_WQ: u32 = 1 << 5;
/// Starts disabled, until `IORING_REGISTER_ENABLE_RINGS`.
pub const IORING_SETUP_R_DISABLED: u32 = 1 << 6;
/// A failing entry does not end the batch.
pub const IORING_SETUP_SUBMIT_ALL: u32 = 1 << 7;
/// Completion work waits until the task enters the kernel anyway.
pub const IORING_SETUP_COOP_TASKRUN: u32 = 1 << 8;
/// [`IORING_SQ_TASKRUN`] shows that completion work waits.
pub const IORING_SETUP_TASKRUN_FLAG: u32 = 1 << 9;
/// Submission entries of 128 bytes.
pub const IORING_SETUP_SQE128: u32 = 1 << 10;
/// Completion entries of 32 bytes.
pub const IORING_SETUP_CQE32: u32 = 1 << 11;
/// One task alone submits.
pub const IORING_SETUP_SINGLE_ISSUER: u32 = 1 << 12;
/// Completion work is done only when the application asks for events.
pub const IORING_SETUP_DEFER_TASKRUN: u32 = 1 << 13;
/// The application provides the rings' memory.
pub const IORING_SETUP_NO_MMAP: u32 = 1 << 14;
/// The ring gets a registered descriptor and no ordinary one.
pub const IORING_SETUP_REGISTERED_FD_ONLY: u32 = 1 << 15;
/// Entries are taken in ring order, without an index array.
pub const IORING_SETUP_NO_SQARRAY: u32 = 1 << 16;
/// Polled, after a sleep for a part of the expected time.
pub const IORING_SETUP_HYBRID_IOPOLL: u32 = 1 << 17;
/// Completion entries of 16 and of 32 bytes in one ring.
pub const IORING_SETUP_CQE_MIXED: u32 = 1 << 18;

// What the ring can do: `io_uring_params.features`

/// Both rings are reached by one mapping.
pub const IORING_FEAT_SINGLE_MMAP: u32 = 1 << 0;
/// A full completion queue loses no completion.
pub const IORING_FEAT_NODROP: u32 = 1 << 1;
/// What an entry points to may be reused once the entry has been taken; data buffers may not.
pub const IORING_FEAT_SUBMIT_STABLE: u32 = 1 << 2;
/// Offset -1 means the file's current position.
pub const IORING_FEAT_RW_CUR_POS: u32 = 1 << 3;
/// Requests run with the credentials of whoever submits them.
pub const IORING_FEAT_CUR_PERSONALITY: u32 = 1 << 4;
/// Pollable files wait by polling and occupy no worker.
pub const IORING_FEAT_FAST_POLL: u32 = 1 << 5;
/// Poll masks have 32 bits.
pub const IORING_FEAT_POLL_32BITS: u32 = 1 << 6;
/// Polled submission takes files that are not registered.
pub const IORING_FEAT_SQPOLL_NONFIXED: u32 = 1 << 7;
/// [`IORING_ENTER_EXT_ARG`] is understood.
pub const IORING_FEAT_EXT_ARG: u32 = 1 << 8;
/// Workers are threads of the application's own process.
pub const IORING_FEAT_NATIVE_WORKERS: u32 = 1 << 9;
/// Registered resources can carry tags.
pub const IORING_FEAT_RSRC_TAGS: u32 = 1 << 10;
/// [`IOSQE_CQE_SKIP_SUCCESS`] is understood.
pub const IORING_FEAT_CQE_SKIP: u32 = 1 << 11;
/// The file of a linked request is looked up when the request starts.
pub const IORING_FEAT_LINKED_FILE: u32 = 1 << 12;
/// Registering works through a registered ring descriptor.
pub const IORING_FEAT_REG_REG_RING: u32 = 1 << 13;
/// Bundles of buffers for send and receive.
pub const IORING_FEAT_RECVSEND_BUNDLE: u32 = 1 << 14;
/// A wait can have a minimum time.
pub const IORING_FEAT_MIN_TIMEOUT: u32 = 1 << 15;
/// Reads and writes can carry attributes.
pub const IORING_FEAT_RW_ATTR: u32 = 1 << 16;
/// [`IORING_ENTER_NO_IOWAIT`] is understood.
pub const IORING_FEAT_NO_IOWAIT: u32 = 1 << 17;

// `io_uring_enter(2)`

/// Wait until `min_complete` completions are there.
pub const IORING_ENTER_GETEVENTS: u32 = 1 << 0;
/// Wake the thread that takes the submissions.
pub const IORING_ENTER_SQ_WAKEUP: u32 = 1 << 1;
/// Wait until there is room in the submission queue.
pub const IORING_ENTER_SQ_WAIT: u32 = 1 << 2;
/// The last argument is an `io_uring_getevents_arg`.
pub const IORING_ENTER_EXT_ARG: u32 = 1 << 3;
/// The descriptor is a registered ring.
pub const IORING_ENTER_REGISTERED_RING: u32 = 1 << 4;
/// The timeout is a point in time.
pub const IORING_ENTER_ABS_TIMER: u32 = 1 << 5;
/// The last argument is an index into a registered region of waits.
pub const IORING_ENTER_EXT_ARG_REG: u32 = 1 << 6;
/// The wait is not accounted as waiting for I/O.
pub const IORING_ENTER_NO_IOWAIT: u32 = 1 << 7;

// Flags in the rings

/// The submission thread sleeps: wake it by [`IORING_ENTER_SQ_WAKEUP`].
pub const IORING_SQ_NEED_WAKEUP: u32 = 1 << 0;
/// Completions wait for room in the completion queue.
pub const IORING_SQ_CQ_OVERFLOW: u32 = 1 << 1;
/// Completion work waits: enter the ring to have it done.
pub const IORING_SQ_TASKRUN: u32 = 1 << 2;
/// Set by the application: no eventfd notices.
pub const IORING_CQ_EVENTFD_DISABLED: u32 = 1 << 0;

// `cqe.flags`

/// The upper half holds the id of the buffer that was picked.
pub const IORING_CQE_F_BUFFER: u32 = 1 << 0;
/// The same request will post further completions.
pub const IORING_CQE_F_MORE: u32 = 1 << 1;
/// The socket has more data.
pub const IORING_CQE_F_SOCK_NONEMPTY: u32 = 1 << 2;
/// A notice that a buffer is free, after a completion with the result.
pub const IORING_CQE_F_NOTIF: u32 = 1 << 3;
/// The buffer was used in part and will be used on.
pub const IORING_CQE_F_BUF_MORE: u32 = 1 << 4;
/// A filler in a ring of mixed sizes; to be passed over.
pub const IORING_CQE_F_SKIP: u32 = 1 << 5;
/// A completion of 32 bytes in a ring of mixed sizes.
pub const IORING_CQE_F_32: u32 = 1 << 15;
/// Where the buffer id starts in the flags.
pub const IORING_CQE_BUFFER_SHIFT: u32 = 16;

// Mapping offsets for `mmap(2)`

/// The submission ring.
pub const IORING_OFF_SQ_RING: u64 = 0;
/// The completion ring.
pub const IORING_OFF_CQ_RING: u64 = 0x800_0000;
/// The submission entries.
pub const IORING_OFF_SQES: u64 = 0x1000_0000;
/// A ring of provided buffers; its group id follows at [`IORING_OFF_PBUF_SHIFT`].
pub const IORING_OFF_PBUF_RING: u64 = 0x8000_0000;
/// Where the group id starts in the offset.
pub const IORING_OFF_PBUF_SHIFT: u64 = 16;
/// The bits that tell which of these is meant.
pub const IORING_OFF_MMAP_MASK: u64 = 0xf800_0000;

// Reads and writes: `sqe.rw_flags`

/// High priority: poll for the completion.
pub const RWF_HIPRI: i32 = 1 << 0;
/// As if the file were opened with `O_DSYNC`.
pub const RWF_DSYNC: i32 = 1 << 1;
/// As if the file were opened with `O_SYNC`.
pub const RWF_SYNC: i32 = 1 << 2;
/// Fail with `-EAGAIN` instead of waiting.
pub const RWF_NOWAIT: i32 = 1 << 3;
/// As if the file were opened with `O_APPEND`.
pub const RWF_APPEND: i32 = 1 << 4;
/// As if the file were not opened with `O_APPEND`.
pub const RWF_NOAPPEND: i32 = 1 << 5;
/// Written whole or not at all, also across a power cut.
pub const RWF_ATOMIC: i32 = 1 << 6;
/// Leave no copy in the page cache.
pub const RWF_DONTCACHE: i32 = 1 << 7;
/// A broken pipe raises no signal.
pub const RWF_NOSIGNAL: i32 = 1 << 8;

// Modes of `fallocate`: `sqe.len`

/// The size of the file stays as it is.
pub const FALLOC_FL_KEEP_SIZE: i32 = 1 << 0;
/// The range is given back, and reads as zeroes.
pub const FALLOC_FL_PUNCH_HOLE: i32 = 1 << 1;
/// With a punched hole: what the range reads as afterwards is left open.
pub const FALLOC_FL_NO_HIDE_STALE: i32 = 1 << 2;
/// The range reads as zeroes, and stays allocated.
pub const FALLOC_FL_ZERO_RANGE: i32 = 1 << 4;

// Other operations

/// `sqe.file_index`: the ring picks a free place in the file table.
pub const IORING_FILE_INDEX_ALLOC: u32 = u32::MAX;
/// `sqe.attr_type_mask`: protection information follows.
pub const IORING_RW_ATTR_FLAG_PI: u32 = 1 << 0;
/// `URING_CMD`: uses the registered buffer in `buf_index`.
pub const IORING_URING_CMD_FIXED: u32 = 1 << 0;
/// `URING_CMD`: completes more than once.
pub const IORING_URING_CMD_MULTISHOT: u32 = 1 << 1;
/// `URING_CMD`: all its flags.
pub const IORING_URING_CMD_MASK: u32 = IORING_URING_CMD_FIXED | IORING_URING_CMD_MULTISHOT;
/// `FSYNC`: the data, and only the metadata needed to read it.
pub const IORING_FSYNC_DATASYNC: u32 = 1 << 0;
/// `TIMEOUT`: a point in time instead of a span.
pub const IORING_TIMEOUT_ABS: u32 = 1 << 0;
/// `TIMEOUT_REMOVE`: change the timeout.
pub const IORING_TIMEOUT_UPDATE: u32 = 1 << 1;
/// `TIMEOUT`: by the clock that runs on in suspend.
pub const IORING_TIMEOUT_BOOTTIME: u32 = 1 << 2;
/// `TIMEOUT`: by the wall clock.
pub const IORING_TIMEOUT_REALTIME: u32 = 1 << 3;
/// `TIMEOUT_REMOVE`: change a link timeout.
pub const IORING_LINK_TIMEOUT_UPDATE: u32 = 1 << 4;
/// `TIMEOUT`: expiry is no failure to a chain.
pub const IORING_TIMEOUT_ETIME_SUCCESS: u32 = 1 << 5;
/// `TIMEOUT`: expires again and again.
pub const IORING_TIMEOUT_MULTISHOT: u32 = 1 << 6;
/// `TIMEOUT`: all flags that choose a clock.
pub const IORING_TIMEOUT_CLOCK_MASK: u32 = IORING_TIMEOUT_BOOTTIME | IORING_TIMEOUT_REALTIME;
/// `TIMEOUT_REMOVE`: all flags that mean a change.
pub const IORING_TIMEOUT_UPDATE_MASK: u32 = IORING_TIMEOUT_UPDATE | IORING_LINK_TIMEOUT_UPDATE;
/// `SPLICE`, `TEE`: the source is a registered file.
pub const SPLICE_F_FD_IN_FIXED: u32 = 1 << 31;
/// `POLL_ADD` (in `len`): completes on every event.
pub const IORING_POLL_ADD_MULTI: u32 = 1 << 0;
/// `POLL_REMOVE` (in `len`): change the events.
pub const IORING_POLL_UPDATE_EVENTS: u32 = 1 << 1;
/// `POLL_REMOVE` (in `len`): change the user data.
pub const IORING_POLL_UPDATE_USER_DATA: u32 = 1 << 2;
/// `POLL_ADD` (in `len`): level-triggered.
pub const IORING_POLL_ADD_LEVEL: u32 = 1 << 3;
/// `ASYNC_CANCEL`: all that match, not only the first.
pub const IORING_ASYNC_CANCEL_ALL: u32 = 1 << 0;
/// `ASYNC_CANCEL`: match by file.
pub const IORING_ASYNC_CANCEL_FD: u32 = 1 << 1;
/// `ASYNC_CANCEL`: every request matches.
pub const IORING_ASYNC_CANCEL_ANY: u32 = 1 << 2;
/// `ASYNC_CANCEL`: the file is a registered one.
pub const IORING_ASYNC_CANCEL_FD_FIXED: u32 = 1 << 3;
/// `ASYNC_CANCEL`: match by user data.
pub const IORING_ASYNC_CANCEL_USERDATA: u32 = 1 << 4;
/// `ASYNC_CANCEL`: match by opcode.
pub const IORING_ASYNC_CANCEL_OP: u32 = 1 << 5;
/// Send, receive (in `ioprio`): wait for readiness before the first try.
pub const IORING_RECVSEND_POLL_FIRST: u32 = 1 << 0;
/// Receive (in `ioprio`): again and again.
pub const IORING_RECV_MULTISHOT: u32 = 1 << 1;
/// Send, receive (in `ioprio`): uses a registered buffer.
pub const IORING_RECVSEND_FIXED_BUF: u32 = 1 << 2;
/// `SEND_ZC` (in `ioprio`): tell whether it was copied after all.
pub const IORING_SEND_ZC_REPORT_USAGE: u32 = 1 << 3;
/// Send, receive (in `ioprio`): several provided buffers in one go.
pub const IORING_RECVSEND_BUNDLE: u32 = 1 << 4;
/// Send (in `ioprio`): `addr` points to a vector of buffers.
pub const IORING_SEND_VECTORIZED: u32 = 1 << 5;
/// `SEND_ZC`, in the result of the notice: it was copied.
pub const IORING_NOTIF_USAGE_ZC_COPIED: u32 = 1 << 31;
/// `ACCEPT` (in `ioprio`): again and again.
pub const IORING_ACCEPT_MULTISHOT: u32 = 1 << 0;
/// `ACCEPT` (in `ioprio`): fail instead of waiting.
pub const IORING_ACCEPT_DONTWAIT: u32 = 1 << 1;
/// `ACCEPT` (in `ioprio`): wait for readiness before the first try.
pub const IORING_ACCEPT_POLL_FIRST: u32 = 1 << 2;
/// `MSG_RING` (in `addr`): pass a number.
pub const IORING_MSG_DATA: u32 = 0;
/// `MSG_RING` (in `addr`): pass a registered file.
pub const IORING_MSG_SEND_FD: u32 = 1;
/// `MSG_RING`: post nothing to the other ring.
pub const IORING_MSG_RING_CQE_SKIP: u32 = 1 << 0;
/// `MSG_RING`: `file_index` becomes the flags of the other ring's completion.
pub const IORING_MSG_RING_FLAGS_PASS: u32 = 1 << 1;
/// `FIXED_FD_INSTALL`: the descriptor stays open across an exec.
pub const IORING_FIXED_FD_NO_CLOEXEC: u32 = 1 << 0;
/// `NOP`: its result is `len`.
pub const IORING_NOP_INJECT_RESULT: u32 = 1 << 0;
/// `NOP`: look the file up.
pub const IORING_NOP_FILE: u32 = 1 << 1;
/// `NOP`: look it up among the registered files.
pub const IORING_NOP_FIXED_FILE: u32 = 1 << 2;
/// `NOP`: look the registered buffer up.
pub const IORING_NOP_FIXED_BUFFER: u32 = 1 << 3;
/// `NOP`: complete by way of the task's work list.
pub const IORING_NOP_TW: u32 = 1 << 4;
/// `NOP`: complete with 32 bytes.
pub const IORING_NOP_CQE32: u32 = 1 << 5;
/// Socket command: bytes that wait to be read.
pub const SOCKET_URING_OP_SIOCINQ: u32 = 0;
/// Socket command: bytes that wait to be sent.
pub const SOCKET_URING_OP_SIOCOUTQ: u32 = 1;
/// Socket command: get an option.
pub const SOCKET_URING_OP_GETSOCKOPT: u32 = 2;
/// Socket command: set an option.
pub const SOCKET_URING_OP_SETSOCKOPT: u32 = 3;
/// Socket command: fetch times of transmission.
pub const SOCKET_URING_OP_TX_TIMESTAMP: u32 = 4;
/// Times of transmission: the bit in `cqe.flags` for hardware times.
pub const IORING_TIMESTAMP_HW_SHIFT: u32 = 16;
/// Times of transmission: where their type starts in `cqe.flags`.
pub const IORING_TIMESTAMP_TYPE_SHIFT: u32 = 17;
