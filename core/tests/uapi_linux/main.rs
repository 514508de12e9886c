//! Compares what `annulus::uapi` says with other sources: the bindings that `linux-raw-sys` generates from the kernel's
//! headers (of Linux 6.17), and the entries that the `io-uring` crate builds.
//!
//! The machines are those that the `io-uring` crate has bindings for; Miri and loom run the crate's own tests instead.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    not(miri),
    not(loom)
))]

use annulus::{cqe::Cqe, errno::Errno, sqe::Sqe, types, uapi};
use linux_raw_sys::{errno, general, io_uring as kernel};
use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};

mod builders;

/// The number of a value of a bindings' enum. They are marked `non_exhaustive`, which forbids `as`.
fn number<E: Copy>(value: E) -> i128 {
    assert_eq!(size_of::<E>(), size_of::<u32>());
    // SAFETY: the bindings declare all these enums `repr(u32)`, so a value is an initialised u32 of this size.
    i128::from(unsafe { std::mem::transmute_copy::<E, u32>(&value) })
}

/// Name, number here, and number expected.
type Row = (&'static str, i128, i128);

macro_rules! rows {
    (module $theirs:ident: $($name:ident),* $(,)?) => {
        vec![$((stringify!($name), uapi::$name as i128, $theirs::$name as i128)),*]
    };
    (bits: $($name:ident of $bit:ident),* $(,)?) => {
        vec![$((
            stringify!($name),
            uapi::$name as i128,
            1 << number(kernel::io_uring_sqe_flags_bit::$bit),
        )),*]
    };
    (constants of enums: $($name:ident),* $(,)?) => {
        vec![$((stringify!($name), uapi::$name as i128, number(kernel::$name))),*]
    };
    (enums: $($theirs:ident { $($name:ident),* $(,)? })*) => {
        vec![$($((stringify!($name), uapi::$name as i128, number(kernel::$theirs::$name))),*),*]
    };
    (numbers: $($name:ident = $number:expr),* $(,)?) => {
        vec![$((stringify!($name), uapi::$name as i128, $number)),*]
    };
}

/// Every constant of `uapi` with the number that it must have.
fn rows() -> Vec<Row> {
    let groups: [Vec<Row>; 6] = [
        rows! { module kernel:
            IORING_SETUP_IOPOLL, IORING_SETUP_SQPOLL, IORING_SETUP_SQ_AFF, IORING_SETUP_CQSIZE,
            IORING_SETUP_CLAMP, IORING_SETUP_ATTACH_WQ, IORING_SETUP_R_DISABLED,
            IORING_SETUP_SUBMIT_ALL, IORING_SETUP_COOP_TASKRUN, IORING_SETUP_TASKRUN_FLAG,
            IORING_SETUP_SQE128, IORING_SETUP_CQE32, IORING_SETUP_SINGLE_ISSUER,
            IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_NO_MMAP, IORING_SETUP_REGISTERED_FD_ONLY,
            IORING_SETUP_NO_SQARRAY, IORING_SETUP_HYBRID_IOPOLL, IORING_FEAT_SINGLE_MMAP,
            IORING_FEAT_NODROP, IORING_FEAT_SUBMIT_STABLE, IORING_FEAT_RW_CUR_POS,
            IORING_FEAT_CUR_PERSONALITY, IORING_FEAT_FAST_POLL, IORING_FEAT_POLL_32BITS,
            IORING_FEAT_SQPOLL_NONFIXED, IORING_FEAT_EXT_ARG, IORING_FEAT_NATIVE_WORKERS,
            IORING_FEAT_RSRC_TAGS, IORING_FEAT_CQE_SKIP, IORING_FEAT_LINKED_FILE,
            IORING_FEAT_REG_REG_RING, IORING_FEAT_RECVSEND_BUNDLE, IORING_FEAT_MIN_TIMEOUT,
            IORING_FEAT_RW_ATTR, IORING_FEAT_NO_IOWAIT, IORING_ENTER_GETEVENTS,
            IORING_ENTER_SQ_WAKEUP, IORING_ENTER_SQ_WAIT, IORING_ENTER_EXT_ARG,
            IORING_ENTER_REGISTERED_RING, IORING_ENTER_ABS_TIMER, IORING_ENTER_EXT_ARG_REG,
            IORING_ENTER_NO_IOWAIT, IORING_SQ_NEED_WAKEUP, IORING_SQ_CQ_OVERFLOW, IORING_SQ_TASKRUN,
            IORING_CQ_EVENTFD_DISABLED, IORING_CQE_F_BUFFER, IORING_CQE_F_MORE,
            IORING_CQE_F_SOCK_NONEMPTY, IORING_CQE_F_NOTIF, IORING_CQE_F_BUF_MORE,
            IORING_CQE_BUFFER_SHIFT, IORING_OFF_SQ_RING, IORING_OFF_CQ_RING, IORING_OFF_SQES,
            IORING_OFF_PBUF_RING, IORING_OFF_PBUF_SHIFT, IORING_OFF_MMAP_MASK,
            IORING_RW_ATTR_FLAG_PI, IORING_URING_CMD_FIXED, IORING_FSYNC_DATASYNC,
            IORING_TIMEOUT_ABS, IORING_TIMEOUT_UPDATE, IORING_TIMEOUT_BOOTTIME,
            IORING_TIMEOUT_REALTIME, IORING_LINK_TIMEOUT_UPDATE, IORING_TIMEOUT_ETIME_SUCCESS,
            IORING_TIMEOUT_MULTISHOT, IORING_TIMEOUT_CLOCK_MASK, IORING_TIMEOUT_UPDATE_MASK,
            SPLICE_F_FD_IN_FIXED, IORING_POLL_ADD_MULTI, IORING_POLL_UPDATE_EVENTS,
            IORING_POLL_UPDATE_USER_DATA, IORING_POLL_ADD_LEVEL, IORING_ASYNC_CANCEL_ALL,
            IORING_ASYNC_CANCEL_FD, IORING_ASYNC_CANCEL_ANY, IORING_ASYNC_CANCEL_FD_FIXED,
            IORING_ASYNC_CANCEL_USERDATA, IORING_ASYNC_CANCEL_OP, IORING_RECVSEND_POLL_FIRST,
            IORING_RECV_MULTISHOT, IORING_RECVSEND_FIXED_BUF, IORING_SEND_ZC_REPORT_USAGE,
            IORING_RECVSEND_BUNDLE, IORING_SEND_VECTORIZED, IORING_NOTIF_USAGE_ZC_COPIED,
            IORING_ACCEPT_MULTISHOT, IORING_ACCEPT_DONTWAIT, IORING_ACCEPT_POLL_FIRST,
            IORING_MSG_RING_CQE_SKIP, IORING_MSG_RING_FLAGS_PASS, IORING_FIXED_FD_NO_CLOEXEC,
            IORING_NOP_INJECT_RESULT, IORING_NOP_FILE, IORING_NOP_FIXED_FILE,
            IORING_NOP_FIXED_BUFFER, IORING_NOP_TW, IORING_TIMESTAMP_HW_SHIFT,
            IORING_TIMESTAMP_TYPE_SHIFT, IORING_REGISTER_FILES_SKIP, IORING_RSRC_REGISTER_SPARSE,
            IO_URING_OP_SUPPORTED, IORING_ZCRX_AREA_SHIFT
        },
        rows! { module general:
            RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND, EPOLLIN, EPOLLPRI, EPOLLOUT,
            EPOLLERR, EPOLLHUP, EPOLLNVAL, EPOLLRDNORM, EPOLLRDBAND, EPOLLWRNORM, EPOLLWRBAND, EPOLLMSG,
            EPOLLRDHUP, EPOLLEXCLUSIVE, EPOLLONESHOT
        },
        rows! { enums:
            io_uring_op {
                IORING_OP_NOP, IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
                IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IORING_OP_POLL_ADD,
                IORING_OP_POLL_REMOVE, IORING_OP_SYNC_FILE_RANGE, IORING_OP_SENDMSG,
                IORING_OP_RECVMSG, IORING_OP_TIMEOUT, IORING_OP_TIMEOUT_REMOVE, IORING_OP_ACCEPT,
                IORING_OP_ASYNC_CANCEL, IORING_OP_LINK_TIMEOUT, IORING_OP_CONNECT,
                IORING_OP_FALLOCATE, IORING_OP_OPENAT, IORING_OP_CLOSE, IORING_OP_FILES_UPDATE,
                IORING_OP_STATX, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FADVISE,
                IORING_OP_MADVISE, IORING_OP_SEND, IORING_OP_RECV, IORING_OP_OPENAT2,
                IORING_OP_EPOLL_CTL, IORING_OP_SPLICE, IORING_OP_PROVIDE_BUFFERS,
                IORING_OP_REMOVE_BUFFERS, IORING_OP_TEE, IORING_OP_SHUTDOWN, IORING_OP_RENAMEAT,
                IORING_OP_UNLINKAT, IORING_OP_MKDIRAT, IORING_OP_SYMLINKAT, IORING_OP_LINKAT,
                IORING_OP_MSG_RING, IORING_OP_FSETXATTR, IORING_OP_SETXATTR, IORING_OP_FGETXATTR,
                IORING_OP_GETXATTR, IORING_OP_SOCKET, IORING_OP_URING_CMD, IORING_OP_SEND_ZC,
                IORING_OP_SENDMSG_ZC, IORING_OP_READ_MULTISHOT, IORING_OP_WAITID,
                IORING_OP_FUTEX_WAIT, IORING_OP_FUTEX_WAKE, IORING_OP_FUTEX_WAITV,
                IORING_OP_FIXED_FD_INSTALL, IORING_OP_FTRUNCATE, IORING_OP_BIND, IORING_OP_LISTEN,
                IORING_OP_RECV_ZC, IORING_OP_EPOLL_WAIT, IORING_OP_READV_FIXED,
                IORING_OP_WRITEV_FIXED, IORING_OP_PIPE, IORING_OP_LAST
            }
            io_uring_register_op {
                IORING_REGISTER_BUFFERS, IORING_UNREGISTER_BUFFERS, IORING_REGISTER_FILES,
                IORING_UNREGISTER_FILES, IORING_REGISTER_EVENTFD, IORING_UNREGISTER_EVENTFD,
                IORING_REGISTER_FILES_UPDATE, IORING_REGISTER_EVENTFD_ASYNC, IORING_REGISTER_PROBE,
                IORING_REGISTER_PERSONALITY, IORING_UNREGISTER_PERSONALITY,
                IORING_REGISTER_RESTRICTIONS, IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_FILES2,
                IORING_REGISTER_FILES_UPDATE2, IORING_REGISTER_BUFFERS2,
                IORING_REGISTER_BUFFERS_UPDATE, IORING_REGISTER_IOWQ_AFF,
                IORING_UNREGISTER_IOWQ_AFF, IORING_REGISTER_IOWQ_MAX_WORKERS,
                IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS, IORING_REGISTER_PBUF_RING,
                IORING_UNREGISTER_PBUF_RING, IORING_REGISTER_SYNC_CANCEL,
                IORING_REGISTER_FILE_ALLOC_RANGE, IORING_REGISTER_PBUF_STATUS, IORING_REGISTER_NAPI,
                IORING_UNREGISTER_NAPI, IORING_REGISTER_CLOCK, IORING_REGISTER_CLONE_BUFFERS,
                IORING_REGISTER_SEND_MSG_RING, IORING_REGISTER_ZCRX_IFQ,
                IORING_REGISTER_RESIZE_RINGS, IORING_REGISTER_MEM_REGION,
                IORING_REGISTER_USE_REGISTERED_RING
            }
            io_uring_msg_ring_flags {
                IORING_MSG_DATA, IORING_MSG_SEND_FD
            }
            io_uring_socket_op {
                SOCKET_URING_OP_SIOCINQ, SOCKET_URING_OP_SIOCOUTQ, SOCKET_URING_OP_GETSOCKOPT,
                SOCKET_URING_OP_SETSOCKOPT, SOCKET_URING_OP_TX_TIMESTAMP
            }
            io_uring_register_pbuf_ring_flags {
                IOU_PBUF_RING_MMAP, IOU_PBUF_RING_INC
            }
            io_wq_type {
                IO_WQ_BOUND, IO_WQ_UNBOUND
            }
            io_uring_register_restriction_op {
                IORING_RESTRICTION_REGISTER_OP, IORING_RESTRICTION_SQE_OP,
                IORING_RESTRICTION_SQE_FLAGS_ALLOWED, IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
                IORING_RESTRICTION_LAST
            }
            io_uring_napi_op {
                IO_URING_NAPI_REGISTER_OP, IO_URING_NAPI_STATIC_ADD_ID, IO_URING_NAPI_STATIC_DEL_ID
            }
            io_uring_napi_tracking_strategy {
                IO_URING_NAPI_TRACKING_DYNAMIC, IO_URING_NAPI_TRACKING_STATIC,
                IO_URING_NAPI_TRACKING_INACTIVE
            }
            io_uring_zcrx_area_flags {
                IORING_ZCRX_AREA_DMABUF
            }
        },
        rows! { constants of enums:
            IORING_REGISTER_SRC_REGISTERED, IORING_REGISTER_DST_REPLACE,
            IORING_MEM_REGION_TYPE_USER, IORING_MEM_REGION_REG_WAIT_ARG, IORING_REG_WAIT_TS
        },
        rows! { bits:
            IOSQE_FIXED_FILE of IOSQE_FIXED_FILE_BIT, IOSQE_IO_DRAIN of IOSQE_IO_DRAIN_BIT,
            IOSQE_IO_LINK of IOSQE_IO_LINK_BIT, IOSQE_IO_HARDLINK of IOSQE_IO_HARDLINK_BIT,
            IOSQE_ASYNC of IOSQE_ASYNC_BIT, IOSQE_BUFFER_SELECT of IOSQE_BUFFER_SELECT_BIT,
            IOSQE_CQE_SKIP_SUCCESS of IOSQE_CQE_SKIP_SUCCESS_BIT
        },
        // What Linux 6.18 added to the bindings' 6.17, what the bindings' generator cannot express (a cast or a 64-bit
        // mask in the header), and the one number that they give as i32 and an entry holds as u32.
        rows! { numbers:
            IORING_SETUP_CQE_MIXED = 0x40000, IORING_CQE_F_SKIP = 0x20, IORING_CQE_F_32 = 0x8000,
            IORING_NOP_CQE32 = 0x20, IORING_URING_CMD_MULTISHOT = 2, IORING_URING_CMD_MASK = 3,
            IORING_REGISTER_QUERY = 35, IORING_REGISTER_LAST = 36, RWF_NOAPPEND = 0x20,
            RWF_ATOMIC = 0x40, RWF_DONTCACHE = 0x80, RWF_NOSIGNAL = 0x100,
            IORING_ZCRX_AREA_MASK = 0xffff_0000_0000_0000,
            IORING_FILE_INDEX_ALLOC = i128::from(kernel::IORING_FILE_INDEX_ALLOC as u32),
            FALLOC_FL_KEEP_SIZE = i128::from(general::FALLOC_FL_KEEP_SIZE),
            FALLOC_FL_PUNCH_HOLE = i128::from(general::FALLOC_FL_PUNCH_HOLE),
            FALLOC_FL_NO_HIDE_STALE = i128::from(general::FALLOC_FL_NO_HIDE_STALE),
            FALLOC_FL_ZERO_RANGE = i128::from(general::FALLOC_FL_ZERO_RANGE)
        },
    ];
    groups.concat()
}

#[test]
fn constants_are_the_kernels() {
    for (name, ours, theirs) in rows() {
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn no_constant_is_left_out_of_the_comparison() {
    let mut compared = BTreeMap::new();
    for (name, ..) in rows() {
        assert!(compared.insert(name, ()).is_none(), "{name} is compared twice");
    }
    let sources = [
        include_str!("../../src/uapi/flags.rs"),
        include_str!("../../src/uapi/register.rs"),
        include_str!("../../src/uapi/opcodes.rs"),
        include_str!("../../src/uapi/poll.rs"),
    ];
    let mut defined = 0;
    for line in sources.iter().flat_map(|source| source.lines()) {
        // `pub const NAME: type = ..`, or `NAME = number;` in the table of opcodes.
        let Some((name, _)) = line
            .strip_prefix("pub const ")
            .and_then(|rest| rest.split_once(':'))
            .or_else(|| line.trim().strip_suffix(';')?.split_once(" = "))
            .filter(|(name, _)| name.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | '_')))
        else {
            continue;
        };
        assert!(compared.contains_key(name), "{name} is not compared");
        defined += 1;
    }
    assert_eq!(defined, compared.len());
}

macro_rules! same_layout {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        $(
            assert_eq!(size_of::<uapi::$name>(), size_of::<kernel::$name>(), stringify!($name));
            $(assert_eq!(
                offset_of!(uapi::$name, $field),
                offset_of!(kernel::$name, $field),
                concat!(stringify!($name), ".", stringify!($field))
            );)*
        )*
    };
}

