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
