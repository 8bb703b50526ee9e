//! Strata builds container images from declarative recipes.

pub mod context;
pub mod diagnostic;
pub mod digest;
pub mod execute;
pub mod graph;
pub mod image;
pub mod layer;
pub mod progress;
pub mod recipe;
pub mod runtime;
