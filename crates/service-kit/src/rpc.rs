//! Unary calls between services: gRPC, or Connect where a host has no HTTP/2 trailers. The
//! messages are the same protobuf.

use prost::Message;

#[cfg(feature = "p2")]
pub use crate::connect::call;
#[cfg(not(feature = "p2"))]
pub use crate::grpc::call;
use crate::http::{Call, Reply, SendError};
use crate::problem::Problem;
use crate::{connect, grpc};

/// How a unary call is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Connect,
}

impl Protocol {
    /// The protocol that a call's content type names.
    pub fn of(call: &Call) -> Option<Self> {
        if grpc::is_grpc(call) {
            return Some(Protocol::Grpc);
        }
        call.has_content_type(connect::CONTENT_TYPE).then_some(Protocol::Connect)
    }

    /// The message of a call.
    pub fn request<M: Message + Default>(self, call: &Call) -> Result<M, Problem> {
        match self {
            Protocol::Grpc => grpc::request(call),
            Protocol::Connect => connect::request(call),
        }
    }

    /// The answer to a call.
    pub fn reply(self, result: Result<impl Message, Problem>) -> Reply {
        match self {
            Protocol::Grpc => grpc::reply(result),
            Protocol::Connect => connect::reply(result),
        }
    }
}

/// A call that has no answer to rely on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was not carried out.
    #[error("not carried out: {0}")]
    NotSent(String),
    /// It may have been carried out.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// The service answered with an error; whether it had an effect depends on the code.
    #[error("answered with gRPC status {code}: {message}")]
    Refused { code: u8, message: String },
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::NotSent(reason) => CallError::NotSent(reason),
            SendError::OutcomeUnknown(reason) => CallError::OutcomeUnknown(reason),
        }
    }
}
