//! What a ring was set up with.

use annulus::uapi;

/// The parameters of a ring, as `io_uring_params` has them.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub(super) sq_entries: u32,
    pub(super) cq_entries: u32,
    pub(super) requests: u32,
    pub(super) flags: u32,
    pub(super) features: u32,
    pub(super) sq_thread_idle: u32,
    pub(super) served: bool,
}

impl Parameters {
    /// Entries of the SQ.
    pub fn sq_entries(&self) -> u32 {
        self.sq_entries
    }

    /// Entries of the CQ.
    pub fn cq_entries(&self) -> u32 {
        self.cq_entries
    }

    /// Requests that can be in flight, the reserved one not counted.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// `IORING_SETUP_*`.
    pub fn setup_flags(&self) -> u32 {
        self.flags
    }

    /// `IORING_FEAT_*`: the promises that are kept.
    pub fn features(&self) -> u32 {
        self.features
    }

    /// Milliseconds without work after which the polling thread sleeps.
    pub fn sq_thread_idle(&self) -> u32 {
        self.sq_thread_idle
    }

    /// Whether a thread polls for submissions.
    pub fn is_setup_sqpoll(&self) -> bool {
        self.flags & uapi::IORING_SETUP_SQPOLL != 0
    }

    /// Whether completions are found by polling only: never, over files.
    pub fn is_setup_iopoll(&self) -> bool {
        self.flags & uapi::IORING_SETUP_IOPOLL != 0
    }

    /// Whether application threads and a helper take turns to drive the ring.
    pub fn is_setup_served(&self) -> bool {
        self.served
    }

    /// No completion is lost when the CQ is full.
    pub fn is_feature_nodrop(&self) -> bool {
        self.features & uapi::IORING_FEAT_NODROP != 0
    }

    /// What an SQE points to besides buffers may go once it is submitted.
    pub fn is_feature_submit_stable(&self) -> bool {
        self.features & uapi::IORING_FEAT_SUBMIT_STABLE != 0
    }

    /// Offset -1 is the current file position.
    pub fn is_feature_rw_cur_pos(&self) -> bool {
        self.features & uapi::IORING_FEAT_RW_CUR_POS != 0
    }

    /// A file that is not ready is waited for without a worker.
    pub fn is_feature_fast_poll(&self) -> bool {
        self.features & uapi::IORING_FEAT_FAST_POLL != 0
    }

    /// A polled ring takes files that are not registered.
    pub fn is_feature_sqpoll_nonfixed(&self) -> bool {
        self.features & uapi::IORING_FEAT_SQPOLL_NONFIXED != 0
    }

    /// Waits take a timeout.
    pub fn is_feature_ext_arg(&self) -> bool {
        self.features & uapi::IORING_FEAT_EXT_ARG != 0
    }

    /// Registered files and buffers have tags.
    pub fn is_feature_resource_tagging(&self) -> bool {
        self.features & uapi::IORING_FEAT_RSRC_TAGS != 0
    }

    /// Waits take a least time.
    pub fn is_feature_min_timeout(&self) -> bool {
        self.features & uapi::IORING_FEAT_MIN_TIMEOUT != 0
    }
}
