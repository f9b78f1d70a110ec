//! The one thread that reads entries from the log's files.
//!
//! raft-engine keeps the last block it read in a thread-local that does not know which engine the block came from. Two
//! logs in one process, as tests of a cluster have them, would read each other's entries. So each log reads on a
//! thread of its own; most reads do not come here, because recent entries are in memory.

use std::{
    io,
    ops::Range,
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
};

use bytes::Bytes;

use super::{GroupId, queue::Shared};

/// Reads that may wait; more wait outside.
const WAITING_MAX: usize = 64;

type Answer = Result<Vec<(u64, Bytes)>, String>;

struct Question {
    group: GroupId,
    range: Range<u64>,
    bytes_max: usize,
    answer: mpsc::SyncSender<Answer>,
}

/// The way to the thread.
pub(super) struct Reader(mpsc::SyncSender<Question>);

impl Reader {
    /// Starts the thread, which ends when the reader is dropped.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::sync_channel::<Question>(WAITING_MAX);
        let thread = Builder::new()
            .name("log-reader".to_owned())
            .spawn(move || {
                for Question {
                    group,
                    range,
                    bytes_max,
                    answer,
                } in receiver
                {
                    if answer
                        .send(shared.disk.fetch(group, range, bytes_max))
                        .is_err()
                    {
                        tracing::debug!("whoever asked for entries no longer waits");
                    }
                }
            })?;
        Ok((Self(sender), thread))
    }

    /// Entries of a range that exists on disk.
    pub(super) fn fetch(&self, group: GroupId, range: Range<u64>, bytes_max: usize) -> Answer {
        let (answer, receiver) = mpsc::sync_channel(1);
        let gone = || "the reader of the log has ended".to_owned();
        self.0
            .send(Question {
                group,
                range,
                bytes_max,
                answer,
            })
            .map_err(|mpsc::SendError(_)| gone())?;
        receiver.recv().map_err(|mpsc::RecvError| gone())?
    }
}
