//! What a component makes of what it is given: its settings by its own precedence.
//!
//! Architecture invariant: no I/O, and no component by name but for the variables that may be shown.

mod input;
pub mod pflag;
mod resolved;
pub mod tls;

pub use input::{Argument, ConfigText, Variable, may_be_shown};
pub use resolved::{Given, Resolved, no_list};
