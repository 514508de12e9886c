//! Memory that a ring has for a time.

use std::ptr::NonNull;

/// What a ring borrows for as long as it is there.
pub struct Lent<T>(NonNull<[T]>);

impl<T> Lent<T> {
    pub fn new(items: impl IntoIterator<Item = T>) -> Self {
        let items: Box<[T]> = items.into_iter().collect();
        Self(NonNull::from(Box::leak(items)))
    }

    /// # Safety
    /// Once, and it is not used any more when this is dropped.
    pub unsafe fn lend(&self) -> &'static mut [T] {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0.as_ptr() }
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: of a box (`new`), and given back (`lend`).
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
