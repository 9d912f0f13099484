//! Names of users and groups from the node's own passwd and group files (passwd(5), group(5)).
//!
//! The name service of the machine that runs the audit is never asked: inside a container it knows other
//! users.

use std::collections::HashMap;

use seaworthy_evidence::{ErrorKind, EvidenceError};

use crate::root::Root;

/// Most bytes that are read of one of the two files.
const CAP: usize = 16 << 20;

/// The users and groups of a node.
#[derive(Clone, Debug, Default)]
pub struct Users {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Users {
    /// Returns the users and groups in `/etc/passwd` and `/etc/group` below `root`, with what could not be
    /// read.
    ///
    /// A file that does not exist is no error: a minimal system has none.
    pub fn read(root: &Root) -> (Self, Vec<EvidenceError>) {
        let mut errors = Vec::new();
        let mut read = |path| match root.read(path, CAP) {
            Ok(bytes) => bytes,
            Err(error) => {
                errors.extend((error.kind != ErrorKind::NotFound).then_some(error));
                Vec::new()
            }
        };
        (Self::parse(&read("/etc/passwd"), &read("/etc/group")), errors)
    }

    /// Returns the users in `passwd` and the groups in `group`. Lines of another form are ignored, and the
    /// first of several names of one id wins, as it does for the C library.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self { users: names(passwd), groups: names(group) }
    }

    /// Returns the name of user `uid`.
    pub fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(String::as_str)
    }

    /// Returns the name of group `gid`.
    pub fn group(&self, gid: u32) -> Option<&str> {
        self.groups.get(&gid).map(String::as_str)
    }
}

/// Returns the names by id in lines of the form `name:password:id[:…]`.
fn names(text: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in text.split(|&b| b == b'\n') {
        let mut fields = line.split(|&b| b == b':');
        let (Some(name), Some(_), Some(id)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let id = std::str::from_utf8(id).ok().and_then(|id| id.trim().parse().ok());
        if let (Some(id), false) = (id, name.is_empty()) {
            names.entry(id).or_insert_with(|| String::from_utf8_lossy(name).into_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_between_entries_is_ignored() {
        let passwd =
            b"root:x:0:0:root:/root:/bin/sh\n\n# comment\n+::::::\n::5:\nbroken\nbig:x:99999999999:1::\n\
            toor:x:0:0::/:/bin/sh\nn\xffme:x:7:7::/:\netcd:x:991:990::/var/lib/etcd:/sbin/nologin";
        let group = b"root:x:0:\nwheel:x:x:\netcd:x:990:a,b\r\nlast:x:12\r\n\0\0\0:::";
        let users = Users::parse(passwd, group);
        assert_eq!(users.user(0), Some("root"));
        assert_eq!(users.user(991), Some("etcd"));
        assert_eq!(users.user(7), Some("n\u{fffd}me"));
        assert_eq!(users.user(5), None);
        assert_eq!((users.group(990), users.group(12), users.group(1)), (Some("etcd"), Some("last"), None));
    }

    #[test]
    fn a_root_without_passwd_has_no_names() {
        let directory = tempfile::tempdir().unwrap();
        let (users, errors) = Users::read(&Root::host(directory.path()).unwrap());
        assert_eq!((users.user(0), errors), (None, Vec::new()));
    }
}
