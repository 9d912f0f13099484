//! What Seaworthy found, in every output format.
//!
//! Machine formats go through their own versioned types ([`json`]), never by dumping internals, so that a refactoring
//! cannot change what scripts read. Terminal formats return text with ANSI styles; the caller strips them where the
//! output is no terminal.
//!
//! Architecture invariant: no I/O. Everything that came from a node is shown through [`style::plain`], so that an argv
//! with escape sequences cannot take over a terminal.

pub mod certificates;
mod document;
pub mod explain;
pub mod fix;
pub mod json;
pub mod list;
pub mod plan;
pub mod probe;
mod style;
pub mod text;

pub use document::document;
pub use style::{MAX_WIDTH, MIN_WIDTH};
