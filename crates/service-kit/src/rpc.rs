//! Unary calls between services: gRPC over the wire; Connect in process, or where a host has no
//! HTTP/2 trailers. The messages are the same protobuf.

use http::Method;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use settle_ports::{CallContext, World};
use settle_types::{Currency, Money, MoneyError};

use crate::context::headers_of;
use crate::http::{Answer, Call, Outgoing, Reply, SendError, send};
use crate::problem::{Kind, Problem};
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

    /// The answer to a call that is refused.
    pub fn refuse(self, problem: &Problem) -> Reply {
        self.reply(Err::<(), _>(problem.clone()))
    }

    /// The answer to a call.
    pub fn reply(self, result: Result<impl Message, Problem>) -> Reply {
        match self {
            Protocol::Grpc => grpc::reply(result),
            Protocol::Connect => connect::reply(result),
        }
    }
}

/// Answers a unary call of the described system: gRPC, or JSON in the body of a POST.
pub async fn answer<Q, A, R>(call: &Call, handle: impl FnOnce(Q) -> R) -> Reply
where
    Q: Message + Default + DeserializeOwned,
    A: Message + Serialize,
    R: Future<Output = Result<A, Problem>>,
{
    let protocol = Protocol::of(call);
    let request = match protocol {
        Some(protocol) => protocol.request(call),
        None => call.json(),
    };
    let answered = match request {
        Ok(request) => handle(request).await,
        Err(problem) => Err(problem),
    };
    match (protocol, answered) {
        (Some(protocol), answered) => protocol.reply(answered),
        (None, Ok(answer)) => Reply::json(200, &answer),
        (None, Err(problem)) => refuse(call, &problem),
    }
}

/// A refusal of such a call, in its framing.
pub fn refuse(call: &Call, problem: &Problem) -> Reply {
    match Protocol::of(call) {
        Some(protocol) => protocol.refuse(problem),
        None => Reply::problem(problem, &call.context.correlation_id),
    }
}

/// An amount as the described system sends it, in major units.
pub fn amount_of(major: f64, currency: Currency) -> Result<Money, Problem> {
    let invalid = |error: MoneyError| Problem::new(Kind::InvalidField, format!("{error}."));
    // The shortest text that reads back as this number: what the client wrote, were it decimal.
    let money = Money::parse_major(&major.to_string(), currency).map_err(invalid)?;
    Money::positive(money.minor(), currency).map_err(invalid)
}

/// A method of another service: where it is, and with what token.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    pub origin: &'a str,
    pub path: &'a str,
    pub token: &'a str,
}

impl Remote<'_> {
    /// Whether trailers reach us from there, and we want them: in process they are one more wait.
    fn speaks_grpc(&self) -> bool {
        cfg!(not(feature = "p2")) && !self.origin.ends_with(".internal")
    }
}

/// Calls a unary method of another service.
pub async fn call<A: Message + Default>(
    remote: Remote<'_>,
    message: &impl Message,
    context: &CallContext,
    world: &impl World,
) -> Result<A, CallError> {
    if remote.speaks_grpc() {
        grpc::call(remote, message, context, world).await
    } else {
        connect::call(remote, message, context, world).await
    }
}

/// Posts a framed message; `own` are the protocol's own headers.
pub(crate) async fn post(
    remote: Remote<'_>,
    own: [(&str, &str); 2],
    body: Vec<u8>,
    context: &CallContext,
    world: &impl World,
) -> Result<Answer, SendError> {
    let timeout = context.remaining(world.now());
    let authorization = ("authorization", format!("Bearer {}", remote.token));
    let headers = own.into_iter().map(|(name, value)| (name, value.to_owned()));
    let headers = headers.chain([authorization]).chain(headers_of(context, timeout));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).collect();
    let Remote { origin, path, .. } = remote;
    send(Outgoing { method: Method::POST, origin, path, headers, body, timeout }).await
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
            SendError::Busy => CallError::NotSent(error.to_string()),
            SendError::OutcomeUnknown(reason) => CallError::OutcomeUnknown(reason),
        }
    }
}
