//! The relay's side of one open store on one stream, without socket, clock or disk.
//!
//! It begins when access was granted. Frames, the outcome of appends and parts of the log go in;
//! changes to append and frames to send come out.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::Arc;

use sds_engine::{Change, DecodeError, Patch, Version};
use sds_sync::{ClientFrame, Outbox, RefusalCode, RelayFrame};

use crate::limits::APPEND_BYTES_GOAL;
use crate::relay::Cursor;
use crate::store_log::Appended;

/// Why a stream ends before its client wants it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason as the protocol has it.
    pub code: RefusalCode,
    /// The reason for a person.
    pub message: &'static str,
}

impl Refusal {
    /// A refusal with its reason.
    #[must_use]
    pub const fn new(code: RefusalCode, message: &'static str) -> Self {
        Self { code, message }
    }

    /// The frame that says so.
    #[must_use]
    pub fn frame(self) -> RelayFrame {
        RelayFrame::refused(self.code, self.message)
    }
}

/// One open store, as the relay sees one of its clients.
#[derive(Debug)]
pub struct RelaySession {
    writable: bool,
    cursor: Cursor,
    opened: Option<RelayFrame>,
    outbox: Outbox,
    to_append: Vec<Change>,
    to_append_bytes: usize,
    stored: Version,
    refusal: Option<Refusal>,
    is_over: bool,
}

impl RelaySession {
    /// A session whose client stands at `cursor`, of a store of which the relay has `version`.
    #[must_use]
    pub fn new(version: &Version, writable: bool, cursor: Cursor) -> Self {
        let opened = RelayFrame::Opened { version: version.encode().into(), writable };
        Self {
            writable,
            cursor,
            opened: Some(opened),
            outbox: Outbox::new(),
            to_append: Vec::new(),
            to_append_bytes: 0,
            stored: Version::new(),
            refusal: None,
            is_over: false,
        }
    }

    /// Takes in a frame of the client.
    pub fn handle_frame(&mut self, frame: ClientFrame) {
        if self.is_over {
            return;
        }
        match frame {
            ClientFrame::Changes { patch } if self.writable => match Patch::decode(&patch) {
                Ok(patch) => self.take_changes(patch.into_changes()),
                Err(DecodeError::FormatTooNew { .. } | DecodeError::OpTooNew { .. }) => {
                    let message = "the change is newer than this relay";
                    self.refuse(Refusal::new(RefusalCode::TooNew, message));
                }
                Err(_) => {
                    let message = "the patch is not well formed";
                    self.refuse(Refusal::new(RefusalCode::Malformed, message));
                }
            },
            ClientFrame::Changes { .. } => {
                self.refuse(Refusal::new(RefusalCode::ReadOnly, "the token is read-only"));
            }
            ClientFrame::Bye => self.is_over = true,
            _ => {
                let message = "the frame has no place in an open store";
                self.refuse(Refusal::new(RefusalCode::Unexpected, message));
            }
        }
    }

    /// Takes in what became of the changes that [`poll_append`](Self::poll_append) gave.
    pub fn handle_appended(&mut self, appended: &Appended) {
        self.stored.merge(&appended.stored);
        let message = match appended.refused {
            None => return,
            Some(RefusalCode::Forked) => "another change with this id is known",
            Some(_) => "the change builds on others that were not sent",
        };
        let code = appended.refused.unwrap_or(RefusalCode::Malformed);
        self.refuse(Refusal::new(code, message));
    }

    /// Takes in the part of the log at position `from`.
    pub fn handle_log(&mut self, from: u64, changes: Vec<Arc<[u8]>>) {
        for (header, change) in self.cursor.pass(from, changes) {
            self.outbox.push(&header, change);
        }
    }

    /// Ends the session; what was acknowledged is still said.
    pub fn refuse(&mut self, refusal: Refusal) {
        if self.refusal.is_none() {
            self.refusal = Some(refusal);
        }
        self.to_append.clear();
        self.is_over = true;
    }

    /// Changes to append now; the outcome is awaited before there are more.
    pub fn poll_append(&mut self) -> Option<Vec<Change>> {
        self.to_append_bytes = 0;
        let changes = std::mem::take(&mut self.to_append);
        if changes.is_empty() { None } else { Some(changes) }
    }

    /// The next frame to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<RelayFrame> {
        if let Some(opened) = self.opened.take() {
            return Some(opened);
        }
        if !self.stored.is_empty() {
            let version = std::mem::take(&mut self.stored).encode();
            return Some(RelayFrame::Stored { version: version.into() });
        }
        if self.is_over {
            return self.refusal.take().map(Refusal::frame);
        }
        // What a client was sent need not be remembered: its cursor has passed it.
        let patch = self.outbox.next_patch(&mut Version::new())?;
        Some(RelayFrame::Changes { patch })
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has a frame.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        self.opened.is_some()
            || !self.stored.is_empty()
            || self.refusal.is_some()
            || (!self.is_over && !self.outbox.is_empty())
    }

    /// Where the client stands, if it can take more of the log now.
    #[must_use]
    pub fn wants_log(&self) -> Option<&Cursor> {
        if self.is_over || !self.outbox.is_empty() { None } else { Some(&self.cursor) }
    }

    /// Whether more frames can be taken in before the next append.
    #[must_use]
    pub const fn wants_frames(&self) -> bool {
        !self.is_over && self.to_append_bytes < APPEND_BYTES_GOAL
    }

    /// Whether the session has ended, but for frames that are still to be sent.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    fn take_changes(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.cursor.note_sent(change.header());
            self.to_append_bytes += change.bytes().len();
            self.to_append.push(change);
        }
    }
}
