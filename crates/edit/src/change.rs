//! A file before and after an edit.

use std::ops::Range;

use similar::TextDiff;

use crate::{environment, manifest};

/// A file before and after an edit.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: String,
    /// Its content now; `None` when it does not exist.
    pub before: Option<Vec<u8>>,
    /// Its content afterwards.
    pub after: Vec<u8>,
    /// What it holds, which decides what of it may be shown.
    pub content: Content,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Variables: only the values that may be shown are.
    Environment,
    /// A static pod: values of variables that may not be shown are hidden.
    Manifest,
    /// A private key, for example: nothing of it is shown.
    Secret,
    /// No secrets.
    Text,
}

const HIDDEN: &str = "<hidden>";

impl Change {
    /// Returns whether the file stays as it is.
    pub fn is_empty(&self) -> bool {
        self.before.as_ref() == Some(&self.after)
    }

    /// Returns a unified diff with three lines of context, in which values that may be secrets are hidden.
    /// It is for people: it cannot be applied where something is hidden.
    pub fn diff(&self) -> String {
        let before = self.before.as_ref().map(|bytes| self.shown(bytes)).unwrap_or_default();
        let after = self.shown(&self.after);
        let old = if self.before.is_some() { self.path.as_str() } else { "/dev/null" };
        let diff = TextDiff::from_lines(&before, &after);
        diff.unified_diff().context_radius(3).header(old, &self.path).to_string()
    }

    fn shown(&self, bytes: &[u8]) -> String {
        let nothing = || format!("({} bytes that are not shown)\n", bytes.len());
        let Ok(text) = std::str::from_utf8(bytes) else { return nothing() };
        match self.content {
            Content::Environment => hide(text, secret_variables(text)),
            Content::Manifest => manifest::secrets(text).map_or_else(|_| nothing(), |s| hide(text, s)),
            Content::Secret => nothing(),
            Content::Text => text.to_owned(),
        }
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Change")
            .field("path", &self.path)
            .field("before", &self.before.as_ref().map(Vec::len))
            .field("after", &self.after.len())
            .field("content", &self.content)
            .finish()
    }
}

/// Returns where values of variables that may not be shown are, also of those in comments. Lines that are
/// neither are hidden as a whole.
fn secret_variables(text: &str) -> Vec<Range<usize>> {
    let shown = |name: &str| seaworthy_collect::may_be_shown(name.as_bytes());
    let assignments = environment::assignments(text);
    let mut hidden = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let range = at..at + content.len();
        at += line.len();
        let assigned = assignments.iter().find(|a| a.raw.start <= range.end && range.start <= a.raw.end);
        let comment = content.trim_start().trim_start_matches(['#', ';']).trim_start();
        match (assigned, comment.split_once('=')) {
            (Some(a), _) if shown(&a.name) => {}
            (Some(a), _) => hidden.push(a.raw.start.max(range.start)..a.raw.end.min(range.end)),
            // A sentence, or a variable that somebody has commented out.
            (None, Some((name, value))) if !shown(name.trim()) => {
                hidden.push(range.end - value.len()..range.end)
            }
            (None, None) if !content.trim_start().starts_with(['#', ';']) => hidden.push(range),
            _ => {}
        }
    }
    hidden.retain(|range| !range.is_empty());
    hidden
}

/// Returns `text` with the ranges hidden, line by line.
fn hide(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_by_key(|range| range.start);
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        shown.push_str(text.get(at..range.start.max(at)).unwrap_or_default());
        let secret = text.get(range.start.max(at)..range.end).unwrap_or_default();
        // As many lines as before.
        shown.push_str(HIDDEN);
        shown.push_str(&"\n".repeat(secret.matches('\n').count()));
        at = range.end.max(at);
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(before: &str, after: &str, content: Content) -> String {
        let change = Change { path: "/f".into(), before: Some(before.into()), after: after.into(), content };
        assert!(!format!("{change:?}").contains("hunter2"));
        change.diff()
    }

    #[test]
    fn secrets_are_never_in_a_diff() {
        let manifest = include_str!("../testdata/etcd.yaml");
        let changed = manifest.replace("- --snapshot-count=10000", "- --snapshot-count=1");
        let shown = diff(manifest, &changed, Content::Manifest);
        assert!(shown.contains("-    - --snapshot-count=10000\n+    - --snapshot-count=1\n"), "{shown}");
        assert!(shown.contains("- name: BACKUP_PASSWORD\n       value: <hidden>"), "{shown}");

        let environment =
            "# ETCD_OLD_PASSWORD=hunter2\nETCD_NAME=n\nPASSWORD=\"hunter2\nhunter2\"\n# why\nETCD_A=1\n";
        let shown = diff(environment, &environment.replace("A=1", "A=2"), Content::Environment);
        assert!(shown.contains("-ETCD_A=1\n+ETCD_A=2\n") && shown.contains("# why"), "{shown}");
        assert!(shown.contains("PASSWORD=<hidden>"), "{shown}");

        for (content, text) in [
            (
                Content::Environment,
                "no assignment hunter2\nETCD_A=1\n#PASSWORD=hunter2\nexport TOKEN=hunter2\n",
            ),
            (Content::Secret, "hunter2"),
            (Content::Manifest, "kind: [hunter2\n"),
            (
                Content::Manifest,
                "kind: Pod\nspec:\n  containers:\n  - env:\n    - {name: X, value: \"hunter2\"}\n    - name: Y\n      value: |\n        hunter2\n        hunter2\n    image: x\n",
            ),
        ] {
            let shown = diff(text, &text.replace("A=1", "A=2").replace("image: x", "image: y"), content);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert!(!diff(environment, "", Content::Environment).contains("hunter2"));
    }

    #[test]
    fn a_new_file_has_no_before() {
        let change =
            Change { path: "/f".into(), before: None, after: b"x\n".to_vec(), content: Content::Text };
        assert_eq!(change.diff(), "--- /dev/null\n+++ /f\n@@ -0,0 +1 @@\n+x\n");
    }
}
