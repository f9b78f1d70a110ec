//! Retained messages still owed to a new subscription.
//!
//! A filter may match more retained messages than a queue holds. They are read in pages as the client takes them, so
//! that subscribing to `#` costs the broker a cursor and not a copy of everything.

use std::collections::VecDeque;

use umbel_core::topic::Filter;

use super::mailbox::Options;

/// Subscriptions whose retained messages are still to be read, in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Backfill {
    cursors: VecDeque<Cursor>,
}

/// How far the retained messages of one subscription were read.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub(crate) filter: Filter,
    pub(crate) options: Options,
    /// Resume behind this topic.
    pub(crate) after: Option<String>,
}

impl Backfill {
    /// A subscription was made, or made again: its retained messages are owed from the beginning.
    pub(crate) fn add(&mut self, filter: Filter, options: Options) {
        self.remove(&filter);
        self.cursors.push_back(Cursor {
            filter,
            options,
            after: None,
        });
    }

    /// The subscription is gone.
    pub(crate) fn remove(&mut self, filter: &Filter) {
        self.cursors.retain(|cursor| cursor.filter != *filter);
    }

    /// Where to read next.
    pub(crate) fn current(&self) -> Option<Cursor> {
        self.cursors.front().cloned()
    }

    /// A page of `cursor` was read; `resume` is where it ended, if it did not end.
    pub(crate) fn advance(&mut self, cursor: &Cursor, resume: Option<String>) {
        match self.cursors.front_mut() {
            Some(front) if front.filter == cursor.filter && front.after == cursor.after => {
                if resume.is_some() {
                    front.after = resume;
                } else {
                    self.cursors.pop_front();
                }
            },
            _ => {}, // unsubscribed or subscribed again meanwhile
        }
    }

    /// Whether nothing is owed.
    pub(crate) fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }
}
