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
    /// User and group by the names of users.
    accounts: HashMap<String, (u32, u32)>,
    /// Group and the names of its members, by the names of groups.
    members: HashMap<String, (u32, Vec<String>)>,
}

/// A user with the groups that what runs as it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Other groups.
    pub groups: Vec<u32>,
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
        let mut parsed = Self { users: names(passwd), groups: names(group), ..Self::default() };
        for [name, _, uid, gid] in lines(passwd) {
            if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) {
                parsed.accounts.entry(name).or_insert((uid, gid));
            }
        }
        for [name, _, gid, members] in lines(group) {
            if let Ok(gid) = gid.parse() {
                let members = members.split(',').map(|member| member.trim().to_owned()).collect();
                parsed.members.entry(name).or_insert((gid, members));
            }
        }
        parsed
    }

    /// Returns the user that `name` names, or has as its number, as an account with its groups.
    pub fn account(&self, name: &str) -> Option<Account> {
        let by_number = || {
            let uid: u32 = name.parse().ok()?;
            self.accounts
                .iter()
                .find(|(_, (other, _))| *other == uid)
                .map(|(name, ids)| (name.as_str(), *ids))
        };
        let known = self.accounts.get_key_value(name).map(|(name, ids)| (name.as_str(), *ids));
        let (name, (uid, gid)) = known.or_else(by_number)?;
        let of = |(gid, members): &(u32, Vec<String>)| members.iter().any(|m| m == name).then_some(*gid);
        Some(Account { uid, gid, groups: self.members.values().filter_map(of).collect() })
    }

    /// Returns the number of the group that `name` names, or is.
    pub fn group_id(&self, name: &str) -> Option<u32> {
        self.members.get(name).map(|(gid, _)| *gid).or_else(|| name.parse().ok())
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

/// Returns the first four fields of lines of the form `a:b:c:d[:…]`.
fn lines(text: &[u8]) -> impl Iterator<Item = [String; 4]> {
    text.split(|&b| b == b'\n').filter_map(|line| {
        let mut fields =
            line.split(|&b| b == b':').map(|field| String::from_utf8_lossy(field).trim().to_owned());
        Some([fields.next().filter(|name| !name.is_empty())?, fields.next()?, fields.next()?, fields.next()?])
    })
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
        let etcd = Account { uid: 991, gid: 990, groups: Vec::new() };
        assert_eq!((users.account("etcd"), users.account("991")), (Some(etcd.clone()), Some(etcd)));
        assert_eq!(
            (users.account("broken"), users.account("5"), users.group_id("etcd")),
            (None, None, Some(990))
        );
        let member = Users::parse(b"a:x:7:7:", b"a:x:7:\nb:x:8:b, a\nc:x:9:aa");
        assert_eq!(member.account("a"), Some(Account { uid: 7, gid: 7, groups: vec![8] }));
    }

    #[test]
    fn a_root_without_passwd_has_no_names() {
        let directory = tempfile::tempdir().unwrap();
        let (users, errors) = Users::read(&Root::host(directory.path()).unwrap());
        assert_eq!((users.user(0), errors), (None, Vec::new()));
    }
}
