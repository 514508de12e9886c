//! Seeded faults: deliberate bugs that the verification rungs must catch.
//!
//! Without `--cfg annulus_faults` or `--cfg loom` nothing of this exists in
//! the code: [`on`] is a `const false`.

use crate::sync::Ordering;

/// Which rung has to catch a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A weakened ordering or a skipped recheck: loom's to find.
    Loom,
    /// A wrong rule in the engine: the kernel comparison's to find.
    Engine,
    /// A wrong rule for requests that are held back: the kernel comparison's
    /// second family's to find.
    Held,
    /// A wrong rule of waits and clocks: the kernel comparison's third family's to
    /// find.
    Pair,
    /// A wrong rule of register calls: the scripts' to find that are run on the
    /// kernel and on Annulus.
    Call,
    /// A wrong rule in a device's driver: the guest's to find.
    Driver,
    /// A check of what a peer writes is left out: the fuzzer's to find.
    Peer,
    /// A wrong rule that shows when somebody acts while the engine is at work:
    /// the simulator's to find.
    Amid,
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident,)+) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Fault {
            /// Every fault there is.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)+];

            /// Its name, as the rungs' options take it.
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$name => stringify!($name),)+ }
            }

            /// What it breaks.
            pub const fn describe(self) -> &'static str {
                match self { $(Fault::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// The rung that must catch it.
            pub const fn kind(self) -> Kind {
                match self { $(Fault::$name => Kind::$kind,)+ }
            }

            /// The fault of that name.
            pub fn from_name(name: &str) -> Option<Fault> {
                Self::ALL.iter().copied().find(|f| f.name() == name)
            }
        }
    };
}

