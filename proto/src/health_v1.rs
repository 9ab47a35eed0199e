//! `grpc.health.v1`, the health protocol of gRPC.
//! Source: github.com/grpc/grpc-proto, grpc/health/v1/health.proto.

use prost::{Enumeration, Message};

pub const SERVICE: &str = "grpc.health.v1.Health";

#[derive(Clone, PartialEq, Eq, Message)]
pub struct HealthCheckRequest {
    /// Empty: the whole server.
    #[prost(string, tag = "1")]
    pub service: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}
