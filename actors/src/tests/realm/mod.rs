//! Behaviour of the cluster's face: who is asked, what is applied once, and what becomes of those whose node is gone.

mod net;
mod phantoms;
mod presence;
mod routing;
mod schedule;
