//! `rmqtt-codec`; nothing outside this folder knows it.
//!
//! Frames come here after [`super::validate`] has judged them, so an error of the library is a difference of opinion:
//! it is reported as malformed, never trusted to be something else.

mod read;
mod write;

use std::num::NonZeroU16;

pub(super) use self::{read::decode, write::encode};

const RECEIVE_MAXIMUM_DEFAULT: NonZeroU16 = NonZeroU16::MAX;
