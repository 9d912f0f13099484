//! Changes a node safely.
//!
//! * [`edit`]: pure edits of configuration files, each verified.

pub mod edit;
