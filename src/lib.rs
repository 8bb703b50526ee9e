//! Strata builds container images from declarative recipes.

pub mod diagnostic;
pub mod digest;
pub mod graph;
pub mod image;
pub mod layer;
pub mod progress;
pub mod recipe;
pub mod registry;
pub mod runtime;
pub mod settings;
