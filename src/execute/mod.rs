//! One node of the graph becomes one layer.

pub mod copy;
pub mod mkdir;
pub mod owner;
pub mod stage;