#[test]
fn structures_are_the_kernels() {
    same_layout! {
        io_sqring_offsets {
            head, tail, ring_mask, ring_entries, flags, dropped, array, resv1, user_addr,
        }
        io_cqring_offsets {
            head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1, user_addr,
        }
        io_uring_params {
            sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, resv, sq_off, cq_off,
        }
        io_uring_getevents_arg { sigmask, sigmask_sz, min_wait_usec, ts }
        io_uring_files_update { offset, resv, fds }
        io_uring_rsrc_register { nr, flags, resv2, data, tags }
        io_uring_rsrc_update { offset, resv, data }
        io_uring_rsrc_update2 { offset, resv, data, tags, nr, resv2 }
        io_uring_restriction { opcode, resv, resv2 }
        __kernel_timespec { tv_sec, tv_nsec }
        io_uring_sync_cancel_reg { addr, fd, flags, timeout, opcode, pad, pad2 }
        io_uring_clock_register { clockid }
        io_uring_buf_reg { ring_addr, ring_entries, bgid, flags, resv }
        io_uring_buf_status { buf_group, head, resv }
        io_uring_probe_op { op, resv, flags, resv2 }
        io_uring_probe { last_op, ops_len, resv, resv2 }
    }
    assert_eq!(size_of::<types::Timespec>(), size_of::<kernel::__kernel_timespec>());
    assert_eq!(size_of::<types::Iovec>(), size_of::<general::iovec>());
    assert_eq!(offset_of!(types::Iovec, base), offset_of!(general::iovec, iov_base));
    assert_eq!(offset_of!(types::Iovec, len), offset_of!(general::iovec, iov_len));
}

