//! An edit of a file of any of the kinds that are known here: how it is made, and how it is undone once others may have
//! changed the file as well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::merge::merge;
use crate::values::{self, Values};
use crate::{ArgumentEdit, Content, Refused, config, environment, manifest, unit};

/// Returns the content of a file, by its path; `None` when it is not there.
pub type Read<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// Returns whether an argument is the path of the program whose flags are meant.
pub type IsProgram<'a> = &'a dyn Fn(&[u8]) -> bool;

/// An edit of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FileEdit {
    /// A configuration file.
    Config {
        /// The changes.
        edits: Vec<config::Edit>,
    },
    /// A drop-in that replaces the command line of a systemd unit.
    DropIn {
        /// The unit and its drop-ins, in the order in which they apply.
        unit: Vec<String>,
        /// The changes of the command line.
        edits: Vec<ArgumentEdit>,
    },
    /// An environment file.
    Environment {
        /// The changes.
        edits: Vec<environment::Edit>,
    },
    /// A static pod manifest.
    Manifest {
        /// Name of the container.
        container: String,
        /// The changes.
        edits: Vec<manifest::Edit>,
    },
}

/// Why an edit cannot be undone in a file that was changed since.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Something that the edit set has another value by now. The text quotes no value.
    #[error("{} has another value than the edit gave it", .0.join(", "))]
    Changed(Vec<String>),
    /// The file, as it is now or was before, cannot be edited.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl FileEdit {
    /// Returns the content of the file at `path` with the edit made.
    ///
    /// # Errors
    ///
    /// When it cannot be made exactly.
    pub fn apply(&self, path: &str, read: Read<'_>, is_program: IsProgram<'_>) -> Result<Vec<u8>, Refused> {
        let content = || read(path).ok_or_else(|| Refused::because(format!("{path} was not read")));
        match self {
            Self::Config { edits } => config::apply(&content()?, edits),
            Self::DropIn { unit: files, edits } => {
                let files: Vec<Vec<u8>> = files.iter().filter_map(|file| read(file)).collect();
                replaced(&files, is_program, edits)
            }
            Self::Environment { edits } => environment::apply(&content()?, edits),
            Self::Manifest { container, edits } => manifest::apply(&content()?, container, is_program, edits),
        }
    }

    /// Returns what a person calls the settings that the edit changes: flags, keys, variables, mounts.
    pub fn settings(&self) -> Vec<String> {
        let variable = |edit: &environment::Edit| {
            let (environment::Edit::Remove { name } | environment::Edit::Set { name, .. }) = edit;
            name.clone()
        };
        match self {
            Self::Config { edits } => edits.iter().map(|edit| edit.key().to_owned()).collect(),
            Self::DropIn { edits, .. } => edits.iter().map(|edit| edit.flag().to_owned()).collect(),
            Self::Environment { edits } => edits.iter().map(variable).collect(),
            Self::Manifest { edits, .. } => edits
                .iter()
                .map(|edit| match edit {
                    manifest::Edit::Argument(edit) => edit.flag().to_owned(),
                    manifest::Edit::Mount(mount) | manifest::Edit::Unmount(mount) => mount.mount_path.clone(),
                    manifest::Edit::Variable(edit) => variable(edit),
                })
                .collect(),
        }
    }

    /// Returns the content of the file at `path` as it is `now` with this edit undone and everything else as it is: the
    /// values that the edit changed are as they were `before`. The files of a unit are read where they are now.
    ///
    /// Lines come back as they were written, where others did not change the very same ones meanwhile.
    ///
    /// # Errors
    ///
    /// [`Impossible`]: one of these values was changed since, or the file cannot be understood.
    pub fn undo(
        &self,
        path: &str,
        before: Option<&[u8]>,
        now: &[u8],
        read: Read<'_>,
        is_program: IsProgram<'_>,
    ) -> Result<Vec<u8>, Impossible> {
        let former = match (self, before) {
            (_, Some(before)) => before.to_owned(),
            // The drop-in was not there: the command line was that of the unit.
            (Self::DropIn { unit: files, .. }, None) => {
                let others = files.iter().filter(|file| *file != path).filter_map(|file| read(file));
                replaced(&others.collect::<Vec<_>>(), is_program, &[])?
            }
            (_, None) => return Err(Refused::because(format!("{path} was not there before")).into()),
        };
        let (was, is) = (self.values(&former, is_program)?, self.values(now, is_program)?);
        let written = self.again(path, &former, is_program)?;
        let set = self.values(&written, is_program)?;
        let changes = values::changes(&was, &set);
        let others: Vec<String> = changes
            .iter()
            .filter(|(key, _)| is.get(*key) != set.get(*key) && is.get(*key) != was.get(*key))
            .map(|(key, _)| values::name(key).to_owned())
            .collect();
        if !others.is_empty() {
            return Err(Impossible::Changed(others));
        }
        let wanted = values::with(&is, &changes);
        let is_wanted = |bytes: &[u8]| self.values(bytes, is_program).is_ok_and(|values| values == wanted);
        if let Some(merged) = merge(&written, now, &former).filter(|merged| is_wanted(merged)) {
            return Ok(merged);
        }
        let undone = self.inverse(&was, &set)?;
        let bytes = undone.again(path, now, is_program)?;
        match is_wanted(&bytes) {
            true => Ok(bytes),
            false => Err(Refused::because("undoing the edit would change more than it should").into()),
        }
    }

    /// Returns whether the content of a file has the values that the edit gives.
    ///
    /// # Errors
    ///
    /// When the file cannot be understood.
    pub fn is_made(&self, path: &str, now: &[u8], is_program: IsProgram<'_>) -> Result<bool, Refused> {
        let again = self.again(path, now, is_program)?;
        Ok(self.values(&again, is_program)? == self.values(now, is_program)?)
    }

    /// Returns `content`, that of the file itself, with the edit made; a drop-in is taken by itself.
    fn again(&self, path: &str, content: &[u8], is_program: IsProgram<'_>) -> Result<Vec<u8>, Refused> {
        match self {
            Self::DropIn { edits, .. } => replaced(&[content.to_owned()], is_program, edits),
            _ => self.apply(path, &|wanted| (wanted == path).then(|| content.to_owned()), is_program),
        }
    }

    /// Returns what the file holds.
    pub fn content(&self) -> Content {
        match self {
            Self::Config { .. } => Content::Config,
            Self::DropIn { .. } => Content::Unit,
            Self::Environment { .. } => Content::Environment,
            Self::Manifest { .. } => Content::Manifest,
        }
    }

    /// Returns what is in a file of this kind, value by value.
    fn values(&self, bytes: &[u8], is_program: IsProgram<'_>) -> Result<Values, Refused> {
        match self {
            Self::Config { .. } => config::values(bytes),
            Self::DropIn { .. } => unit::values(bytes, is_program),
            Self::Environment { .. } => environment::values(bytes),
            Self::Manifest { container, .. } => manifest::values(bytes, container, is_program),
        }
    }

    /// Returns the edit that leads from the values that this one `set` back to those that `was` there before.
    fn inverse(&self, was: &Values, set: &Values) -> Result<Self, Refused> {
        let once = |key: &str| match (
            was.contains_key(&format!("{key}#2")),
            set.contains_key(&format!("{key}#2")),
        ) {
            (false, false) => Ok(was.get(key).cloned()),
            _ => Err(Refused::because(format!("{} is given more than once", values::name(key)))),
        };
        let argument = |edit: &ArgumentEdit| {
            let flag = edit.flag().to_owned();
            Ok(match once(&values::flag(&flag))? {
                Some(value) => ArgumentEdit::Set { flag, value },
                None => ArgumentEdit::Remove { flag },
            })
        };
        let variable = |edit: &environment::Edit| {
            let (environment::Edit::Remove { name } | environment::Edit::Set { name, .. }) = edit;
            let name = name.clone();
            Ok(match once(&values::variable(&name))? {
                Some(value) => environment::Edit::Set { name, value },
                None => environment::Edit::Remove { name },
            })
        };
        Ok(match self {
            Self::Config { edits } => Self::Config {
                edits: edits.iter().rev().map(|edit| edit.inverse(was)).collect::<Result<_, Refused>>()?,
            },
            Self::DropIn { unit, edits } => Self::DropIn {
                unit: unit.clone(),
                edits: edits.iter().rev().map(argument).collect::<Result<_, Refused>>()?,
            },
            Self::Environment { edits } => {
                Self::Environment { edits: edits.iter().rev().map(variable).collect::<Result<_, Refused>>()? }
            }
            Self::Manifest { container, edits } => {
                let mut undone = Vec::new();
                for edit in edits.iter().rev() {
                    undone.push(match edit {
                        manifest::Edit::Argument(edit) => manifest::Edit::Argument(argument(edit)?),
                        manifest::Edit::Variable(edit) => manifest::Edit::Variable(variable(edit)?),
                        manifest::Edit::Mount(mount) => manifest::Edit::Unmount(mount.clone()),
                        manifest::Edit::Unmount(mount) => manifest::Edit::Mount(mount.clone()),
                    });
                }
                Self::Manifest { container: container.clone(), edits: undone }
            }
        })
    }
}

