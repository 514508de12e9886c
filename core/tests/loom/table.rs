//! Which models there are, and which of them catch which fault.

use crate::{inline, lane, rings, served, sqpoll, waits, workers};
use annulus::fault::Fault::{self, *};

pub struct Model {
    pub name: &'static str,
    pub preemptions: usize,
    pub run: fn(),
}

const fn model_of(name: &'static str, preemptions: usize, run: fn()) -> Model {
    Model { name, preemptions, run }
}

pub const MODELS: &[Model] = &[
    model_of("sq_ring", 3, rings::sq_ring),
    model_of("sq_ring_array", 3, rings::sq_ring_array),
    model_of("sq_indices", 3, rings::sq_indices),
    model_of("cq_ring", 3, rings::cq_ring),
    model_of("return_list", 3, lane::return_list),
    model_of("notices", 3, lane::notices),
    model_of("notice_at_once", 3, lane::notice_at_once),
    model_of("stale_tokens", 3, lane::stale_tokens),
    model_of("two_wakers", 3, waits::two_wakers),
    model_of("two_sleepers", 3, waits::two_sleepers),
    model_of("mailbox", 2, waits::mailbox),
    model_of("mailbox_close", 2, waits::mailbox_close),
    model_of("inline_wait", 2, inline::inline_wait),
    model_of("inline_two", 2, inline::inline_two),
    model_of("taskrun", 2, inline::taskrun),
    model_of("slot_life", 2, inline::slot_life),
    model_of("resumed", 2, inline::resumed),
    model_of("fallback", 2, inline::fallback),
    model_of("drop_in_flight", 2, inline::drop_in_flight),
    model_of("inline_interrupt", 2, inline::inline_interrupt),
    model_of("drop_interrupt", 2, inline::drop_interrupt),
    model_of("crossing", 2, inline::crossing),
    model_of("sqpoll_interrupt", 2, sqpoll::sqpoll_interrupt),
    model_of("sqpoll_starved", 2, sqpoll::sqpoll_starved),
    model_of("sqpoll_submit", 2, sqpoll::sqpoll_submit),
    model_of("sqpoll_return", 2, sqpoll::sqpoll_return),
    model_of("sqpoll_sq_room", 2, sqpoll::sqpoll_sq_room),
    model_of("sqpoll_cq_room", 2, sqpoll::sqpoll_cq_room),
    model_of("sqpoll_mail", 2, sqpoll::sqpoll_mail),
    model_of("sqpoll_stop", 2, sqpoll::sqpoll_stop),
    model_of("sqpoll_stop_waiting", 2, sqpoll::sqpoll_stop_waiting),
    model_of("served_claim", 2, served::served_claim),
    model_of("served_return", 2, served::served_return),
    model_of("served_work", 2, served::served_work),
    model_of("served_mail", 2, served::served_mail),
    model_of("served_room", 2, served::served_room),
    model_of("served_polled", 2, served::served_polled),
    model_of("served_stop", 2, served::served_stop),
    model_of("workers_run", 2, workers::workers_run),
    model_of("workers_wake", 2, workers::workers_wake),
    model_of("workers_leave", 2, workers::workers_leave),
    model_of("workers_fail", 2, workers::workers_fail),
    model_of("workers_stop", 2, workers::workers_stop),
];

pub fn model(name: &str) -> &'static Model {
    MODELS.iter().find(|m| m.name == name).expect("a model's name")
}

/// What becomes of a fault.
pub enum Expect {
    /// Each of these models fails with it.
    Caught(&'static [&'static str]),
    /// It is none: `model` passes with it, for the reason given.
    Equivalent { model: &'static str, why: &'static str },
    /// Nobody has thought about it.
    Unknown,
}

pub fn expect(fault: Fault) -> Expect {
    let by: &[&str] = match fault {
        SqTailRelaxed | SqTailLoadRelaxed | SqHeadRelaxed | SqHeadLoadRelaxed => {
            &["sq_ring", "sq_ring_array"]
        }
        CqTailRelaxed | CqTailLoadRelaxed | CqHeadRelaxed | CqHeadLoadRelaxed => &["cq_ring"],
        ReturnPushRelaxed | ReturnTakeRelaxed | ReturnPushTwice => &["return_list"],
        QueuedSetRelaxed | QueuedClearRelaxed => &["notices"],
        QueuedClearedLate => &["notice_at_once"],
        StaleTokenAccepted | RetireKeepsGeneration => &["stale_tokens"],
        WakeNoFence | SleepNoFence | SleepNoRecheck | WakeNoUnpark => &["two_wakers", "two_sleepers"],
        WakeNoSequence => &["two_sleepers"],
        MailPostRelaxed | MailTakeRelaxed | MailAnswerRelaxed | MailAnswerLoadRelaxed | MailClaimRelaxed | MailEmptyRelaxed | MailEmptyNoWake | MailAnswerNoWake => &["mailbox"],
        ReturnNoWake | WaitNoRecheck => &["inline_wait"],
        TaskrunSetRelaxed | TaskrunClearRelaxed => &["taskrun"],
        FallbackLeaked => &["fallback"],
        ShutdownNoRecheck => &["drop_in_flight"],
        SubmitNoFence | NeedWakeupLate | PollerNoRecheck | PublishNoFence => &["sqpoll_submit"],
        RoomNoWake | RoomNoFence => &["sqpoll_cq_room"],
        MailNoWake => &["sqpoll_mail"],
        StopNoWake => &["sqpoll_submit", "sqpoll_stop"],
        StoppedRelaxed | StoppedLoadRelaxed => &["sqpoll_stop_waiting"],
        ClaimReleaseRelaxed | ClaimAcquireRelaxed | FreedNoWake => &["served_claim"],
        ClaimNoRecheck | ReleaseNoFence => &["served_work", "served_return"],
        HelperNoRecheck => &["served_return"],
        PollsNoWake => &["served_polled"],
        WorkerNotWoken | WorkerComesForEver => &["workers_wake"],
        WorkerLeavesCalled => &["workers_leave"],
        WorkerSleepsThroughEnd | WorkersNotSentAway => &["workers_stop"],
        EndNotChecked => &["served_stop"],
        RetireBlind => &["crossing"],
        TaskrunHiddenLate => &["taskrun"],
        PollingNoRecheck => &["inline_interrupt", "drop_interrupt", "sqpoll_interrupt"],
        StarvedForEver => &["sqpoll_starved"],
        HelperStopMissed => &["served_stop"],
        #[allow(unreachable_patterns)] // the engine faults are another rung's
        _ => return Expect::Unknown,
    };
    Expect::Caught(by)
}
