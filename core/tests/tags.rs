//! Tags of registered files and buffers, on a scripted backend.

mod common;

use annulus::config::{Config, Mode};
use annulus::engine::{EnterFlags, Parts};
use annulus::errno::Errno;
use annulus::opcode;
use annulus::register::Call;
use annulus::served::Served;
use annulus::squeue::{Entry, Flags};
use annulus::types::{Fixed, Iovec, Timespec};
use annulus::uapi::*;
use common::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn tagged(tags: u32) -> Rig {
    rig(Config::new(4).requests(8).cq_entries(4).submit_all(true).files(4).buffers(2).tags(tags))
}

fn enter(rig: &mut Rig, count: u32) {
    assert_eq!(rig.parts.engine.enter(count, 0, EnterFlags::empty(), None), Ok(count));
}

fn call(rig: &mut Rig, call: Call<'_>) -> Result<u32, Errno> {
    // SAFETY: the backend touches no memory.
    unsafe { rig.parts.engine.call(call) }
}

/// A read of a registered file.
fn fixed(place: u32, user_data: u64) -> Entry {
    opcode::Read::new(Fixed(place), std::ptr::null_mut(), 8).build().user_data(user_data)
}

#[test]
fn row_cq_full_a_tag_is_posted_after_the_last_use() {
    let mut rig = tagged(6);
    let register = |tags| Call::RegisterFilesTagged { fds: &[AT_ONCE, LATER, -1], tags };
    assert_eq!(call(&mut rig, register(&[1, 2, 3])), Err(Errno::EINVAL), "no file, no tag");
    assert_eq!(call(&mut rig, register(&[1, 2])), Err(Errno::EINVAL), "not as many");
    assert_eq!(rig.reap(), []);
    assert!(rig.log.lock().unwrap().open.is_empty());
    assert_eq!(call(&mut rig, register(&[1, 2, 0])), Ok(0));
    assert_eq!(call(&mut rig, register(&[1, 2])), Err(Errno::EBUSY), "that comes first");
    rig.push(&[fixed(1, 9), fixed(1, 9)]);
    enter(&mut rig, 2);
    let update = Call::UpdateFilesTagged { offset: 0, fds: &[AT_ONCE, LATER], tags: &[4, 5] };
    assert_eq!(call(&mut rig, update), Ok(2));
    assert_eq!(rig.reap(), [(1, 0)], "there when the call is back; the other is in use");
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(9, 8)]);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(9, 8), (2, 0)], "after the request's own");
    call(&mut rig, Call::UnregisterFiles).unwrap();
    assert_eq!(rig.reap(), [(5, 0), (4, 0)]);
}

#[test]
fn row_cq_full_tags_wait_for_room_in_their_order_and_none_is_lost() {
    let mut rig = tagged(4);
    for round in 0..if cfg!(miri) { 4 } else { 40 } {
        let tags = [1, 2, 3].map(|n| 10 * round + n);
        let fds = [AT_ONCE; 3];
        call(&mut rig, Call::RegisterFilesTagged { fds: &fds, tags: &tags }).unwrap();
        rig.push(&[nop(1000), nop(1001)]);
        enter(&mut rig, 2);
        call(&mut rig, Call::UnregisterFiles).unwrap();
        rig.push(&[nop(1002)]);
        enter(&mut rig, 1);
        // Those that wait for room have their storage still.
        let more = Call::RegisterFilesTagged { fds: &[AT_ONCE; 4], tags: &[5, 6, 7, 8] };
        assert_eq!(call(&mut rig, more), Err(Errno::ENOMEM));
        let mut seen = rig.reap();
        assert_eq!(seen.len(), 4);
        enter(&mut rig, 0);
        seen.extend(rig.reap());
        let [one, two, three] = tags;
        let posted = [1000, 1001, three, two, one, 1002].map(|user_data| (user_data, 0));
        assert_eq!(seen, posted);
    }
}

