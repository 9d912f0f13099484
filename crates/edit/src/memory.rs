//! What was found out about the texts that were looked at last.
//!
//! A plan asks dozens of times what the same file is worth, before and after each of its edits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How many texts are remembered, at most.
const TEXTS: usize = 512;
/// Bytes of the longest text that is remembered; a manifest has a few thousand.
const LONGEST: usize = 16 << 10;

/// What a function of a text returned for the texts that it was given last.
#[derive(Debug)]
pub struct Memory<T>(Mutex<BTreeMap<Vec<u8>, T>>);

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Memory<T> {
    /// Returns one that remembers nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Returns what `find_out` returns for this text.
    pub fn recall(&self, text: &[u8], find_out: impl FnOnce() -> T) -> T {
        if text.len() > LONGEST {
            return find_out();
        }
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(text) {
            return known.clone();
        }
        let found = find_out();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TEXTS {
            known.clear();
        }
        known.insert(text.to_vec(), found.clone());
        found
    }
}