faults! {
    /// The application publishes its SQEs without Release.
    SqTailRelaxed: Loom,
    /// The engine reads the SQ tail without Acquire.
    SqTailLoadRelaxed: Loom,
    /// The engine gives SQ entries back without Release.
    SqHeadRelaxed: Loom,
    /// The application reads the SQ head without Acquire.
    SqHeadLoadRelaxed: Loom,
    /// The engine publishes CQEs without Release.
    CqTailRelaxed: Loom,
    /// The application reads the CQ tail without Acquire.
    CqTailLoadRelaxed: Loom,
    /// The application gives CQ entries back without Release.
    CqHeadRelaxed: Loom,
    /// The engine reads the CQ head without Acquire.
    CqHeadLoadRelaxed: Loom,
    /// CQEs and SQ room are published without a full fence before the look for a waiter.
    PublishNoFence: Loom,
    /// That timeouts have ended is told without Release.
    TimeoutsTellRelaxed: Loom,
    /// Whether timeouts have ended is read without Acquire.
    TimeoutsLoadRelaxed: Loom,
    /// A slot is pushed on the return list without Release.
    ReturnPushRelaxed: Loom,
    /// The return list is taken without Acquire.
    ReturnTakeRelaxed: Loom,
    /// A completion does not wake the engine.
    ReturnNoWake: Loom,
    /// A completion does not look whether its slot is queued already.
    ReturnPushTwice: Loom,
    /// A completion does not compare the token's generation.
    StaleTokenAccepted: Loom,
    /// A slot is opened to its completion after the request has been started.
    ArmedLate: Loom,
    /// A request ends when the first of its two references is gone.
    ReferenceIgnored: Loom,
    /// A request's end does not move its slot's generation.
    RetireKeepsGeneration: Loom,
    /// TASKRUN is shown without Release: its push may be seen later than the flag.
    TaskrunSetRelaxed: Loom,
    /// TASKRUN is hidden without Acquire: the push it told of may be missed.
    TaskrunClearRelaxed: Loom,
    /// TASKRUN is hidden after the list is taken, not before.
    TaskrunHiddenLate: Loom,
    /// The engine clears QUEUED after it has acted on the notice, not before.
    QueuedClearedLate: Loom,
    /// QUEUED is set without Acquire, so a notice may overtake the read of the last.
    QueuedSetRelaxed: Loom,
    /// A resumed request's end does not look whether another notice has come.
    RetireBlind: Loom,
    /// A READY notice does not fence between what it tells of and the look whether one is queued.
    ReadyNoFence: Loom,
    /// A woken request is resumed without a full fence after QUEUED is cleared.
    ResumeNoFence: Loom,
    /// A signal's events are raised without Release.
    SignalRaiseRelaxed: Loom,
    /// A signal's events are read without Acquire.
    SignalEventsRelaxed: Loom,
    /// A signal is raised without a full fence before the look for waits.
    SignalRaiseNoFence: Loom,
    /// A wait for a signal is armed without a full fence before the second look.
    SignalArmNoFence: Loom,
    /// A wait for a signal does not look again after it is armed.
    SignalArmNoRecheck: Loom,
    /// QUEUED is cleared without Release, so a next notice may overtake the read of the last.
    QueuedClearRelaxed: Loom,
    /// A waker looks for a sleeper without a full fence after publishing.
    WakeNoFence: Loom,
    /// A sleeper looks again without a full fence after announcing itself.
    SleepNoFence: Loom,
    /// A sleeper does not look again after announcing itself.
    SleepNoRecheck: Loom,
    /// A waker finds a sleeper and does not unpark it.
    WakeNoUnpark: Loom,
    /// A wake-up does not move the word's sequence.
    WakeNoSequence: Loom,
    /// A submission under SQPOLL looks for NEED_WAKEUP without a full fence.
    SubmitNoFence: Loom,
    /// The poller shows NEED_WAKEUP after its full fence, not before.
    NeedWakeupLate: Loom,
    /// The poller does not look again after announcing its sleep.
    PollerNoRecheck: Loom,
    /// An inline wait does not look again after announcing its sleep.
    WaitNoRecheck: Loom,
    /// A shutdown does not look again after announcing its sleep.
    ShutdownNoRecheck: Loom,
    /// A sleeper does not look again whether the backend must be polled.
    PollingNoRecheck: Loom,
    /// SQEs that waited for a request are believed to wait when one has ended.
    StarvedForEver: Loom,
    /// A stop does not wake the engine.
    StopNoWake: Loom,
    /// The engine's end does not wake a waiting application.
    EndNoWake: Loom,
    /// The engine's end is published without Release.
    StoppedRelaxed: Loom,
    /// The engine's end is read without Acquire.
    StoppedLoadRelaxed: Loom,
    /// A mailbox call does not wake the engine.
    MailNoWake: Loom,
    /// The place for a call is claimed without Acquire.
    MailClaimRelaxed: Loom,
    /// The place for a call is given back without Release.
    MailEmptyRelaxed: Loom,
    /// A caller gives the place for a call back and does not wake the next.
    MailEmptyNoWake: Loom,
    /// A mailbox answer does not wake its caller.
    MailAnswerNoWake: Loom,
    /// A mailbox call is posted without Release.
    MailPostRelaxed: Loom,
    /// A mailbox call is taken without Acquire.
    MailTakeRelaxed: Loom,
    /// A mailbox answer is published without Release.
    MailAnswerRelaxed: Loom,
    /// A mailbox answer is read without Acquire.
    MailAnswerLoadRelaxed: Loom,
    /// The claim of a served engine is released without Release.
    ClaimReleaseRelaxed: Loom,
    /// A served engine is claimed without Acquire.
    ClaimAcquireRelaxed: Loom,
    /// A server does not look for work again after it gave up its claim.
    ClaimNoRecheck: Loom,
    /// A claim is released without a full fence before the look for work.
    ReleaseNoFence: Loom,
    /// A claim is released without waking who waits for it.
    FreedNoWake: Loom,
    /// The helper does not look again after announcing its sleep.
    HelperNoRecheck: Loom,
    /// The helper does not look again for a stop after announcing its sleep.
    HelperStopMissed: Loom,
    /// Who leaves a polled request in flight does not wake the helper.
    PollsNoWake: Loom,
    /// An idle worker is given a job and not woken.
    WorkerNotWoken: Loom,
    /// A worker that has arrived is still counted as on its way.
    WorkerComesForEver: Loom,
    /// A worker whose wait ran out leaves without looking whether it was called.
    WorkerLeavesCalled: Loom,
    /// A worker does not look whether the pool has been stopped before it sleeps.
    WorkerSleepsThroughEnd: Loom,
    /// A stop does not wake the idle workers.
    WorkersNotSentAway: Loom,
    /// A worker that could not be made is still counted as one.
    WorkerNeverMadeCounts: Loom,
    /// A worker that could not be made is still believed to be on its way.
    WorkerNeverMadeComes: Loom,
    /// A class that has workers is not owed the one that could not be made in passing.
    WorkerOwedForgotten: Loom,
    /// The work of a class whose first worker cannot be made is left in its queue.
    WorkerlessWorkKept: Loom,
    /// A worker beyond its class's limit leaves without calling another to the job.
    SurplusSaysNothing: Loom,
    /// A message is pushed on its lane without Release.
    MessagePushRelaxed: Loom,
    /// Messages are taken off their lane without Acquire.
    MessageTakeRelaxed: Loom,
    /// The storage of a message is taken without Acquire.
    LetterTakenRelaxed: Loom,
    /// The storage of a message is given back without Release.
    LetterGivenBackRelaxed: Loom,
    /// A message on an empty lane is not told of on the return list.
    MessageNotTold: Loom,
    /// A message does not wake the engine.
    MessageNoWake: Loom,
    /// Entries of a polled ring are taken without a look for files that other rings
    /// have sent.
    SentFileLate: Loom,
    /// A file from another ring is not shown to an application that drives its ring.
    SentFileNotShown: Loom,
    /// The message that a file has come is posted without a look for it.
    SentFileBehindMessage: Loom,
    /// Files from other rings that have come to no place yet are lost with the table.
    SentFileForgotten: Loom,
    /// Messages that have been accepted are not posted at the end of the ring.
    MessagesForgottenAtEnd: Loom,
    /// A submission does not look whether the engine has ended.
    EndNotChecked: Loom,
    /// The fallback slot is never given back.
    FallbackLeaked: Loom,
    /// A CQE that waits for room is not shown.
    OverflowNotShown: Loom,
    /// A full CQ does not wake the engine when the application makes room.
    RoomNoWake: Loom,
    /// The application looks whether the engine waits for room without a full fence.
    RoomNoFence: Loom,

    /// SUBMIT_ALL is ignored: a batch ends after a failing SQE.
    SubmitAllIgnored: Engine,
    /// A batch goes on after a failing SQE without SUBMIT_ALL.
    FailureDoesNotStop: Engine,
    /// A failing SQE is not counted in the answer of enter.
    FailureNotCounted: Engine,
    /// A place whose index is bad is counted as an SQE.
    BadIndexCounted: Engine,
    /// A place whose index is bad is not counted in `dropped`.
    BadIndexNotDropped: Engine,
    /// A batch goes on after a place whose index is bad.
    BadIndexContinues: Engine,
    /// A range of a registered buffer may end one byte outside.
    RangeOnePast: Engine,
    /// The start of a range of a registered buffer is not checked.
    RangeStartUnchecked: Engine,
    /// READ_FIXED and WRITE_FIXED take any range if the index is good.
    RangeUnchecked: Engine,
    /// The buffer index of a fixed operation is off by one.
    BufferIndexOffByOne: Engine,
    /// The flags of FSYNC are not looked at.
    FsyncFlagsUnchecked: Engine,
    /// A personality is not looked at.
    PersonalityUnchecked: Engine,
    /// Unknown SQE flags are not looked at.
    SqeFlagsUnchecked: Engine,
    /// An unknown opcode succeeds.
    UnknownOpcodeSucceeds: Engine,
    /// A NOP does not answer the result it was given.
    NopInjectIgnored: Engine,
    /// An error that ends a request in the engine is answered as 0.
    ErrorsBecomeZero: Engine,
    /// A result that comes from elsewhere is one too small.
    LateResultOffByOne: Engine,
    /// A CQE that comes from elsewhere has the user data of the slot's index.
    LateUserDataLost: Engine,
    /// A CQE of a request that was started has a flag that means nothing.
    CqeFlagsGarbage: Engine,
    /// The first CQE that waits for room is lost.
    OverflowLosesOne: Engine,
    /// Room in the CQ that is found while CQEs wait for it is anybody's.
    RoomOfOthers: Amid,
    /// Whoever waits for CQEs is not woken when there are some.
    PublishNoWake: Amid,
    /// What follows an end that a wait finds by polling waits for the next call.
    PolledEndFollowedLate: Amid,
    /// FILES_UPDATE, OPENAT, CLOSE and STATX take IOSQE_FIXED_FILE.
    FixedFileUnchecked: Engine,
    /// The fields that rare operations do not use are not looked at.
    OtherFieldsUnchecked: Engine,
    /// FILES_UPDATE begins one place too far.
    FilesUpdateOffByOne: Engine,
    /// FILES_UPDATE does not say which places it has chosen.
    FilesUpdateSilent: Engine,
    /// A file that is opened into a place is opened beside it.
    DirectOpenBeside: Engine,
    /// CLOSE of a registered file leaves it.
    DirectCloseForgotten: Engine,
    /// SYNC_FILE_RANGE does not say which flags it was given.
    SyncRangeFlagsLost: Engine,
    /// FADVISE takes its length from the wrong field.
    FadviseLengthLost: Engine,
    /// FALLOCATE forgets its mode.
    FallocateModeLost: Engine,
    /// OPENAT forgets the mode of a file that it makes.
    OpenModeLost: Engine,
    /// STATX forgets which attributes it was asked for.
    StatxMaskLost: Engine,
    /// CLOSE says that it is done, and does nothing.
    CloseForgotten: Engine,
    /// A second registration succeeds and changes nothing.
    RegisterTwiceSucceeds: Engine,
    /// A registration that fails keeps the files it had taken.
    FailedRegistrationStays: Engine,
    /// Unregistering files leaves the table.
    UnregisterDoesNothing: Engine,
    /// An update with -2 empties the place.
    UpdateSkipEmpties: Engine,
    /// An update counts the place that failed.
    UpdateCountsFailed: Engine,
    /// GETEVENTS does not wait.
    WaitForgotten: Engine,
    /// A wait that timed out says that it did not.
    TimeoutForgotten: Engine,
    /// The last SQE of a batch is left in the SQ.
    LastSqeLeft: Engine,
    /// A CQE of a request that goes on does not say so.
    MoreNotShown: Engine,
    /// A request goes on though one of its CQEs had no room.
    MoreLost: Engine,
    /// What a wait always waits for has to be asked for.
    PollAlwaysForgotten: Engine,
    /// POLL_ADD waits for one event, multishot or not.
    PollAlwaysOnce: Engine,
    /// POLL_REMOVE means the oldest of the waits that match.
    PollOldestFirst: Engine,
    /// An update of a wait's user data changes nothing.
    PollUserDataKept: Engine,
    /// An update of a wait's events changes nothing.
    PollEventsKept: Engine,
    /// A wait that has been removed is found again.
    PollRemovedTwice: Engine,

    /// IOSQE_IO_DRAIN is ignored.
    DrainIgnored: Held,
    /// A drain is taken though CQEs have been skipped.
    DrainAfterSkip: Held,
    /// A short read does not break a chain.
    ShortKeepsChain: Held,
    /// A failure does not break a chain.
    FailureKeepsChain: Held,
    /// A failure breaks a hard chain.
    HardLinkBreaks: Held,
    /// IOSQE_CQE_SKIP_SUCCESS is ignored.
    SkipIgnored: Held,
    /// The chain of a request that failed and would have skipped its CQE speaks.
    SkippedChainSpeaks: Held,
    /// A timeout counts one completion too many.
    CountOffByOne: Held,
    /// The CQEs of timeouts are counted by others.
    TimeoutsCounted: Held,
    /// A cancellation that has ended something says that it has found nothing.
    CancelSaysNoEntry: Held,
    /// A wait does not end at its least time, though something has come.
    LeastTimeForgotten: Pair,
    /// A wait until a point in time ends at once.
    PointInTimeIsOver: Pair,
    /// A point in time by the wall clock is taken as one by the monotonic clock.
    WallClockForgotten: Pair,
    /// A cancellation by opcode finds others, too.
    CancelOpIgnored: Held,
    /// A cancellation by file finds others, too.
    CancelFileIgnored: Held,
    /// A cancellation of all that match ends one.
    CancelAllEndsOne: Held,
    /// A CQE tells of the buffer after the one that was picked.
    BufferIdOffByOne: Held,
    /// A buffer that was picked and not used does not come back.
    BufferNotPutBack: Held,
    /// A read that finds no buffer says that there is no memory.
    NoBufferMistold: Held,
    /// A ring that polls takes operations that cannot be polled for.
    PolledRingTakesAll: Call,
    /// The CQE of a tag is not posted.
    TagLost: Call,
    /// A registration that has failed posts its tags.
    TagsOfFailure: Call,
    /// The CQE of a tag passes those that wait for room.
    TagOvertakes: Call,
    /// A buffer that is used up by parts is read into from its front each time.
    PartUsedTwice: Call,
    /// A stream's short read uses up as much of a buffer as it has asked for.
    PartWholeIfShort: Call,
    /// A file sent to another ring brings a CQE that nobody wanted.
    SentFileSpeaks: Call,
    /// A ring sends itself files.
    SentFileToItself: Call,
    /// The search for an empty place of the table of files begins at the first.
    EmptyPlaceFromStart: Call,
    /// A message's flags are not passed on.
    MessageFlagsLost: Call,
    /// A message that finds the CQ full is lost.
    MessageLostWithoutRoom: Call,
    /// A restricted ring takes SQEs without the flags that it demands.
    RequiredFlagsForgotten: Call,
    /// A second eventfd takes the place of the first.
    SecondEventfdTaken: Call,
    /// The eventfd is rung though the application has switched that off.
    EventfdAlwaysRings: Call,
    /// An eventfd for late CQEs is rung for all.
    EarlyEventfdRings: Call,
    /// A cancellation by a call does not wait for what is under way.
    SyncCancelDoesNotWait: Call,
    /// What a LINK_TIMEOUT guards ends, and the LINK_TIMEOUT does not.
    GuardNotDisarmed: Held,
    /// A LINK_TIMEOUT ends, and nothing else.
    LinkTimeoutIgnored: Held,
    /// An update of a timeout leaves its time.
    UpdateKeepsTime: Held,
    /// A multishot timeout fires once more.
    MultishotOnceMore: Held,

    /// NVMe, virtio-blk: an FSYNC says that it is done, and sends no flush.
    FlushForgotten: Driver,
    /// NVMe: every part of a long request goes to where the first went.
    PartsOverlap: Driver,
    /// NVMe: what was read to a bounce buffer stays there.
    BounceNotCopied: Driver,
    /// NVMe: the second page of a short transfer is the first again.
    SecondPageLost: Driver,
    /// NVMe: what was in flight when the controller was reset never ends.
    ResetForgets: Driver,

    /// The index array may name entries that there are not.
    IndexUnchecked: Peer,
    /// As many SQEs are taken as the tail promises.
    TailUnbounded: Peer,
    /// A CQ head that makes no sense is believed.
    HeadBelieved: Peer,
    /// The address of a fixed read is read again after its check.
    EntryReadTwice: Peer,
    /// The place in a ring of buffers is not cut to its size.
    BufferRingUnmasked: Peer,
    /// NVMe: a completion ends whatever its slot has in flight.
    AnswerOfOthers: Peer,
    /// NVMe: a namespace may have blocks of any size.
    BlockShiftUnchecked: Peer,
    /// NVMe: doorbells may lie outside of the registers.
    StrideUnchecked: Peer,
    /// virtio: a used entry may name a place that has nothing in flight.
    UsedIdle: Peer,
    /// virtio: blocks may be of any size.
    BlockSizeUnchecked: Peer,
    /// PCI: a list of capabilities may be of any length.
    ListUnbounded: Peer,
}

#[cfg(any(loom, annulus_faults))]
mod switch {
    use super::Fault;
    // Never loom's: the switch is the experimenter's, not the model's.
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    static SELECTED: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Switches one fault on, or all off.
    pub fn select(fault: Option<Fault>) {
        SELECTED.store(fault.map_or(usize::MAX, |f| f as usize), Relaxed);
    }

    /// Whether `fault` is switched on.
    pub fn on(fault: Fault) -> bool {
        SELECTED.load(Relaxed) == fault as usize
    }
}

#[cfg(any(loom, annulus_faults))]
pub use switch::{on, select};

/// Whether `fault` is switched on: never, in this build.
#[cfg(not(any(loom, annulus_faults)))]
#[inline(always)]
pub const fn on(_fault: Fault) -> bool {
    false
}

/// `order`, or Relaxed when `fault` is switched on.
#[inline(always)]
pub(crate) fn order(fault: Fault, order: Ordering) -> Ordering {
    if on(fault) { Ordering::Relaxed } else { order }
}
