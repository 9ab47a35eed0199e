//! What the black-box and the native tests share.

// Tests stop at the first surprise; that is what these are for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod acquirer_ledger;
pub mod client;
pub mod grpc;
pub mod host;
pub mod loopback;
pub mod native;
pub mod postgres;
pub mod runners;
pub mod shop;
pub mod shoppers;
pub mod till;
