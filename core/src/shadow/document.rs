//! The shadow of a device: document, version, and what is left of it after deletion.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Limits,
    error::ShadowError,
    merge::{Patch, merge},
    request::{SectionPatch, Update},
    tree::Object,
};
use crate::{
    json::{self, Json},
    time::Timestamp,
};

/// How long a deleted shadow's version is remembered, so that a shadow made anew counts on.
pub const TOMBSTONE_TTL: Duration = Duration::from_hours(48);

/// Desired or reported, with its JSON kept: it is sent, measured and stored more often than it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    tree: Object,
    json: Arc<str>,
}

impl Section {
    /// Wraps a section; an empty one does not exist.
    fn new(tree: Object) -> Option<Self> {
        if tree.is_empty() {
            return None;
        }
        let mut json = String::with_capacity(256);
        tree.write_state(&mut json);
        Some(Self {
            tree,
            json: json.into(),
        })
    }

    /// The values and their times.
    pub fn tree(&self) -> &Object {
        &self.tree
    }

    /// The values as JSON without whitespace.
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// The two sections of a shadow. A section without members does not exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// What the device shall become.
    pub desired: Option<Section>,
    /// What the device says it is.
    pub reported: Option<Section>,
}

impl Document {
    /// The bytes that count towards the size limit: both sections' values without whitespace.
    pub fn bytes(&self) -> usize {
        [&self.desired, &self.reported]
            .into_iter()
            .flatten()
            .map(|section| section.json.len())
            .sum()
    }

    /// What reported lacks of desired.
    pub fn delta(&self) -> Option<Object> {
        let reported = self.reported.as_ref().map(Section::tree);
        super::delta(self.desired.as_ref()?.tree(), reported)
    }

    fn patched(&self, update: &Update, limits: &Limits, at: u64) -> Result<Self, ShadowError> {
        let section = |current: &Option<Section>, patch| -> Result<Option<Section>, ShadowError> {
            Ok(match patch {
                SectionPatch::Keep => current.clone(),
                SectionPatch::Drop => None,
                SectionPatch::Merge(members) => {
                    let patch = Patch::check(members, limits.depth)?;
                    Section::new(merge(current.as_ref().map(Section::tree), patch, at))
                },
            })
        };
        Ok(Self {
            desired: section(&self.desired, update.desired())?,
            reported: section(&self.reported, update.reported())?,
        })
    }
}

/// A shadow in any state: never made (`default`), living, or deleted with its version remembered.
///
/// Cheap to clone. Law: *each accepted update adds one to the version*, also when it changes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shadow {
    version: u64,
    updated_at: Timestamp,
    document: Option<Document>,
}

impl Shadow {
    /// The document, if the shadow exists.
    pub fn document(&self) -> Option<&Document> {
        self.document.as_ref()
    }

    /// Whether there is a document.
    pub fn exists(&self) -> bool {
        self.document.is_some()
    }

    /// The version: of the document, of the tombstone, or 0.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the shadow was last updated or deleted.
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// Whether only a tombstone is left that nobody has to remember any more.
    pub fn is_forgotten(&self, now: Timestamp) -> bool {
        self.version > 0 && !self.exists() && now.since(self.updated_at) >= TOMBSTONE_TTL
    }

    /// The shadow after an update, if the update is allowed.
    pub(super) fn updated(
        &self,
        update: &Update,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<Self, ShadowError> {
        let counted = if self.is_forgotten(now) {
            0
        } else {
            self.version
        };
        // The patch is judged before the version: a malformed request is malformed whatever the version is.
        let empty = Document::default();
        let document =
            self.document
                .as_ref()
                .unwrap_or(&empty)
                .patched(update, limits, now.seconds())?;
        if update.version().is_some_and(|expected| expected != counted) {
            return Err(ShadowError::version_conflict());
        }
        if document.bytes() > limits.document_bytes {
            return Err(ShadowError::too_large());
        }
        let version = counted.saturating_add(1);
        Ok(Self {
            version,
            updated_at: now,
            document: Some(document),
        })
    }

    /// The tombstone that deletion leaves; deletion counts as a version of its own.
    pub(super) fn deleted(&self, now: Timestamp) -> Self {
        Self {
            version: self.version.saturating_add(1),
            updated_at: now,
            document: None,
        }
    }

    /// The form in which the shadow is kept.
    pub fn to_stored(&self) -> StoredShadow {
        let section = |section: &Section| {
            let mut stamps = Vec::new();
            section.tree.stamps(&mut stamps);
            StoredSection {
                state: section.json.as_ref().to_owned(),
                stamps,
            }
        };
        StoredShadow {
            version: self.version,
            updated_at: self.updated_at,
            document: self.document.as_ref().map(|document| StoredDocument {
                desired: document.desired.as_ref().map(section),
                reported: document.reported.as_ref().map(section),
            }),
        }
    }

    /// The shadow that was kept.
    pub fn from_stored(stored: &StoredShadow) -> Result<Self, StoredError> {
        let section = |stored: &Option<StoredSection>| {
            stored
                .as_ref()
                .map(StoredSection::restore)
                .transpose()
                .map(Option::flatten)
        };
        let document = match &stored.document {
            None => None,
            Some(document) => Some(Document {
                desired: section(&document.desired)?,
                reported: section(&document.reported)?,
            }),
        };
        Ok(Self {
            version: stored.version,
            updated_at: stored.updated_at,
            document,
        })
    }
}

/// A shadow as it is kept: texts and numbers only, so that any format can hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredShadow {
    /// Version of the document or the tombstone.
    pub version: u64,
    /// When it was updated or deleted.
    pub updated_at: Timestamp,
    /// `None` is a tombstone.
    pub document: Option<StoredDocument>,
}

/// A document as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDocument {
    /// What the device shall become.
    pub desired: Option<StoredSection>,
    /// What the device says it is.
    pub reported: Option<StoredSection>,
}

/// A section as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSection {
    /// The values, as JSON with sorted keys.
    pub state: String,
    /// When each scalar was set (seconds), in the order in which the scalars stand in `state`.
    pub stamps: Vec<u64>,
}

impl StoredSection {
    fn restore(&self) -> Result<Option<Section>, StoredError> {
        // What was accepted was bounded, and limits may have been lowered since: only syntax is checked here.
        let limits = json::JsonLimits {
            bytes: usize::MAX,
            depth: json::DEPTH_MAX,
            nodes: usize::MAX,
            key_bytes: usize::MAX,
        };
        let Json::Object(members) = json::read(self.state.as_bytes(), &limits)? else {
            return Err(StoredError::NotAnObject);
        };
        let mut stamps = self.stamps.iter().copied();
        let tree = Object::restore(&members, &mut stamps)?;
        if stamps.next().is_some() {
            return Err(StoredError::Stamps);
        }
        Ok(Section::new(tree))
    }
}

/// Why a stored shadow cannot be read: it is damaged, since everything stored was once accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoredError {
    /// The state is not JSON.
    #[error("stored section: {0}")]
    Json(#[from] json::JsonError),
    /// The state is JSON, but not an object.
    #[error("stored section is not an object")]
    NotAnObject,
    /// The state holds a null.
    #[error("stored section holds a null")]
    Null,
    /// There are more or fewer times than values.
    #[error("stored section has a different number of values and times")]
    Stamps,
}
