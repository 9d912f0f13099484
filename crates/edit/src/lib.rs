//! Edits of configuration files: text in, text out, nothing else touched.
//!
//! Every edit is a splice of the original text, so comments, blank lines, order, indentation and line endings
//! stay by construction. And every edit is verified: the new text is parsed again, and must be worth exactly
//! the old value plus the intended change, with every comment still there. If not, whatever the reason, the
//! edit is [`Refused`] and the file stays as it is. An error in here can cost a change, never a control plane.
//!
//! * [`manifest`]: arguments and host directories of a static pod.
//! * [`config`]: etcd's own configuration file.
//! * [`environment`]: environment files, as systemd and shells read them.
//! * [`mod@unit`]: the command line of a systemd service, by a drop-in.
//! * [`FileEdit`]: an edit of any of these, made or undone.
//! * [`Change`]: a file before and after, as a diff that shows no secret.

pub mod config;
pub mod environment;
pub mod manifest;
pub mod memory;
pub mod unit;

mod arguments;
mod change;
mod file;
mod merge;
mod shown;
mod values;
mod yaml;

pub use arguments::ArgumentEdit;
pub use change::{Change, Content};
pub use file::{FileEdit, Impossible, IsProgram, Read};

/// Why an edit is not made. The text never quotes a value of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// The reason, one sentence without a full stop.
    pub why: String,
}

impl Refused {
    pub(crate) fn because(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

/// Most bytes of a file that are edited.
pub const MAX_BYTES: usize = 1 << 20;

/// Returns `bytes` as text to be edited.
fn text(bytes: &[u8]) -> Result<&str, Refused> {
    if bytes.len() > MAX_BYTES {
        return Err(Refused::because(format!("the file has more than {} KiB", MAX_BYTES >> 10)));
    }
    std::str::from_utf8(bytes).map_err(|_| Refused::because("the file is not UTF-8"))
}

/// Returns how lines end in `text`: as its first one does.
fn line_ending(text: &str) -> &'static str {
    match text.find('\n').and_then(|at| text.get(..at)) {
        Some(line) if line.ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// Returns the offset at which the line of the byte at `at` begins.
fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

/// Returns the offset at which the line of the byte at `at` ends, before its line ending.
fn line_end(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    // A carriage return at the very end of the text ends no line.
    let ended = line.len() < rest.len();
    at + if ended { line.strip_suffix('\r').unwrap_or(line).len() } else { line.len() }
}

/// Returns `text` with the ranges replaced. They must not overlap.
fn splice(text: &str, mut changes: Vec<(std::ops::Range<usize>, String)>) -> Result<String, Refused> {
    changes.sort_by_key(|(range, _)| range.start);
    let mut spliced = String::with_capacity(text.len() + 256);
    let mut at = 0;
    for (range, new) in changes {
        let kept = text.get(at..range.start).filter(|_| range.start <= range.end);
        spliced.push_str(kept.ok_or_else(|| Refused::because("the place to edit cannot be told"))?);
        spliced.push_str(&new);
        at = range.end;
    }
    spliced.push_str(text.get(at..).ok_or_else(|| Refused::because("the place to edit cannot be told"))?);
    Ok(spliced)
}

/// Refuses values that no configuration line can hold.
fn printable(value: &str) -> Result<(), Refused> {
    match value.chars().any(char::is_control) {
        true => Err(Refused::because("the new value has control characters")),
        false => Ok(()),
    }
}

/// Returns how many of the words of two names (`peer-cert-file`, `ETCD_PEER_CERT_FILE`) are the same from the
/// beginning on.
fn kinship(one: &str, other: &str) -> usize {
    let words = |name| str::split(name, ['-', '_']);
    words(one).zip(words(other)).take_while(|(a, b)| a == b).count()
}
