//! Which models there are, and which of them catch which fault.

use crate::{inline, lane, messages, polls, rings, served, signals, sqpoll, waits, workers};
use annulus::fault::Fault::{self, *};

pub struct Model {
    pub name: &'static str,
    /// Preemptions in an execution at most; None: as many as there can be.
    pub bound: Option<usize>,
    pub run: fn(),
}

macro_rules! models {
    ($($module:ident: $($name:ident $bound:tt),+;)+) => {
        /// Every model, with its bound.
        pub const MODELS: &[Model] = &[$($(
            Model { name: stringify!($name), bound: models!(@ $bound), run: $module::$name },
        )+)+];
    };
    (@ all) => { None };
    (@ $bound:literal) => { Some($bound) };
}

models! {
    rings: sq_ring 4, sq_ring_array 3, sq_indices 3, cq_ring all;
    lane: return_list 3, notices all, notice_at_once all, stale_tokens all;
    waits: two_wakers 3, two_wakers_unordered 3, two_sleepers 3, mailbox 3, mailbox_unordered 3, mailbox_close 2;
    inline: inline_wait all, inline_two 3, taskrun 3, slot_life 3, slot_life_fixed 3, resumed 3, crossing 3,
        fallback 2, inline_interrupt all, drop_in_flight all, drop_interrupt all;
    messages: message_lane all, message_end all, message_inline 3, message_wakes 2, message_room 2,
        message_stop 2, file_polled 2, file_served 3, file_inline 2, file_told 2, file_table_ends all;
    polls: poll_wakes 3, poll_remove 3, poll_room 3, poll_shutdown 3;
    signals: signal_arm 3, signal_again 3, signal_remove 3;
    sqpoll: sqpoll_submit 3, sqpoll_return 3, sqpoll_unordered 3, sqpoll_interrupt 3, sqpoll_sq_room 3,
        sqpoll_cq_room 3, sqpoll_starved 2, sqpoll_mail 3, sqpoll_timeout 2, sqpoll_stop 3, sqpoll_stop_waiting 3;
    served: served_claim all, served_work all, served_return 3, served_mail 3, served_room 3,
        served_polled 3, served_stop 2;
    workers: workers_run 3, workers_wake 3, workers_leave 3, workers_fail 3, workers_stop 3,
        workers_retry 3, workers_owed 2, workers_given_up 3, workers_limit 2, workers_stop_making 3;
}

pub fn model(name: &str) -> &'static Model {
    MODELS.iter().find(|m| m.name == name).expect("a model's name")
}

/// What becomes of a fault.
pub enum Expect {
    /// Each of these models fails with it.
    Caught(&'static [&'static str]),
    /// It changes nothing, for the reason that stands with it here: this model
    /// passes.
    Harmless(&'static str),
    /// Nobody has thought about it.
    Unknown,
}

