//! What files were before they were changed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Attributes, Content, Expected, FileError, Replacement, Root, hex, sha256};

/// A store of pre-images in a directory that only its owner can read, far from any that kubelet watches.
#[derive(Debug)]
pub struct Preimages {
    root: Root,
    directory: PathBuf,
}

/// What a file was: enough to bring it back, but for its bytes, which may be secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preimage {
    /// The file.
    pub path: String,
    /// What was there; `None` when there was no file.
    pub file: Option<Facts>,
}

/// Facts about a file that was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes, names and values hexadecimal.
    extended: Vec<(String, String)>,
}

impl Preimages {
    /// Returns the store in `directory`, which must exist.
    ///
    /// # Errors
    ///
    /// As [`Root::open`].
    pub fn open(directory: &Path) -> Result<Self, FileError> {
        Ok(Self { root: Root::open(directory)?, directory: directory.to_owned() })
    }

    /// Stores what is at `path` below `root`, also that there is nothing, and returns its id. The same file in
    /// the same state has the same id.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or the store not be written.
    pub fn store(&self, root: &Root, path: &Path) -> Result<String, FileError> {
        let content = root.read(path)?;
        let file = content.as_ref().map(|content| Facts {
            sha256: content.sha256(),
            mode: content.mode,
            uid: content.uid,
            gid: content.gid,
            extended: content.extended.iter().map(|(name, value)| (hex(name), hex(value))).collect(),
        });
        let preimage = Preimage { path: path.to_string_lossy().into_owned(), file };
        let json =
            serde_json::to_vec_pretty(&preimage).map_err(|error| super::io_error(path, "record", error))?;
        let id = sha256(&json).get(..16).unwrap_or_default().to_owned();
        // The facts come last: where they are, the bytes are too.
        if let Some(content) = &content {
            self.write(&format!("{id}.bytes"), &content.bytes)?;
        }
        self.write(&format!("{id}.json"), &json)?;
        Ok(id)
    }

    /// Returns the facts of the pre-image `id`.
    ///
    /// # Errors
    ///
    /// [`FileError::Damaged`] when it is not there or not what was stored.
    pub fn load(&self, id: &str) -> Result<Preimage, FileError> {
        let shown: String = id.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        let damaged = || FileError::Damaged(self.directory.join(format!("{shown}.json")));
        if id.len() != 16 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(damaged());
        }
        let json = self.root.read(Path::new(&format!("{id}.json")))?.ok_or_else(damaged)?;
        match serde_json::from_slice(&json.bytes) {
            Ok(preimage) if sha256(&json.bytes).starts_with(id) => Ok(preimage),
            _ => Err(damaged()),
        }
    }

    /// Returns what a file was; `None` when there was none.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn content(&self, id: &str) -> Result<Option<Content>, FileError> {
        let Some(facts) = self.load(id)?.file else { return Ok(None) };
        let damaged = || FileError::Damaged(self.directory.join(format!("{id}.bytes")));
        let bytes = self.root.read(Path::new(&format!("{id}.bytes")))?.ok_or_else(damaged)?.bytes;
        let pair = |(name, value): &(String, String)| Some((unhex(name)?, unhex(value)?));
        let extended = facts.extended.iter().map(pair).collect::<Option<_>>().ok_or_else(damaged)?;
        match sha256(&bytes) == facts.sha256 {
            true => Ok(Some(Content { bytes, mode: facts.mode, uid: facts.uid, gid: facts.gid, extended })),
            false => Err(damaged()),
        }
    }

    /// Brings back the pre-image `id` below `root`, where now is what is `expected`. Returns whether anything
    /// had to be done.
    ///
    /// # Errors
    ///
    /// As [`Root::replace`] and [`Root::remove`], and [`FileError::Damaged`].
    pub fn restore(
        &self,
        id: &str,
        root: &Root,
        expected: &Expected,
        staging: Option<&Path>,
    ) -> Result<bool, FileError> {
        let preimage = self.load(id)?;
        let path = Path::new(&preimage.path);
        let Some(wanted) = self.content(id)? else { return root.remove(path, expected) };
        let target = root.target(path)?;
        root.put(&target, target.read()?.as_ref(), &wanted, expected, staging)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let path = Path::new(name);
        // Under this name there is either nothing, or the same.
        let attributes = Attributes::Set { mode: 0o600, uid, gid };
        self.root
            .replace(&Replacement { path, bytes, attributes, expected: &Expected::Absent, staging: None })
            .map(drop)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_file_comes_back_as_it_was() {
        let (node, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::open(node.path()).unwrap();
        let store = Preimages::open(state.path()).unwrap();
        let (path, real) = (Path::new("/key"), node.path().join("key"));
        let nothing = store.store(&root, path).unwrap();
        fs::write(&real, "secret").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        let id = store.store(&root, path).unwrap();
        assert_eq!(store.store(&root, path).unwrap(), id);
        assert_ne!(id, nothing);
        assert!(!format!("{:?}", store.load(&id).unwrap()).contains("secret"));
        for entry in fs::read_dir(state.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        }

        fs::write(&real, "changed").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        let changed = Expected::Content(sha256(b"changed"));
        assert!(matches!(store.restore(&id, &root, &Expected::Absent, None), Err(FileError::Changed(_))));
        assert!(store.restore(&id, &root, &changed, None).unwrap());
        assert_eq!(fs::read(&real).unwrap(), b"secret");
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
        assert!(!store.restore(&id, &root, &changed, None).unwrap(), "a second time");
        let now = Expected::of(root.read(path).unwrap().as_ref());
        assert!(store.restore(&nothing, &root, &now, None).unwrap());
        assert!(!real.exists());
        assert!(!store.restore(&nothing, &root, &now, None).unwrap());
        assert!(store.restore(&id, &root, &Expected::Absent, None).unwrap(), "and back again");
    }

    #[test]
    fn what_is_damaged_is_not_restored() {
        let (node, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::open(node.path()).unwrap();
        let store = Preimages::open(state.path()).unwrap();
        fs::write(node.path().join("f"), "x").unwrap();
        let id = store.store(&root, Path::new("f")).unwrap();
        fs::write(state.path().join(format!("{id}.bytes")), "y").unwrap();
        let now = Expected::Content(sha256(b"x"));
        assert!(matches!(store.restore(&id, &root, &now, None), Err(FileError::Damaged(_))));
        fs::write(state.path().join(format!("{id}.json")), "{}").unwrap();
        for id in [id.as_str(), "../../etc/passwd", "0123456789abcdef", ""] {
            assert!(matches!(store.load(id), Err(FileError::Damaged(_))), "{id}");
        }
    }
}
