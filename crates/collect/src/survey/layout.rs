//! How the node is arranged: by the files that only nodes of one layout have.

use seaworthy_evidence::{ErrorKind, EvidenceError, NodeLayout, Observed, Origin};
use seaworthy_layouts::{ALL, Layout};

use super::Survey;

/// Returns the layout of the node: what the caller says, or the one whose signs are there.
pub(crate) fn of(survey: &Survey<'_>) -> Observed<NodeLayout> {
    let known = |layout: &Layout, why: String| NodeLayout {
        name: layout.name.to_owned(),
        control_plane: layout.control_plane.map(str::to_owned),
        why,
    };
    if let Some(layout) = survey.options.layout {
        let origin = Origin::derived("the command line");
        return Observed::seen(known(layout, format!("--layout {}", layout.name)), origin);
    }
    match signed(survey) {
        Err(error) => Observed::failed(error),
        Ok(signed) => match signed.as_slice() {
            [] => Observed::failed(unknown("nothing on this node tells how it is arranged")),
            [layout] => {
                let why = format!("{} is there", layout.signs.join(" and "));
                Observed::seen(
                    known(layout, why),
                    Origin::file(layout.signs.first().copied().unwrap_or_default()),
                )
            }
            several => {
                let names: Vec<_> = several.iter().map(|layout| layout.name).collect();
                Observed::failed(unknown(&format!(
                    "it has signs of {}: say which it is with --layout",
                    names.join(" and of ")
                )))
            }
        },
    }
}

/// Returns the layouts whose signs are all there.
fn signed(survey: &Survey<'_>) -> Result<Vec<&'static Layout>, EvidenceError> {
    let mut found = Vec::new();
    for layout in ALL.iter().filter(|layout| !layout.signs.is_empty()) {
        let mut all = true;
        for sign in layout.signs {
            match survey.root.stat(sign, survey.users) {
                Ok(_) => {}
                Err(error) if error.kind == ErrorKind::NotFound => all = false,
                Err(error) => return Err(error),
            }
        }
        if all {
            found.push(layout);
        }
    }
    Ok(found)
}

fn unknown(message: &str) -> EvidenceError {
    EvidenceError::new(ErrorKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use jiff::Timestamp;
    use seaworthy_host::root::Root;
    use seaworthy_host::users::Users;

    use super::*;
    use crate::survey::Options;

    /// Returns the layout of a node with these files, or why it is not known.
    fn layout(files: &[&str], said: Option<&str>) -> Result<(String, Option<String>), String> {
        let directory = tempfile::tempdir().unwrap();
        for path in files {
            let path = directory.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = Root::host(directory.path()).unwrap();
        let options = Options {
            root: directory.path().to_owned(),
            layout: said.and_then(seaworthy_layouts::named),
            wire: false,
            observe: None,
            timeout: Duration::from_secs(1),
            patience: Duration::ZERO,
            now: Timestamp::now(),
        };
        let users = Users::default();
        let found = of(&Survey { options: &options, root: &root, users: &users });
        let found = found.as_result().map_err(|error| error.message.clone())?;
        Ok((found.name.clone(), found.control_plane.clone()))
    }

    #[test]
    fn a_layout_is_known_by_its_files_or_by_the_operator() {
        let (kubeadm, eks) = ("/var/lib/kubelet/kubeadm-flags.env", "/etc/eks/bootstrap.sh");
        assert_eq!(layout(&[kubeadm], None), Ok(("kubeadm".to_owned(), None)));
        assert_eq!(layout(&[eks], None), Ok(("eks".to_owned(), Some("Amazon EKS".to_owned()))));
        assert!(layout(&[], None).unwrap_err().contains("nothing on this node tells"));
        let several = layout(&[kubeadm, eks], None).unwrap_err();
        assert!(several.contains("eks and of kubeadm") && several.contains("--layout"), "{several}");
        assert_eq!(layout(&[kubeadm, eks], Some("k3s")), Ok(("k3s".to_owned(), None)));
    }
}
