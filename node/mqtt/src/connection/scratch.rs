//! Buffers that belong to a thread, lent to whichever connection has its turn.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;

/// Most bytes one read takes. One such buffer per thread; more connections make it no bigger.
const READ_BYTES: usize = 64 * 1024;

/// A write buffer above this is given back to the allocator instead of the thread: one huge message must not stay.
const WRITE_KEEP_BYTES: usize = 256 * 1024;

thread_local! {
    static READ: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
    static WRITE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// The thread's read buffer, for the length of a call; a nested borrower gets one of its own.
pub(super) fn with_read<R>(run: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = READ
        .with(|read| read.borrow_mut().take())
        .unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice());
    let result = run(&mut buffer);
    READ.with(|read| *read.borrow_mut() = Some(buffer));
    result
}

/// Gives `buffer` the thread's memory if it has none of its own.
pub(super) fn lend_write(buffer: &mut BytesMut) {
    if buffer.capacity() == 0
        && let Some(lent) = WRITE.take()
    {
        *buffer = lent;
    }
}

/// Takes the memory back. What the socket has not taken moves into a buffer of its exact size.
pub(super) fn reclaim_write(buffer: &mut BytesMut, written: &mut usize) {
    let waiting = buffer.get(*written..).unwrap_or_default();
    let rest = if waiting.is_empty() {
        BytesMut::new()
    } else {
        BytesMut::from(waiting)
    };
    let mut thread_owned = std::mem::replace(buffer, rest);
    *written = 0;
    if thread_owned.capacity() <= WRITE_KEEP_BYTES {
        thread_owned.clear();
        WRITE.set(Some(thread_owned));
    }
}
