//! Registered resources: files and buffers.
//!
//! A table of places, each with a resource or without. A request in flight
//! keeps the place that it was started with, and nobody counts: a resource is
//! looked up when a request starts, and that is all it costs.
//!
//! Only when a place lets go of its resource (an update, the table's end) are
//! the requests in flight looked through. If some use it, it is *detached*:
//! it gets an entry of its own, which counts them, and they name that entry
//! from then on. So neither an update nor a removal changes anything for
//! them, and the last one's end disposes of the resource. A detached resource
//! has at least one request, so there are as many entries as requests.

use crate::config::{MAX_BUFFERS, MAX_FILES, MAX_REQUESTS};
use crate::request::{Table as Kind, What};

/// Not a place, nor an entry.
pub(crate) const NONE: u32 = 0xff_ffff;
const _: () = assert!(MAX_FILES < NONE && MAX_BUFFERS < NONE && MAX_REQUESTS < NONE);

/// What one place of a table has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<T> {
    Here(T),
    /// Nothing: [`NONE`]. While a table is being closed: the entry of what was
    /// here, for its other users.
    Gone(u32),
}

/// A resource that lost its place while requests used it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detached<T> {
    /// None while the entry is on the free list.
    value: Option<T>,
    /// Requests in flight on it. On the free list: the next free entry.
    users: u32,
}

/// A table of registered resources.
pub(crate) struct Table<'m, T> {
    /// Those past the table's end have nothing.
    places: &'m mut [Place<T>],
    detached: &'m mut [Detached<T>],
    /// The first free entry of `detached`.
    free: u32,
    /// Places registered; 0 means that no table is registered.
    len: u32,
    /// Which of the tables that a request can use something of.
    kind: Kind,
    /// The tag of each place and, behind those, of each detached resource, or
    /// [`NONE`]; empty if there can be none.
    tags: &'m mut [u32],
}

/// A resource that nothing uses any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Left<T> {
    /// To be disposed of.
    pub value: T,
    /// To be posted then, or [`NONE`].
    pub tag: u32,
}

impl<T> Place<T> {
    pub const fn empty() -> Self {
        Self::Gone(NONE)
    }
}

impl<T> Detached<T> {
    pub const fn empty() -> Self {
        Self { value: None, users: NONE }
    }
}

impl<'m, T: Copy> Table<'m, T> {
    pub fn new(
        kind: Kind,
        places: &'m mut [Place<T>],
        detached: &'m mut [Detached<T>],
        tags: &'m mut [u32],
    ) -> Self {
        let count = detached.len() as u32;
        for (i, entry) in detached.iter_mut().enumerate() {
            let next = i as u32 + 1;
            *entry = Detached { value: None, users: if next < count { next } else { NONE } };
        }
        places.fill(Place::empty());
        let free = if count > 0 { 0 } else { NONE };
        Self { places, detached, free, len: 0, kind, tags }
    }

    /// Whether a table is registered.
    pub fn registered(&self) -> bool {
        self.len != 0
    }

    /// Places of the registered table.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Places that could be registered.
    pub fn capacity(&self) -> u32 {
        self.places.len() as u32
    }

    /// Places that have a resource.
    pub fn used(&self) -> u32 {
        self.places.iter().filter(|place| matches!(place, Place::Here(_))).count() as u32
    }

    /// Registers a table of `len` empty places.
    pub fn open(&mut self, len: u32) {
        debug_assert!(!self.registered() && len <= self.capacity());
        self.len = len;
    }

    /// What a place has, for a request that starts.
    #[inline(always)]
    pub fn get(&self, place: u32) -> Option<T> {
        self.peek(place).copied()
    }

    /// [`get`](Self::get), where it is.
    #[inline(always)]
    pub fn peek(&self, place: u32) -> Option<&T> {
        match self.places.get(place as usize) {
            Some(Place::Here(value)) => Some(value),
            _ => None,
        }
    }

    /// Puts a resource at a place, which must be empty.
    pub fn put(&mut self, place: u32, value: T) {
        debug_assert!(place < self.len && self.get(place).is_none());
        self.places[place as usize] = Place::Here(value);
    }

    /// Gives the resource at a place a tag.
    pub fn set_tag(&mut self, place: u32, tag: u32) {
        if tag != NONE {
            self.tags[place as usize] = tag;
        }
    }

    fn take_tag(&mut self, at: usize) -> u32 {
        self.tags.get_mut(at).map_or(NONE, |tag| core::mem::replace(tag, NONE))
    }