#[test]
fn tags_of_buffers_are_posted_after_the_last_use() {
    let mut rig = tagged(4);
    let at = |at| Iovec::new(std::ptr::without_provenance_mut(at), 64);
    let (one, other, bad) = (at(0x10000), at(0x20000), at(0xbad0));
    let none = Iovec::new(std::ptr::null_mut(), 0);
    fn register<'a>(buffers: &'a [Iovec], tags: &'a [u64]) -> Call<'a> {
        Call::RegisterBuffersTagged { buffers, tags }
    }
    fn update<'a>(buffers: &'a [Iovec], tags: &'a [u64]) -> Call<'a> {
        Call::UpdateBuffersTagged { offset: 0, buffers, tags }
    }
    assert_eq!(call(&mut rig, register(&[one, bad], &[1, 2])), Err(Errno::EFAULT));
    assert_eq!(call(&mut rig, register(&[one, none], &[1, 2])), Err(Errno::EINVAL));
    assert_eq!(rig.reap(), [], "nothing has been registered");
    assert_eq!(call(&mut rig, register(&[one, none], &[1, 0])), Ok(0));
    let read = opcode::ReadFixed::new(annulus::types::Fd(LATER), one.base.cast(), 8, 0);
    rig.push(&[read.build().user_data(9)]);
    enter(&mut rig, 1);
    assert_eq!(call(&mut rig, update(&[bad], &[3])), Err(Errno::EFAULT));
    assert_eq!(call(&mut rig, update(&[other, one], &[3, 4])), Ok(2));
    assert_eq!(rig.reap(), []);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(9, 8), (1, 0)]);
    let [a, b] = [5, 6].map(|tag| call(&mut rig, update(&[other], &[tag])));
    assert_eq!((a, b), (Ok(1), Ok(1)));
    assert_eq!(rig.reap(), [(3, 0), (5, 0)]);
    assert_eq!(call(&mut rig, Call::UnregisterBuffers), Ok(0));
    assert_eq!(rig.reap(), [(4, 0), (6, 0)]);
    let log = rig.log.lock().unwrap();
    assert_eq!(log.mapped, log.unmapped);
}

#[test]
fn what_waits_for_completions_counts_tags() {
    let mut rig = tagged(4);
    let tags = Call::RegisterFilesTagged { fds: &[AT_ONCE; 2], tags: &[1, 2] };
    call(&mut rig, tags).unwrap();
    let hour: &'static Timespec = Box::leak(Box::new(Timespec::new().sec(3600)));
    rig.push(&[opcode::Timeout::new(hour).count(2).build().user_data(7)]);
    enter(&mut rig, 1);
    call(&mut rig, Call::UnregisterFiles).unwrap();
    assert_eq!(rig.reap(), [(2, 0), (1, 0), (7, 0)]);
}

#[test]
fn a_request_without_a_cqe_lets_go_with_one() {
    let mut rig = tagged(4);
    let tags = Call::RegisterFilesTagged { fds: &[LATER], tags: &[1] };
    call(&mut rig, tags).unwrap();
    rig.push(&[fixed(0, 9).flags(Flags::SKIP_SUCCESS)]);
    enter(&mut rig, 1);
    call(&mut rig, Call::UnregisterFiles).unwrap();
    assert_eq!(rig.reap(), []);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(1, 0)]);
}

#[test]
fn a_ring_without_room_for_tags_refuses_them() {
    let mut rig = tagged(0);
    let tags = Call::RegisterFilesTagged { fds: &[AT_ONCE], tags: &[7] };
    assert_eq!(call(&mut rig, tags), Err(Errno::EINVAL));
    assert_eq!(rig.parts.engine.features() & IORING_FEAT_RSRC_TAGS, 0);
    let none = Call::RegisterFilesTagged { fds: &[AT_ONCE], tags: &[0] };
    assert_eq!(call(&mut rig, none), Ok(0));
    assert_ne!(tagged(6).parts.engine.features() & IORING_FEAT_RSRC_TAGS, 0);
}

#[test]
fn tags_are_dropped_with_the_ring() {
    let mut rig = tagged(6);
    for tags in [[1, 2, 3], [4, 5, 6]] {
        let tags = Call::RegisterFilesTagged { fds: &[AT_ONCE; 3], tags: &tags };
        call(&mut rig, tags).unwrap();
        call(&mut rig, Call::UnregisterFiles).unwrap();
    }
    rig.parts.engine.shutdown();
    assert_eq!(rig.reap(), [(3, 0), (2, 0), (1, 0), (6, 0)]);
}

#[test]
fn row_cq_full_tags_are_posted_in_every_mode() {
    for polled in [true, false] {
        let mode = if polled { Mode::SqPoll { idle_ms: 1 } } else { Mode::Served };
        let config = Config::new(4).cq_entries(4).files(4).tags(9).mode(mode);
        let Rig { parts, log, completer, .. } = rig(config);
        let Parts { mut engine, mut sq, mut cq, remote } = parts;
        let served = if polled {
            std::thread::spawn(move || engine.poll_loop());
            None
        } else {
            let served = Arc::new(Served::new(engine, remote));
            let helper = served.clone();
            std::thread::spawn(move || helper.help());
            Some(served)
        };
        let enter = |count, want| {
            let flags = EnterFlags::SQ_WAKEUP | EnterFlags::GETEVENTS;
            match &served {
                Some(served) => served.enter(count, want, flags, None).unwrap(),
                None => remote.enter(count, want, flags, None).unwrap(),
            }
        };
        // SAFETY: no memory is registered.
        let call = |call: Call<'_>| unsafe {
            match &served {
                Some(served) => served.call(call).unwrap(),
                None => remote.call(call).unwrap(),
            }
        };
        let mut seen = || cq.queue().map(|cqe| cqe.user_data()).collect::<Vec<_>>();
        for round in 0..if cfg!(miri) { 2 } else { 20 } {
            let tags = [1, 2, 3].map(|n| 10 * round + n);
            call(Call::RegisterFilesTagged { fds: &[LATER, AT_ONCE, AT_ONCE], tags: &tags });
            push(&mut sq, &[fixed(0, 9)]);
            enter(1, 0);
            while log.lock().unwrap().pending.is_empty() {
                std::thread::yield_now();
            }
            call(Call::UnregisterFiles);
            assert_eq!(seen(), [tags[2], tags[1]], "there when the call is back");
            std::thread::scope(|scope| {
                // A waiting application hears of it.
                scope.spawn(|| enter(0, 2));
                let (token, _) = log.lock().unwrap().pending.remove(0);
                completer.complete(token, 8).unwrap();
            });
            assert_eq!(seen(), [9, tags[0]]);
        }
        remote.stop();
    }
}

