//! The identity service without its transport: users, passwords, tokens.
//!
//! Generic over ports. Must not know: HTTP, which host runs it, who will verify its tokens.

mod account;
mod passwords;
mod schema;
mod service;

pub use passwords::{Password, PasswordError, PasswordHash};
pub use schema::SCHEMA;
pub use service::{
    Attempt, Client, Identity, IdentityError, Issued, RegisterOutcome, Settings, Username, UsernameError,
};
