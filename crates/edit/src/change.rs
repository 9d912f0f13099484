//! A file before and after an edit.

use similar::TextDiff;

use crate::memory::Memory;
use crate::shown::shown;

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
    /// A configuration file of etcd.
    Config,
    /// Variables.
    Environment,
    /// A static pod.
    Manifest,
    /// A private key, for example: nothing of it is shown.
    Secret,
    /// No secrets.
    Text,
    /// A unit of systemd, or a drop-in of one.
    Unit,
}

impl Change {
    /// Returns whether the file stays as it is.
    pub fn is_empty(&self) -> bool {
        self.before.as_ref() == Some(&self.after)
    }

    /// Returns a unified diff with three lines of context, in which values that may be secrets are hidden.
    /// It is for people: it cannot be applied where something is hidden.
    pub fn diff(&self) -> String {
        static DIFFS: Memory<String> = Memory::new();
        // What may be a secret is not kept.
        if self.content != Content::Manifest {
            return self.find_out_diff();
        }
        let (before, after) = (self.before.as_deref(), self.after.as_slice());
        let facts = format!("{:?} {} {:?}\n", self.content, self.path, before.map(<[u8]>::len));
        let key = [facts.as_bytes(), before.unwrap_or_default(), after].concat();
        DIFFS.recall(&key, || self.find_out_diff())
    }

    fn find_out_diff(&self) -> String {
        let before = self.before.as_ref().map(|bytes| self.shown(bytes)).unwrap_or_default();
        let after = self.shown(&self.after);
        let old = if self.before.is_some() { self.path.as_str() } else { "/dev/null" };
        let diff = TextDiff::from_lines(&before, &after);
        diff.unified_diff().context_radius(3).header(old, &self.path).to_string()
    }

    fn shown(&self, bytes: &[u8]) -> String {
        let shown = std::str::from_utf8(bytes).ok().and_then(|text| shown(text, self.content));
        shown.unwrap_or_else(|| format!("({} bytes that are not shown)\n", bytes.len()))
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
        let manifest = include_str!("../testdata/etcd.yaml")
            .replace("    - --name", "    - --initial-cluster-token=hunter2\n    # hunter2\n    - --name");
        let changed = manifest.replace("- --name=node-1", "- --name=node-2");
        let shown = diff(&manifest, &changed, Content::Manifest);
        assert!(shown.contains("-    - --name=node-1\n+    - --name=node-2\n"), "{shown}");
        assert!(shown.contains("     - --initial-cluster-token=<hidden>\n     # <hidden>\n"), "{shown}");
        assert!(shown.contains("     - --peer-key-file=/etc/kubernetes/pki/etcd/peer.key\n"), "{shown}");
        let shown = diff(&manifest, &manifest.replace("etcd:3.5.21-0", "etcd:3.5.22-0"), Content::Manifest);
        assert!(
            shown.contains("     - name: ETCD_UNSUPPORTED_ARCH\n       value: <hidden>\n-    image:"),
            "{shown}"
        );

        let environment = "# ETCD_OLD_PASSWORD=hunter2\nETCD_NAME=n\nPASSWORD=\"hunter2\nhunter2\"\n# hunter2\nETCD_DATA_DIR=1\n";
        let changed = environment.replace("DIR=1", "DIR=2");
        let shown = diff(environment, &changed, Content::Environment);
        assert!(shown.contains("-ETCD_DATA_DIR=1\n+ETCD_DATA_DIR=2\n"), "{shown}");
        assert!(shown.contains("PASSWORD=\"<hidden>\n"), "{shown}");

        let config = "# hunter2\nname: n # hunter2\ndata-dir: 1\ndiscovery: hunter2\nauth: {token: hunter2}\n\
                      peer-transport-security:\n  cert-file: a\n  pass: [hunter2]\n---\nhunter2: hunter2\n";
        let shown = diff(config, &config.replace("dir: 1", "dir: 2"), Content::Config);
        assert!(
            shown.contains(" name: n # <hidden>\n-data-dir: 1\n+data-dir: 2\n discovery: <hidden>\n"),
            "{shown}"
        );
        assert!(
            diff(config, &config.replace("file: a", "file: b"), Content::Config)
                .contains("+  cert-file: b\n")
        );

        let unit = "# hunter2\n[Service]\nEnvironment=TOKEN=hunter2 \\\n  B=hunter2\nExecStart=/usr/bin/etcd --name n \\\n  \
                    --password hunter2 '--data-dir=1' --token=hunter2 hunter2\n";
        let shown = diff(unit, &unit.replace("dir=1", "dir=2"), Content::Unit);
        assert!(shown.contains(" ExecStart=/usr/bin/etcd --name n \\\n"), "{shown}");
        assert!(
            shown.contains("+  --password <hidden> '--data-dir=2' --token=<hidden> <hidden>\n"),
            "{shown}"
        );

        let urls = "--listen-peer-urls=https://u:hunter2@h:1";
        let manifest = manifest.replace("- --listen-peer-urls=http://10.0.0.1:2380", &format!("- {urls}"));
        let shown = diff(&manifest, &manifest.replace("h:1", "h:2"), Content::Manifest);
        assert!(shown.contains("+    - --listen-peer-urls=https://***@h:2 # <hidden>\n"), "{shown}");

        for (content, text) in [
            (
                Content::Environment,
                "no assignment hunter2\nETCD_NAME=1\n#PASSWORD=hunter2\nexport TOKEN=hunter2\n",
            ),
            (Content::Secret, "hunter2"),
            (Content::Manifest, "kind: [hunter2\n"),
            (
                Content::Manifest,
                "kind: Pod\nspec:\n  containers:\n  - env:\n    - {name: X, value: \"hunter2\"}\n    - name: Y\n      value: |\n        hunter2\n        hunter2\n    image: x\n",
            ),
        ] {
            let shown =
                diff(text, &text.replace("NAME=1", "NAME=2").replace("image: x", "image: y"), content);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for content in [Content::Environment, Content::Config, Content::Manifest, Content::Unit] {
            for text in [environment, config, &manifest, unit] {
                assert!(!diff(text, "", content).contains("hunter2"), "{content:?}: {text}");
            }
        }
    }

    #[test]
    fn a_new_file_has_no_before() {
        let change =
            Change { path: "/f".into(), before: None, after: b"x\n".to_vec(), content: Content::Text };
        assert_eq!(change.diff(), "--- /dev/null\n+++ /f\n@@ -0,0 +1 @@\n+x\n");
    }
}
