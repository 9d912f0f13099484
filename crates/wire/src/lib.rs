//! Connects to listeners and says what they really speak.
//!
//! A listener is asked twice, in plaintext and with TLS, because silence is ambiguous (a TLS listener closes a
//! plaintext connection without a word, and a plaintext etcd client port does the same to a TLS handshake) and because
//! one port can speak both. See [`probe`].
//!
//! Nothing here can act on what it asks: every request is one of the [`Question`]s, all of them `GET`; ALPN is never
//! offered, because etcd's peer listener negotiates `h2` and then does not speak it; a handshake that is not finished
//! is closed at once, because old releases of etcd keep it forever. etcd logs a line for each connection that is not
//! completed, with the address it came from.
//!
//! Everything is asked at the same time where that is possible.
//!
//! Answers are bytes of a stranger. Each is read up to a limit of bytes and of time, parsed without panics, and quoted
//! only as far as it is printable.

mod connection;
mod enumerate;
mod flight;
mod get;
mod hello;
mod http;
mod identity;
mod join;
mod observe;
mod probe;
mod registry;
mod tls;

pub use connection::{Options, Target};
pub use flight::{Alert, Flight, FlightError, ServerHello, parse_server_flight};
pub use get::{Security, get, lets_in};
pub use http::{HttpError, HttpResponse, Question, parse_response};
pub use identity::{ClientIdentity, IdentityError, Roots};
pub use observe::{Seen, observe};
pub use probe::{probe, served};