#[test]
fn entries_are_the_kernels() {
    macro_rules! sqe {
        ($($ours:ident: $($theirs:ident).+),* $(,)?) => {
            $(assert_eq!(
                offset_of!(Sqe, $ours),
                offset_of!(kernel::io_uring_sqe, $($theirs).+),
                stringify!($ours)
            );)*
        };
    }
    assert_eq!(size_of::<Sqe>(), size_of::<kernel::io_uring_sqe>());
    sqe! {
        opcode: opcode, flags: flags, ioprio: ioprio, fd: fd,
        off: __bindgen_anon_1.off, off: __bindgen_anon_1.addr2, addr: __bindgen_anon_2.addr, len: len,
        op_flags: __bindgen_anon_3.rw_flags, op_flags: __bindgen_anon_3.fsync_flags,
        op_flags: __bindgen_anon_3.poll_events, op_flags: __bindgen_anon_3.poll32_events,
        op_flags: __bindgen_anon_3.nop_flags, user_data: user_data,
        buf_index: __bindgen_anon_4.buf_index, buf_index: __bindgen_anon_4.buf_group,
        personality: personality, splice_fd_in: __bindgen_anon_5.splice_fd_in,
        splice_fd_in: __bindgen_anon_5.file_index, addr3: __bindgen_anon_6,
    }
    let tail = offset_of!(Sqe, addr3);
    assert_eq!(
        tail,
        offset_of!(Sqe, pad2)
            - offset_of!(kernel::io_uring_sqe__bindgen_ty_6__bindgen_ty_1, __pad2)
    );

    assert_eq!(size_of::<Cqe>(), size_of::<kernel::io_uring_cqe>());
    assert_eq!(offset_of!(Cqe, user_data), offset_of!(kernel::io_uring_cqe, user_data));
    assert_eq!(offset_of!(Cqe, res), offset_of!(kernel::io_uring_cqe, res));
    assert_eq!(offset_of!(Cqe, flags), offset_of!(kernel::io_uring_cqe, flags));
}