/// Returns the drop-in that replaces the command line in these files by one with the edits made.
fn replaced(
    files: &[Vec<u8>],
    is_program: IsProgram<'_>,
    edits: &[ArgumentEdit],
) -> Result<Vec<u8>, Refused> {
    let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    Ok(unit::drop_in(&unit::exec_start(&files)?, is_program, edits)?.into_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::manifest::Mount;

    const MANIFEST: &str = include_str!("../testdata/etcd.yaml");

    fn is_etcd(path: &[u8]) -> bool {
        path.ends_with(b"etcd")
    }

    fn set(flag: &str, value: &str) -> manifest::Edit {
        manifest::Edit::Argument(ArgumentEdit::Set { flag: flag.to_owned(), value: value.to_owned() })
    }

    fn in_manifest(edits: Vec<manifest::Edit>) -> FileEdit {
        FileEdit::Manifest { container: "etcd".to_owned(), edits }
    }

    /// Returns an edit that changes, adds and removes flags, adds a variable and mounts a folder.
    fn everything() -> FileEdit {
        let mount = Mount {
            name: "etcd-peer-pki".to_owned(),
            host_path: "/etc/etcd/peers".to_owned(),
            mount_path: "/etc/etcd/peers".to_owned(),
            kind: "Directory".to_owned(),
            read_only: true,
        };
        let variable =
            environment::Edit::Set { name: "SSL_CERT_FILE".to_owned(), value: "/roots".to_owned() };
        in_manifest(vec![
            set("initial-cluster", "m1=https://10.0.0.1:2380,m2=http://10.0.0.2:2380"),
            set("peer-cert-file", "/etc/etcd/peers/peer.crt"),
            manifest::Edit::Argument(ArgumentEdit::Remove { flag: "snapshot-count".to_owned() }),
            manifest::Edit::Mount(mount),
            manifest::Edit::Variable(variable),
        ])
    }

    fn made(edit: &FileEdit, path: &str, before: &str) -> String {
        let read = |wanted: &str| (wanted == path).then(|| before.as_bytes().to_vec());
        String::from_utf8(edit.apply(path, &read, &is_etcd).unwrap()).unwrap()
    }

    fn undone(edit: &FileEdit, path: &str, before: &str, now: &str) -> Result<String, Impossible> {
        let bytes = edit.undo(path, Some(before.as_bytes()), now.as_bytes(), &|_| None, &is_etcd)?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn an_edit_that_nobody_touched_is_undone_to_the_byte() {
        let edit = everything();
        let after = made(&edit, "/m", MANIFEST);
        assert_ne!(after, MANIFEST);
        assert_eq!(undone(&edit, "/m", MANIFEST, &after).unwrap(), MANIFEST);
        assert_eq!(undone(&edit, "/m", MANIFEST, MANIFEST).unwrap(), MANIFEST, "it was put back by hand");
    }

    #[test]
    fn what_others_changed_since_stays_and_nothing_else_does() {
        let edit = everything();
        let after = made(&edit, "/m", MANIFEST);
        let image = MANIFEST.lines().find(|l| l.trim_start().starts_with("image:")).unwrap();
        let peer = after.lines().find(|l| l.contains("--peer-cert-file")).unwrap();
        let indent = &peer[..peer.find('-').unwrap()];
        // An upgrade, a comment at the end, a flag right beside one of the edit, and a variable.
        let changes: [&dyn Fn(&str) -> String; 3] = [
            &|text: &str| text.replace(image, &format!("{image}-upgraded")),
            &|text: &str| format!("{text}# checked by jo\n"),
            &|text: &str| {
                let name = text.lines().find(|l| l.contains("- --name=")).unwrap();
                text.replace(name, &format!("{name}\n{indent}- --quota-backend-bytes=1"))
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            assert_eq!(undone(&edit, "/m", MANIFEST, &change(&after)).unwrap(), change(MANIFEST), "{index}");
        }
        // Somebody has written the same in another way.
        let quoted = peer.replace("--peer-cert-file", "\"--peer-cert-file").trim_end().to_owned() + "\"";
        let now = after.replace(peer, &format!("{quoted}\n{indent}- --quota-backend-bytes=1"));
        let text = undone(&edit, "/m", MANIFEST, &now).unwrap();
        let values = |text: &str| edit.values(text.as_bytes(), &is_etcd).unwrap();
        let mut wanted = values(MANIFEST);
        wanted.insert("flag:quota-backend-bytes".to_owned(), "1".to_owned());
        assert_eq!(values(&text), wanted);
    }

    #[test]
    fn what_others_changed_of_the_edit_itself_is_named_and_nothing_is_undone() {
        let edit = everything();
        let after = made(&edit, "/m", MANIFEST);
        let now = after.replace("/etc/etcd/peers/peer.crt", "/etc/etcd/peers/other.crt");
        let refused = undone(&edit, "/m", MANIFEST, &now).unwrap_err();
        assert_eq!(refused, Impossible::Changed(vec!["peer-cert-file".to_owned()]));
        assert!(!refused.to_string().contains("other.crt"), "{refused}");
        for broken in ["", "kind: Pod\n\tspec: {}\n", "kind: Service\n"] {
            assert!(matches!(undone(&edit, "/m", MANIFEST, broken), Err(Impossible::Refused(_))), "{broken}");
        }
    }

    #[test]
    fn configuration_and_environment_files_are_undone_as_well() {
        let section = Some("peer-transport-security".to_owned());
        let config = FileEdit::Config {
            edits: vec![
                config::Edit::Set {
                    section: section.clone(),
                    key: "cert-file".to_owned(),
                    value: config::Value::Text("/p.crt".to_owned()),
                },
                config::Edit::Set {
                    section: None,
                    key: "listen-peer-urls".to_owned(),
                    value: config::Value::Text("https://10.0.0.1:2380".to_owned()),
                },
            ],
        };
        let before = "name: m1 # why\nlisten-peer-urls: http://10.0.0.1:2380\n";
        let after = made(&config, "/c", before);
        assert_eq!(undone(&config, "/c", before, &after).unwrap(), before);
        let added = |text: &str| format!("{text}quota-backend-bytes: 1\n");
        let text = undone(&config, "/c", before, &added(&after)).unwrap();
        assert!(text.contains("quota-backend-bytes: 1") && text.contains("http://10.0.0.1:2380"), "{text}");
        assert!(!text.contains("cert-file"), "{text}");

        let environment = FileEdit::Environment {
            edits: vec![
                environment::Edit::Set { name: "ETCD_A".to_owned(), value: "2".to_owned() },
                environment::Edit::Set { name: "ETCD_C".to_owned(), value: "3".to_owned() },
            ],
        };
        let before = "# first\nETCD_A=\"1\"\nETCD_B=1\n";
        let after = made(&environment, "/e", before);
        assert_eq!(undone(&environment, "/e", before, &after).unwrap(), before);
        let others = |text: &str| text.replace("# first", "# second");
        assert_eq!(undone(&environment, "/e", before, &others(&after)).unwrap(), others(before));
        let changed = undone(&environment, "/e", before, &after.replace("ETCD_C=3", "ETCD_C=4"));
        assert_eq!(changed, Err(Impossible::Changed(vec!["ETCD_C".to_owned()])), "{after}");
    }

    #[test]
    fn a_drop_in_that_a_later_edit_changed_loses_the_earlier_one_only() {
        let unit = "[Service]\nExecStart=/usr/bin/etcd --name=m1 $ARGS\n";
        let edit = |flag: &str| FileEdit::DropIn {
            unit: vec!["/u".to_owned(), "/d".to_owned()],
            edits: vec![ArgumentEdit::Set { flag: flag.to_owned(), value: "x".to_owned() }],
        };
        let (first, second) = (edit("peer-cert-file"), edit("listen-peer-urls"));
        let files = BTreeMap::from([("/u".to_owned(), unit.as_bytes().to_vec())]);
        let one = first.apply("/d", &|path: &str| files.get(path).cloned(), &is_etcd).unwrap();
        let mut files = files;
        files.insert("/d".to_owned(), one.clone());
        let both = second.apply("/d", &|path: &str| files.get(path).cloned(), &is_etcd).unwrap();
        assert!(
            first.is_made("/d", &both, &is_etcd).unwrap() && !second.is_made("/d", &one, &is_etcd).unwrap()
        );
        // The second alone is undone to the byte, and the first is undone below the second.
        assert_eq!(
            second.undo("/d", Some(&one), &both, &|path: &str| files.get(path).cloned(), &is_etcd).unwrap(),
            one
        );
        let left = first.undo("/d", None, &both, &|path: &str| files.get(path).cloned(), &is_etcd).unwrap();
        let left = String::from_utf8(left).unwrap();
        assert!(left.contains("--listen-peer-urls=x") && !left.contains("peer-cert-file"), "{left}");
    }
}