/// What an application does. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Register(Vec<(i32, bool)>),
    Unregister,
    Update { place: u32, fd: i32, tag: bool },
    Read(u32),
    Complete(usize),
    Nop,
    Enter,
    Reap(usize),
}

fn file() -> impl Strategy<Value = i32> {
    prop_oneof![Just(AT_ONCE), Just(LATER), Just(LATER), Just(-1), Just(7)]
}

fn step() -> impl Strategy<Value = Step> {
    let files = prop::collection::vec((file(), any::<bool>()), 1..5);
    prop_oneof![
        2 => files.prop_map(Step::Register),
        2 => Just(Step::Unregister),
        4 => (0u32..4, file(), any::<bool>())
            .prop_map(|(place, fd, tag)| Step::Update { place, fd, tag }),
        5 => (0u32..4).prop_map(Step::Read),
        5 => any::<usize>().prop_map(Step::Complete),
        1 => Just(Step::Nop),
        2 => Just(Step::Enter),
        2 => (0usize..5).prop_map(Step::Reap),
    ]
}

/// A resource: who uses it, and whether it has its place still.
#[derive(Clone, Copy, Debug, Default)]
struct Resource {
    fd: i32,
    tag: u64,
    users: u32,
    placed: bool,
}

/// What must be true of tags, whatever happens.
struct Model {
    rig: Rig,
    resources: Vec<Resource>,
    /// The table, if there is one.
    places: Option<Vec<Option<usize>>>,
    /// The resource of each request that the backend has, in its order.
    pending: Vec<usize>,
    tags: u64,
    reaped: BTreeMap<u64, u32>,
}

const TAGS: u32 = 6;
/// User data of requests.
const REQUEST: u64 = 1 << 40;

impl Model {
    fn new() -> Self {
        let config = Config::new(4).requests(64).cq_entries(4).submit_all(true).files(4).tags(TAGS);
        let (resources, pending) = (vec![], vec![]);
        let (tags, reaped) = (0, BTreeMap::new());
        Self { rig: rig(config), resources, places: None, pending, tags, reaped }
    }

    fn tag(&mut self, wanted: bool) -> u64 {
        self.tags += u64::from(wanted);
        if wanted { self.tags } else { 0 }
    }

    /// Tags that have been registered, and whose CQEs have not been seen.
    fn outstanding(&self) -> u32 {
        let tagged = self.resources.iter().filter(|r| r.tag != 0);
        tagged.filter(|r| !self.reaped.contains_key(&r.tag)).count() as u32
    }

    fn add(&mut self, fd: i32, tag: u64) -> usize {
        self.resources.push(Resource { fd, tag, users: 0, placed: true });
        self.resources.len() - 1
    }

    fn remove(&mut self, resource: Option<usize>) {
        if let Some(resource) = resource {
            self.resources[resource].placed = false;
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Register(files) => self.register(&files),
            Step::Unregister => {
                let there = self.places.take();
                let answer = call(&mut self.rig, Call::UnregisterFiles);
                let expected = there.as_ref().map(|_| 0).ok_or(Errno::ENXIO);
                assert_eq!(answer, expected);
                there.into_iter().flatten().for_each(|resource| self.remove(resource));
            }
            Step::Update { place, fd, tag } => self.update(place, fd, tag),
            Step::Read(place) => {
                let there = self.places.as_ref().and_then(|p| p.get(place as usize).copied());
                if let Some(resource) = there.flatten()
                    && self.resources[resource].fd == LATER
                {
                    self.resources[resource].users += 1;
                    self.pending.push(resource);
                }
                self.rig.push(&[fixed(place, REQUEST)]);
                enter(&mut self.rig, 1);
            }
            Step::Complete(which) => {
                if self.pending.is_empty() {
                    return;
                }
                let which = which % self.pending.len();
                let (token, _) = self.rig.log.lock().unwrap().pending.remove(which);
                self.rig.completer.complete(token, 8).unwrap();
                let resource = self.pending.remove(which);
                self.resources[resource].users -= 1;
            }
            Step::Nop => {
                self.rig.push(&[nop(REQUEST)]);
                enter(&mut self.rig, 1);
            }
            Step::Enter => enter(&mut self.rig, 0),
            Step::Reap(most) => self.reap(most),
        }
    }

