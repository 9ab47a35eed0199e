//! The messages of `proto/`, as Rust types.
//!
//! Written by hand, so that no build needs a protobuf compiler; a test compares them with the
//! `.proto` files, field by field.

pub mod compat;
pub mod descriptors;
pub mod health_v1;
pub mod payment_v1;
pub mod reflection_v1;