    /// Takes the tag of the last place that has one, of those before `end`.
    pub fn tag_before(&mut self, end: u32) -> Option<(u32, u32)> {
        let places = self.tags.get_mut(..end as usize)?;
        let place = places.iter().rposition(|&tag| tag != NONE)?;
        Some((place as u32, core::mem::replace(&mut places[place], NONE)))
    }

    /// Puts a resource at a place. Some: what was there, which no request
    /// uses, to be disposed of.
    pub fn replace<'a>(
        &mut self,
        place: u32,
        value: T,
        requests: impl Iterator<Item = &'a mut What>,
    ) -> Option<Left<T>> {
        let old = self.clear(place, requests);
        self.put(place, value);
        old
    }

    /// Empties a place. Some: no request uses the resource, dispose of it.
    /// `requests` are those in flight.
    pub fn clear<'a>(
        &mut self,
        place: u32,
        requests: impl Iterator<Item = &'a mut What>,
    ) -> Option<Left<T>> {
        let at = self.places.get_mut(place as usize)?;
        let Place::Here(value) = core::mem::replace(at, Place::empty()) else {
            return None;
        };
        let mut entry = None;
        for request in requests {
            if request.uses(self.kind) == place && !request.detached(self.kind) {
                let entry = match entry {
                    Some(entry) => self.join(entry),
                    None => *entry.insert(self.detach(value, place)),
                };
                request.detach(self.kind, entry);
            }
        }
        if entry.is_some() {
            return None;
        }
        Some(Left { value, tag: self.take_tag(place as usize) })
    }

    /// Ends the registration, and disposes of what no request uses. `requests`
    /// are those in flight. The tags of what was disposed of are left
    /// ([`tag_before`](Self::tag_before)).
    pub fn close<'a>(
        &mut self,
        requests: impl Iterator<Item = &'a mut What>,
        mut dispose: impl FnMut(T),
    ) {
        // Once through the requests and once through the places, however many
        // there are of both.
        let kind = self.kind;
        for request in requests.filter(|request| !request.detached(kind)) {
            let place = request.uses(kind) as usize;
            let entry = match self.places.get(place) {
                Some(&Place::Here(value)) => {
                    let entry = self.detach(value, place as u32);
                    self.places[place] = Place::Gone(entry);
                    entry
                }
                Some(&Place::Gone(entry)) => self.join(entry),
                None => continue,
            };
            request.detach(kind, entry);
        }
        // From the last to the first, as in Linux.
        for at in (0..self.len as usize).rev() {
            let place = core::mem::replace(&mut self.places[at], Place::empty());
            if let Place::Here(value) = place {
                dispose(value);
            }
        }
        self.len = 0;
    }

    /// Makes an entry for the resource of `place`, with its first user.
    fn detach(&mut self, value: T, place: u32) -> u32 {
        let entry = self.free;
        let detached = &mut self.detached[entry as usize];
        self.free = detached.users;
        *detached = Detached { value: Some(value), users: 1 };
        let tag = self.take_tag(place as usize);
        if tag != NONE {
            self.tags[self.places.len() + entry as usize] = tag;
        }
        entry
    }

    /// One more user for an entry.
    fn join(&mut self, entry: u32) -> u32 {
        self.detached[entry as usize].users += 1;
        entry
    }

    /// A request has ended. Some: it was the last on a detached resource,
    /// dispose of that.
    pub fn release(&mut self, request: What) -> Option<Left<T>> {
        if !request.detached(self.kind) {
            return None;
        }
        let entry = request.uses(self.kind);
        let detached = &mut self.detached[entry as usize];
        detached.users -= 1;
        if detached.users != 0 {
            return None;
        }
        detached.users = self.free;
        self.free = entry;
        let value = detached.value.take()?;
        Some(Left { value, tag: self.take_tag(self.places.len() + entry as usize) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Left by its last user, without a tag.
    fn left<T>(value: T) -> Option<Left<T>> {
        Some(Left { value, tag: NONE })
    }

    /// Requests on places, or on none.
    fn on<const N: usize>(places: [u32; N]) -> [What; N] {
        places.map(|place| What::new(4, place, 0))
    }

    #[test]
    fn a_removed_resource_lives_until_its_last_request() {
        let mut places = [Place::empty(); 2];
        let mut detached = [Detached::empty(); 3];
        let mut table = Table::new(Kind::Files, &mut places, &mut detached, &mut []);
        table.open(2);
        table.put(0, 'a');
        table.put(1, 'c');
        let mut requests = on([0, NONE, 0]);
        assert_eq!(table.clear(0, requests.iter_mut()), None, "two requests use it");
        assert_eq!(table.get(0), None);
        table.put(0, 'b');
        assert_eq!(requests.map(|r| r.detached(Kind::Files)), [true, false, true]);
        assert_eq!(table.release(requests[0]), None);
        assert_eq!(table.get(0), Some('b'), "the new one is nobody's business");
        assert_eq!(table.clear(0, requests.iter_mut()), left('b'), "they are on the old one");
        assert_eq!(table.release(requests[2]), left('a'));
        assert_eq!(table.clear(0, [].iter_mut()), None, "empty already");
        assert_eq!(table.clear(1, on([0, NONE]).iter_mut()), left('c'));
    }

    #[test]
    fn requests_never_exhaust_the_entries() {
        // 1 place, 2 requests: 2 entries.
        let mut places = [Place::empty(); 1];
        let mut detached = [Detached::empty(); 2];
        let mut table = Table::new(Kind::Files, &mut places, &mut detached, &mut []);
        table.open(1);
        let mut requests = on([NONE; 2]);
        for i in 0..2 {
            table.put(0, i);
            requests[i] = What::new(4, 0, 0);
            assert_eq!(table.clear(0, requests.iter_mut()), None);
        }
        table.put(0, 9);
        let mut disposed = [0; 3];
        let mut n = 0;
        table.close(requests.iter_mut(), |value| {
            disposed[n] = value;
            n += 1;
        });
        assert_eq!((n, disposed[0]), (1, 9));
        assert!(!table.registered());
        assert_eq!(table.release(requests[0]), left(0));
        assert_eq!(table.release(requests[1]), left(1));
    }

    #[test]
    fn a_table_closed_under_its_requests_goes_with_them() {
        let mut places = [Place::empty(); 4];
        let mut detached = [Detached::empty(); 5];
        let mut table = Table::new(Kind::Files, &mut places, &mut detached, &mut []);
        table.open(3);
        (0..3).for_each(|i| table.put(i, i));
        let mut requests = on([2, 0, 2, NONE, 2]);
        let mut disposed = 0;
        table.close(requests.iter_mut(), |value| disposed = 10 + value);
        assert_eq!(disposed, 11, "the one that nobody used");
        assert_eq!((table.len(), table.used()), (0, 0));
        table.open(1);
        table.put(0, 7);
        let ends = [0, 1, 2, 4].map(|i| table.release(requests[i]));
        assert_eq!(ends, [None, left(0), None, left(2)]);
        assert_eq!(table.get(0), Some(7));
    }

    #[test]
    fn a_tag_goes_with_its_resource() {
        let (mut places, mut detached) = ([Place::empty(); 3], [Detached::empty(); 4]);
        let mut tags = [NONE; 7];
        let mut table = Table::new(Kind::Files, &mut places, &mut detached, &mut tags);
        table.open(3);
        for place in 0..3 {
            table.put(place, place);
            table.set_tag(place, 10 + place);
        }
        let mut requests = on([0, 1, 1]);
        assert_eq!(table.clear(0, requests.iter_mut()), None, "still in use");
        table.put(0, 7);
        assert_eq!(table.release(requests[0]), Some(Left { value: 0, tag: 10 }));
        assert_eq!(table.clear(0, [].iter_mut()), left(7), "its successor has none");
        let mut disposed = 9;
        table.close(requests[1..].iter_mut(), |value| disposed = value);
        assert_eq!(disposed, 2);
        assert_eq!((table.tag_before(3), table.tag_before(2)), (Some((2, 12)), None));
        assert_eq!(table.release(requests[1]), None);
        assert_eq!(table.release(requests[2]), Some(Left { value: 1, tag: 11 }));
        assert_eq!(table.tag_before(3), None);
    }

    #[test]
    fn places_beyond_the_table_are_nobody() {
        let mut places = [Place::empty(); 4];
        let mut detached = [Detached::<u8>::empty(); 5];
        let mut table = Table::new(Kind::Files, &mut places, &mut detached, &mut []);
        assert!(table.get(0).is_none(), "nothing is registered");
        table.open(2);
        assert!(table.get(0).is_none(), "sparse");
        assert!(table.get(2).is_none());
        assert!(table.get(4).is_none());
        assert!(table.get(u32::MAX).is_none());
    }
}
