//! The files in and below a folder.

use std::collections::BTreeSet;

use seaworthy_evidence::{ErrorKind, EvidenceError};
use seaworthy_host::root::Root;

/// Most files and folders that are looked at.
const MAX_FILES: usize = 1000;
/// How deep folders may be in each other.
const MAX_DEPTH: usize = 8;

/// Returns the paths of `folder` and of everything in and below it, where links to folders are followed inside the root and
/// each folder is looked at once; nothing when there is no such folder.
///
/// # Errors
///
/// When a folder could not be read, and `TooLarge` when there are too many or they are too deep: a part is not everything.
pub(crate) fn walk(root: &Root, folder: &str) -> Result<Vec<String>, EvidenceError> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let too = |much: String| {
            let message = format!("{much}, and not all of it was looked at");
            root.fail(folder.as_ref(), ErrorKind::TooLarge, message)
        };
        let identity = match root.identity(&folder) {
            Ok(identity) => identity,
            // A link that leads nowhere, or a folder that is not there any more.
            Err(error) if error.kind == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let names = match root.list(&folder, MAX_FILES) {
            // It is no folder.
            Err(error) if error.kind == ErrorKind::NotFound && depth > 0 => {
                found.push(folder);
                continue;
            }
            Err(error) if error.kind == ErrorKind::NotFound => continue,
            listed => listed?,
        };
        if !seen.insert(identity) {
            continue;
        }
        if depth == MAX_DEPTH && !names.is_empty() {
            return Err(too(format!("folders are more than {MAX_DEPTH} deep")));
        }
        if found.len() + folders.len() + names.len() > MAX_FILES {
            return Err(too(format!("there are more than {MAX_FILES} files")));
        }
        let inside = names.iter().map(|name| (format!("{folder}/{}", name.to_string_lossy()), depth + 1));
        folders.extend(inside);
        found.push(folder);
    }
    Ok(found)
}

/// Returns the files in and below `folder`, by their paths below it, in the order in which Go's `filepath.WalkDir` comes to them.
///
/// # Errors
///
/// As [`walk`] does, and `NotFound` when there is no such folder.
pub(crate) fn files(root: &Root, folder: &str) -> Result<Vec<String>, EvidenceError> {
    root.directory(folder)?;
    let below = |path: String| Some(path.strip_prefix(folder)?.trim_start_matches('/').to_owned());
    let found = walk(root, folder)?.into_iter().filter(|path| root.directory(path).is_err());
    let mut found: Vec<String> = found.filter_map(below).collect();
    found.sort_by(|a, b| a.split('/').cmp(b.split('/')));
    Ok(found)
}
