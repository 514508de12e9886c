//! Registered resources: files and buffers.
//!
//! A table of places; each names a *node* or none. A request holds the node,
//! not the place, so an update or a removal while it is in flight changes
//! nothing for it: the node goes when the place has let go of it *and* its
//! last request has ended. There are as many nodes as places and requests
//! together, so that no update can run out of them.

use crate::errno::Errno;

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

/// One resource and how many hold it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<T> {
    /// None while the node is on the free list.
    value: Option<T>,
    /// Requests in flight on it, plus one while a place names it.
    /// On the free list: the next free node.
    links: u32,
}

/// A table of registered resources.
pub(crate) struct Table<'m, T> {
    places: &'m mut [u32],
    nodes: &'m mut [Node<T>],
    free: u32,
    /// Places registered; 0 means that no table is registered.
    len: u32,
}

impl<T> Node<T> {
    pub const fn empty() -> Self {
        Self { value: None, links: NONE }
    }
}

impl<'m, T: Copy> Table<'m, T> {
    pub fn new(places: &'m mut [u32], nodes: &'m mut [Node<T>]) -> Self {
        let count = nodes.len() as u32;
        for (i, node) in nodes.iter_mut().enumerate() {
            let next = i as u32 + 1;
            *node = Node { value: None, links: if next < count { next } else { NONE } };
        }
        places.fill(NONE);
        Self { places, nodes, free: if count > 0 { 0 } else { NONE }, len: 0 }
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

    /// Places that name a resource.
    pub fn used(&self) -> u32 {
        self.places.iter().filter(|&&node| node != NONE).count() as u32
    }

    /// Registers a table of `len` empty places.
    pub fn open(&mut self, len: u32) {
        debug_assert!(!self.registered() && len <= self.capacity());
        self.len = len;
    }

    /// The node at a place, held for one more request.
    #[inline]
    pub fn hold(&mut self, place: u32) -> Option<(u32, T)> {
        if place >= self.len {
            return None;
        }
        let node = self.places[place as usize];
        let entry = self.nodes.get_mut(node as usize)?;
        entry.links += 1;
        entry.value.map(|value| (node, value))
    }

    /// What a node holds.
    #[cfg(test)]
    fn get(&self, node: u32) -> Option<T> {
        self.nodes.get(node as usize)?.value
    }

    /// Ends one request's hold. Some: that was the last, dispose of it.
    #[inline]
    pub fn release(&mut self, node: u32) -> Option<T> {
        let entry = &mut self.nodes[node as usize];
        entry.links -= 1;
        if entry.links != 0 {
            return None;
        }
        entry.links = self.free;
        self.free = node;
        entry.value.take()
    }

    /// Puts a resource at a place, which must be empty.
    ///
    /// # Errors
    /// `ENOMEM` if there is no node; by the table's size there always is.
    pub fn put(&mut self, place: u32, value: T) -> Result<(), Errno> {
        debug_assert!(place < self.len && self.places[place as usize] == NONE);
        let node = self.free;
        let entry = self.nodes.get_mut(node as usize).ok_or(Errno::ENOMEM)?;
        self.free = entry.links;
        *entry = Node { value: Some(value), links: 1 };
        self.places[place as usize] = node;
        Ok(())
    }

    /// Empties a place. Some: nobody uses the resource any more, dispose of it.
    pub fn clear(&mut self, place: u32) -> Option<T> {
        let node = core::mem::replace(&mut self.places[place as usize], NONE);
        if node == NONE { None } else { self.release(node) }
    }

    /// Ends the registration. Resources still in use go with their requests.
    pub fn close(&mut self, mut dispose: impl FnMut(T)) {
        for place in 0..self.len {
            if let Some(value) = self.clear(place) {
                dispose(value);
            }
        }
        self.len = 0;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_removed_resource_lives_until_its_last_request() {
        let mut places = [0; 2];
        let mut nodes = [const { Node::empty() }; 5];
        let mut table = Table::new(&mut places, &mut nodes);
        table.open(2);
        table.put(0, 'a').unwrap();
        let (first, _) = table.hold(0).unwrap();
        let (second, _) = table.hold(0).unwrap();
        assert_eq!(table.clear(0), None, "two requests hold it");
        table.put(0, 'b').unwrap();
        assert_eq!(table.get(first), Some('a'));
        assert_eq!(table.release(first), None);
        assert_eq!(table.release(second), Some('a'));
        assert_eq!(table.clear(0), Some('b'));
    }

    #[test]
    fn places_and_requests_never_exhaust_the_nodes() {
        // 1 place, 2 requests: 3 nodes.
        let mut places = [0; 1];
        let mut nodes = [const { Node::empty() }; 3];
        let mut table = Table::new(&mut places, &mut nodes);
        table.open(1);
        let mut held = [0; 2];
        for (i, hold) in held.iter_mut().enumerate() {
            table.put(0, i).unwrap();
            *hold = table.hold(0).unwrap().0;
            assert_eq!(table.clear(0), None);
        }
        table.put(0, 9).unwrap();
        let mut disposed = [0; 3];
        let mut n = 0;
        table.close(|value| {
            disposed[n] = value;
            n += 1;
        });
        assert_eq!((n, disposed[0]), (1, 9));
        assert!(!table.registered());
        assert_eq!(table.release(held[0]), Some(0));
        assert_eq!(table.release(held[1]), Some(1));
    }

    #[test]
    fn places_beyond_the_table_are_nobody() {
        let mut places = [0; 4];
        let mut nodes = [const { Node::<u8>::empty() }; 5];
        let mut table = Table::new(&mut places, &mut nodes);
        assert!(table.hold(0).is_none(), "nothing is registered");
        table.open(2);
        assert!(table.hold(0).is_none(), "sparse");
        assert!(table.hold(2).is_none());
        assert!(table.hold(u32::MAX).is_none());
    }
}
