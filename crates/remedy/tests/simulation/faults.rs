//! What goes wrong in a cluster, and what others do to it meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::node::{MANIFEST, PKI, VERSION, below};
use crate::random::Random;

/// Something that happens to a node at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process of etcd dies.
    Crash(usize),
    /// The node is gone for so long: etcd dies, and nobody starts it.
    Outage(usize, Duration),
    /// All connections of a member end, and are made anew where that is possible.
    Reset(usize),
    /// Kubelet does nothing for so long.
    KubeletDown(usize, Duration),
    /// Kubelet is so much slower than usual.
    KubeletSlow(usize, u32),
    /// The clock of a node, or of all, is set by so many seconds.
    Clock(Option<usize>, i64),
    /// Somebody else edits the manifest.
    Edit(usize, Edit),
}

/// An edit of a manifest by other hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Another image.
    Image(u64),
    /// A flag beside those of a fix.
    Flag,
    /// A comment.
    Comment,
    /// The mode of the file.
    Mode(u32),
    /// Another value of a setting that a fix has given.
    Certificate,
}

/// The certificate that others name instead of the fix's: a copy.
const OTHER: &str = "other.crt";

impl Edit {
    pub(crate) fn random(random: &mut Random) -> Self {
        match random.below(9) {
            0..=2 => Self::Image(random.below(3)),
            3..=4 => Self::Flag,
            5..=6 => Self::Comment,
            7 => Self::Mode([0o600, 0o640, 0o644][random.index(3)]),
            _ => Self::Certificate,
        }
    }

    /// Returns a manifest with the edit made; `None` when there is nothing to edit.
    pub(crate) fn of(&self, text: &str) -> Option<String> {
        match self {
            Self::Image(number) => {
                replaced(text, "    image: ", |_| Some(format!("etcd:{VERSION}-{number}")))
            }
            Self::Flag => {
                let name = text.lines().find(|line| line.starts_with("    - --name="))?;
                let flag = "    - --heartbeat-interval=120";
                (!text.contains(flag)).then(|| text.replacen(name, &format!("{name}\n{flag}"), 1))
            }
            Self::Comment => Some(text.replacen("spec:\n", "# Looked at by hand.\nspec:\n", 1)),
            Self::Mode(_) => Some(text.to_owned()),
            Self::Certificate => replaced(text, "    - --peer-cert-file=", |path| {
                (!path.ends_with(OTHER)).then(|| format!("{PKI}/{OTHER}"))
            }),
        }
    }

    /// Makes the edit, and returns whether there was something to edit.
    pub(crate) fn make(&self, root: &Path) -> bool {
        let path = below(root, MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        let Some(edited) = self.of(&text) else { return false };
        if *self == Self::Certificate {
            let named = value(&text, "    - --peer-cert-file=").unwrap();
            let Ok(bytes) = fs::read(below(root, named)) else { return false };
            fs::write(below(root, &format!("{PKI}/{OTHER}")), bytes).unwrap();
        }
        let mode = match self {
            Self::Mode(mode) => *mode,
            _ => fs::metadata(&path).unwrap().permissions().mode(),
        };
        put(&path, &edited, mode);
        true
    }

    /// Gives a setting that was given another value the one of the fix again, of which this is a copy, or the file its `mode`.
    pub(crate) fn unmake(&self, root: &Path, mode: u32) {
        match self {
            Self::Certificate => {}
            Self::Mode(_) => {
                let mode = fs::Permissions::from_mode(mode);
                return fs::set_permissions(below(root, MANIFEST), mode).unwrap();
            }
            _ => return,
        }
        let path = below(root, MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        let copy = fs::read(below(root, &format!("{PKI}/{OTHER}"))).unwrap();
        let of_fix = fs::read_dir(below(root, PKI))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| !path.ends_with(OTHER) && fs::read(path).is_ok_and(|bytes| bytes == copy));
        let Some(name) = of_fix.as_ref().and_then(|path| path.file_name()?.to_str()) else { return };
        let back = replaced(&text, "    - --peer-cert-file=", |path| {
            path.ends_with(OTHER).then(|| format!("{PKI}/{name}"))
        });
        if let Some(back) = back {
            put(&path, &back, fs::metadata(&path).unwrap().permissions().mode());
        }
    }
}

fn value<'a>(text: &'a str, beginning: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(beginning))
}

/// Returns the text with the rest of the line that begins so replaced.
fn replaced(text: &str, beginning: &str, new: impl Fn(&str) -> Option<String>) -> Option<String> {
    let old = value(text, beginning)?;
    let new = new(old)?;
    (new != old).then(|| text.replacen(&format!("{beginning}{old}"), &format!("{beginning}{new}"), 1))
}

/// Replaces a file as an editor does, by a rename.
fn put(path: &Path, text: &str, mode: u32) {
    let new = path.parent().unwrap().join(".editing");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode & 0o7777)).unwrap();
    fs::rename(&new, path).unwrap();
}
