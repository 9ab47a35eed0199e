//! Problem details (RFC 9457): the one shape in which a request is refused.

use std::time::Duration;

/// Status codes of the gRPC protocol that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Every kind of problem that a client can meet. `docs/problems.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MalformedRequest,
    InvalidField,
    MissingIdempotencyKey,
    Unauthenticated,
    WrongCredentials,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    IllegalTransition,
    AlreadyExists,
    BodyTooLarge,
    UnsupportedMediaType,
    IdempotencyKeyReused,
    RefundExceedsCaptured,
    TooManyRequests,
    Internal,
    Unavailable,
    OutcomeUnknown,
}

impl Kind {
    pub const ALL: [Kind; 18] = [
        Kind::MalformedRequest,
        Kind::InvalidField,
        Kind::MissingIdempotencyKey,
        Kind::Unauthenticated,
        Kind::WrongCredentials,
        Kind::Forbidden,
        Kind::NotFound,
        Kind::MethodNotAllowed,
        Kind::IllegalTransition,
        Kind::AlreadyExists,
        Kind::BodyTooLarge,
        Kind::UnsupportedMediaType,
        Kind::IdempotencyKeyReused,
        Kind::RefundExceedsCaptured,
        Kind::TooManyRequests,
        Kind::Internal,
        Kind::Unavailable,
        Kind::OutcomeUnknown,
    ];

    /// Name in the `type` URN, HTTP status, title, gRPC code.
    fn describe(self) -> (&'static str, u16, &'static str, Code) {
        match self {
            Kind::MalformedRequest => {
                ("malformed-request", 400, "The request cannot be read", Code::InvalidArgument)
            }
            Kind::InvalidField => ("invalid-field", 422, "A field breaks a rule", Code::InvalidArgument),
            Kind::MissingIdempotencyKey => {
                ("missing-idempotency-key", 400, "Idempotency-Key is required", Code::InvalidArgument)
            }
            Kind::Unauthenticated => {
                ("unauthenticated", 401, "A valid token is required", Code::Unauthenticated)
            }
            Kind::WrongCredentials => ("wrong-credentials", 401, "Wrong credentials", Code::Unauthenticated),
            Kind::Forbidden => ("forbidden", 403, "Not allowed", Code::PermissionDenied),
            Kind::NotFound => ("not-found", 404, "Not found", Code::NotFound),
            Kind::MethodNotAllowed => ("method-not-allowed", 405, "Method not allowed", Code::Unimplemented),
            Kind::IllegalTransition => {
                ("illegal-transition", 409, "The state does not allow this", Code::FailedPrecondition)
            }
            Kind::AlreadyExists => ("already-exists", 409, "It exists already", Code::AlreadyExists),
            Kind::BodyTooLarge => {
                ("body-too-large", 413, "The body is over the limit", Code::ResourceExhausted)
            }
            Kind::UnsupportedMediaType => {
                ("unsupported-media-type", 415, "Unsupported content type", Code::InvalidArgument)
            }
            Kind::IdempotencyKeyReused => (
                "idempotency-key-reused",
                422,
                "The key was used with another request",
                Code::InvalidArgument,
            ),
            Kind::RefundExceedsCaptured => {
                ("refund-exceeds-captured", 422, "More than is left of the payment", Code::FailedPrecondition)
            }
            Kind::TooManyRequests => ("too-many-requests", 429, "Too many requests", Code::ResourceExhausted),
            Kind::Internal => ("internal", 500, "Something went wrong here", Code::Internal),
            Kind::Unavailable => ("unavailable", 503, "Temporarily unavailable", Code::Unavailable),
            Kind::OutcomeUnknown => {
                ("outcome-unknown", 503, "The outcome is not known yet; repeat the request", Code::Unknown)
            }
        }
    }

    pub fn name(self) -> &'static str {
        self.describe().0
    }

    pub fn status(self) -> u16 {
        self.describe().1
    }

    pub fn title(self) -> &'static str {
        self.describe().2
    }

    pub fn code(self) -> Code {
        self.describe().3
    }
}

/// One refusal. `detail` is for the client: it never names an internal cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: Kind,
    pub detail: String,
    pub retry_after: Option<Duration>,
    /// Methods that the path does have.
    pub allow: Option<&'static str>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None, allow: None }
    }

    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut problem = Self::new(Kind::MethodNotAllowed, format!("This path allows {allow}."));
        problem.allow = Some(allow);
        problem
    }

    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, "There is nothing here for you.")
    }
}
