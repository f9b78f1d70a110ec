//! What operators ask of the whole cluster, answered by any node: it asks every other one and puts the answers
//! together.

mod alone;
mod cuts;
mod elsewhere;
mod feed;
mod gather;
mod report;
mod service;
mod views;

pub(crate) use alone::Alone;
pub(crate) use cuts::Cuts;
pub(crate) use gather::{Council, Operations, Parts};
pub(crate) use service::{Answer, Ask, serve};