pub fn expect(fault: Fault) -> Expect {
    let by: &[&str] = match fault {
        SqTailRelaxed | SqTailLoadRelaxed => &["sq_ring", "sq_ring_array", "sqpoll_submit"],
        SqHeadRelaxed | SqHeadLoadRelaxed => &["sq_ring", "sq_ring_array", "sqpoll_sq_room"],
        CqTailRelaxed | CqTailLoadRelaxed => &["cq_ring", "sqpoll_submit"],
        CqHeadRelaxed | CqHeadLoadRelaxed => &["cq_ring", "sqpoll_cq_room"],

        ReturnPushRelaxed | ReturnTakeRelaxed => {
            &["return_list", "inline_wait", "sqpoll_unordered"]
        }
        ReturnPushTwice => &["return_list", "slot_life"],
        ReturnNoWake => &["inline_wait", "sqpoll_return", "served_return"],
        QueuedSetRelaxed | QueuedClearRelaxed => &["notices"],
        QueuedClearedLate => &["notice_at_once", "resumed", "poll_wakes"],
        StaleTokenAccepted | RetireKeepsGeneration => {
            &["stale_tokens", "slot_life", "slot_life_fixed", "poll_remove"]
        }
        RetireBlind => &["crossing", "poll_remove", "poll_room"],
        ArmedLate | ReferenceIgnored => &["slot_life", "slot_life_fixed"],
        TaskrunSetRelaxed | TaskrunClearRelaxed | TaskrunHiddenLate => &["taskrun"],
        FallbackLeaked => &["fallback"],

        WakeNoFence | SleepNoFence => &[
            "two_wakers",
            "two_wakers_unordered",
            "two_sleepers",
            "inline_wait",
            "sqpoll_return",
            "served_return",
        ],
        SleepNoRecheck => &["two_wakers", "two_sleepers", "sqpoll_submit"],
        WakeNoUnpark => &["two_wakers", "two_sleepers", "inline_wait"],
        WakeNoSequence => &["two_sleepers"],
        WaitNoRecheck => &["inline_wait", "inline_interrupt"],
        ShutdownNoRecheck => &["drop_in_flight", "drop_interrupt"],
        PollingNoRecheck => &["inline_interrupt", "drop_interrupt", "sqpoll_interrupt"],

        SubmitNoFence | NeedWakeupLate | PollerNoRecheck | PublishNoFence => &["sqpoll_submit"],
        StarvedForEver => &["sqpoll_starved"],
        RoomNoWake | RoomNoFence => &["sqpoll_cq_room", "served_room"],
        OverflowNotShown => &["sqpoll_cq_room"],
        StopNoWake => &["sqpoll_submit", "sqpoll_stop"],
        TimeoutsTellRelaxed | TimeoutsLoadRelaxed => &["sqpoll_timeout"],
        EndNoWake | StoppedLoadRelaxed => &["sqpoll_stop_waiting"],
        // `shutdown` publishes the last CQEs, and `publish` ends with a full
        // fence (in every mode in which another thread can ask): the fence
        // and the relaxed store after it release what the store alone would.
        // The order stays in the code, where it can be seen to be right.
        StoppedRelaxed => return Expect::Harmless("sqpoll_stop_waiting"),

        MailPostRelaxed | MailTakeRelaxed | MailAnswerRelaxed | MailAnswerLoadRelaxed => {
            &["mailbox", "mailbox_unordered"]
        }
        MailClaimRelaxed | MailEmptyRelaxed | MailEmptyNoWake => &["mailbox"],
        MailAnswerNoWake => &["mailbox", "sqpoll_mail"],
        MailNoWake => &["sqpoll_mail", "served_mail"],

        ClaimReleaseRelaxed | ClaimAcquireRelaxed | FreedNoWake => &["served_claim"],
        ClaimNoRecheck | ReleaseNoFence => &["served_work", "served_return"],
        HelperNoRecheck => &["served_return"],
        HelperStopMissed | EndNotChecked => &["served_stop"],
        PollsNoWake => &["served_polled"],

        MessagePushRelaxed | MessageTakeRelaxed => {
            &["message_lane", "message_inline", "message_wakes"]
        }
        LetterTakenRelaxed | LetterGivenBackRelaxed => &["message_lane", "message_room"],
        MessageNotTold | MessageNoWake => &["message_inline", "message_wakes"],
        SentFileLate => &["file_polled", "file_served"],
        SentFileNotShown => &["file_inline"],
        SentFileBehindMessage => &["file_told"],
        SentFileForgotten => &["file_table_ends"],
        MessagesForgottenAtEnd => &["message_end", "message_stop"],

        ReadyNoFence | ResumeNoFence => &["poll_wakes"],
        SignalRaiseNoFence | SignalArmNoFence | SignalArmNoRecheck => &["signal_arm"],
        SignalRaiseRelaxed | SignalEventsRelaxed => &["signal_arm"],

        WorkerNotWoken | WorkerComesForEver => &["workers_wake"],
        WorkerLeavesCalled => &["workers_leave"],
        WorkerSleepsThroughEnd => &["workers_stop", "workers_stop_making"],
        WorkersNotSentAway => &["workers_stop"],
        WorkerNeverMadeCounts => &["workers_retry", "workers_given_up"],
        WorkerNeverMadeComes => &["workers_retry", "workers_owed", "workers_given_up"],
        WorkerOwedForgotten => &["workers_owed"],
        WorkerlessWorkKept => &["workers_fail", "workers_given_up"],
        SurplusSaysNothing => &["workers_limit"],

        #[allow(unreachable_patterns)] // the engine faults are another rung's
        _ => return Expect::Unknown,
    };
    Expect::Caught(by)
}