    fn register(&mut self, files: &[(i32, bool)]) {
        let fds: Vec<i32> = files.iter().map(|&(fd, _)| fd).collect();
        let tags: Vec<u64> = files.iter().map(|&(_, wanted)| self.tag(wanted)).collect();
        let before = self.outstanding();
        let answer = call(&mut self.rig, Call::RegisterFilesTagged { fds: &fds, tags: &tags });
        let both = || fds.iter().zip(&tags);
        let wrong = both().find_map(|(&fd, &tag)| match fd {
            -1 if tag != 0 => Some(Errno::EINVAL),
            7 => Some(Errno::EBADF),
            _ => None,
        });
        match answer {
            Err(Errno::EBUSY) => assert!(self.places.is_some()),
            Err(Errno::ENOMEM) => {
                let wanted = tags.iter().filter(|&&tag| tag != 0).count() as u32;
                assert!(before + wanted > TAGS && self.places.is_none());
            }
            answer => {
                assert_eq!(answer, wrong.map_or(Ok(0), Err));
                assert!(self.places.is_none());
                if wrong.is_none() {
                    let add = |(&fd, &tag): (&i32, &u64)| (fd != -1).then(|| self.add(fd, tag));
                    self.places = Some(fds.iter().zip(&tags).map(add).collect());
                }
            }
        }
    }

    fn update(&mut self, place: u32, fd: i32, tag: bool) {
        let tag = self.tag(tag);
        let before = self.outstanding();
        let update = Call::UpdateFilesTagged { offset: place, fds: &[fd], tags: &[tag] };
        let answer = call(&mut self.rig, update);
        let at = place as usize;
        let expected = match &self.places {
            None => Err(Errno::ENXIO),
            Some(places) if at >= places.len() => Err(Errno::EINVAL),
            Some(_) if fd == -1 && tag != 0 => Err(Errno::EINVAL),
            Some(_) if fd == 7 => Err(Errno::EBADF),
            Some(_) => Ok(1),
        };
        let full = answer == Err(Errno::ENOMEM);
        match full {
            true => assert!(tag != 0 && before >= TAGS && expected == Ok(1)),
            false => assert_eq!(answer, expected),
        }
        // The old one goes, unless the call is wrong by itself.
        if matches!(expected, Ok(_) | Err(Errno::EBADF)) {
            let new = (expected == Ok(1) && fd != -1 && !full).then(|| self.add(fd, tag));
            let place = &mut self.places.as_mut().expect("a table")[at];
            let old = std::mem::replace(place, new);
            self.remove(old);
        }
    }

    fn reap(&mut self, most: usize) {
        let cqes: Vec<_> = self.rig.parts.cq.queue().take(most).collect();
        for cqe in cqes.iter().filter(|cqe| cqe.user_data() != REQUEST) {
            let tag = cqe.user_data();
            let resource = self.resources.iter().find(|r| r.tag == tag).expect("a tag");
            assert!(!resource.placed && resource.users == 0, "{tag} is in use: {resource:?}");
            assert_eq!((cqe.result(), cqe.flags()), (0, 0));
            *self.reaped.entry(tag).or_default() += 1;
        }
    }

    /// Everything ends: each tag has come, once.
    fn end(&mut self) {
        while !self.pending.is_empty() {
            self.step(Step::Complete(0));
        }
        let _ = call(&mut self.rig, Call::UnregisterFiles);
        self.places.take().into_iter().flatten().for_each(|resource| self.remove(resource));
        enter(&mut self.rig, 0);
        while !self.rig.parts.cq.queue().is_empty() {
            self.reap(usize::MAX);
            enter(&mut self.rig, 0);
        }
        for Resource { tag, .. } in self.resources.iter().filter(|r| r.tag != 0) {
            assert_eq!(self.reaped.remove(tag), Some(1), "tag {tag}");
        }
        assert!(self.reaped.is_empty(), "{:?}", self.reaped);
        // All storage is there again.
        let all = Call::RegisterFilesTagged { fds: &[AT_ONCE; 4], tags: &[1, 2, 3, 4] };
        assert_eq!(call(&mut self.rig, all), Ok(0));
        assert!(self.rig.log.lock().unwrap().open.len() == 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever happens, the tag of each resource comes once, and not before its
    /// last use.
    #[test]
    fn row_cq_full_each_tag_comes_once(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 20 } else { 50 })) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.end();
    }
}
