//! One node of the graph becomes one layer.
