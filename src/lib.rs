//! Strata builds container images from declarative recipes: no daemon, no root needed.
//!
//! # The way data flows
//!
//! ```text
//! recipe text ─► Recipe ─► Graph ─► every node solved ─► Image ─► outputs
//!                recipe    graph    schedule  execute    image    export
//!                                     │  ▲
//!                                     ▼  │
//!             context  cache  store  layer  runtime  base  registry
//! ```
//!
//! [`build`] is the main path and the place to start reading: one short function that calls the modules below in the
//! order they are listed here. `ARCHITECTURE.md` tells the same story with its reasons.

pub mod digest;

pub mod diagnostic;

pub mod units;

pub mod limits;

pub mod progress;

pub mod recipe;

pub mod image;

pub mod graph;

pub mod settings;

pub mod secret;

pub mod store;

pub mod journal;

pub mod registry;

pub mod layer;

pub mod context;

pub mod check;

pub mod base;

pub mod fetch;

pub mod cache;

pub mod collection;

pub mod runtime;

pub mod execute;

pub mod fsck;

pub mod schedule;

pub mod export;

pub mod build;

pub mod cli;