#[test]
fn error_numbers_are_the_kernels() {
    let mut compared = Vec::new();
    macro_rules! errnos {
        ($($name:ident),* $(,)?) => {
            $(
                assert_eq!(Errno::$name.raw(), errno::$name as i32, stringify!($name));
                assert_eq!(Errno::$name.name(), Some(stringify!($name)));
                compared.push(Errno::$name);
            )*
        };
    }
    errnos! {
        EPERM, ENOENT, ESRCH, EINTR, EIO, ENXIO, E2BIG, ENOEXEC, EBADF, ECHILD, EAGAIN, ENOMEM,
        EACCES, EFAULT, ENOTBLK, EBUSY, EEXIST, EXDEV, ENODEV, ENOTDIR, EISDIR, EINVAL, ENFILE,
        EMFILE, ENOTTY, ETXTBSY, EFBIG, ENOSPC, ESPIPE, EROFS, EMLINK, EPIPE, EDOM, ERANGE, EDEADLK,
        ENAMETOOLONG, ENOLCK, ENOSYS, ENOTEMPTY, ELOOP, ENOMSG, EIDRM, ECHRNG, EL2NSYNC, EL3HLT,
        EL3RST, ELNRNG, EUNATCH, ENOCSI, EL2HLT, EBADE, EBADR, EXFULL, ENOANO, EBADRQC, EBADSLT,
        EBFONT, ENOSTR, ENODATA, ETIME, ENOSR, ENONET, ENOPKG, EREMOTE, ENOLINK, EADV, ESRMNT,
        ECOMM, EPROTO, EMULTIHOP, EDOTDOT, EBADMSG, EOVERFLOW, ENOTUNIQ, EBADFD, EREMCHG, ELIBACC,
        ELIBBAD, ELIBSCN, ELIBMAX, ELIBEXEC, EILSEQ, ERESTART, ESTRPIPE, EUSERS, ENOTSOCK,
        EDESTADDRREQ, EMSGSIZE, EPROTOTYPE, ENOPROTOOPT, EPROTONOSUPPORT, ESOCKTNOSUPPORT,
        EOPNOTSUPP, EPFNOSUPPORT, EAFNOSUPPORT, EADDRINUSE, EADDRNOTAVAIL, ENETDOWN, ENETUNREACH,
        ENETRESET, ECONNABORTED, ECONNRESET, ENOBUFS, EISCONN, ENOTCONN, ESHUTDOWN, ETOOMANYREFS,
        ETIMEDOUT, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EALREADY, EINPROGRESS, ESTALE, EUCLEAN,
        ENOTNAM, ENAVAIL, EISNAM, EREMOTEIO, EDQUOT, ENOMEDIUM, EMEDIUMTYPE, ECANCELED, ENOKEY,
        EKEYEXPIRED, EKEYREVOKED, EKEYREJECTED, EOWNERDEAD, ENOTRECOVERABLE, ERFKILL, EHWPOISON
    }
    compared.sort();
    assert_eq!(compared, Errno::ALL);
    assert_eq!(Errno::EWOULDBLOCK.raw(), errno::EWOULDBLOCK as i32);
    assert_eq!(Errno::EDEADLOCK.raw(), errno::EDEADLOCK as i32);
}
