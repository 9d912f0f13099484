//! What a change of a node needs to be safe: atomic files, what they were before, and a durable record of what was done.
//!
//! * [`files`]: the only place that writes to the node: atomic replacements with preconditions, and pre-images.
//! * [`record`]: what was done, on disk before and after each step.
//!
//! It knows nothing of what is changed, or why. Architecture invariant: killed at any instant, no file is half-written; no
//! byte of a file in any message or `Debug` output.

pub mod files;
pub mod record;
