//! What a person types to do by hand what the steps of a plan would do: for a fix that stopped.

use std::path::Path;

use seaworthy_edit::{ArgumentEdit, FileEdit, config, environment, manifest};

use crate::history::Fix;
use crate::plan::{Action, Plan, RestartedBy};

/// Returns the commands and edits of the steps of `plan` that `done` is not said to have done, in order.
///
/// `etcdctl` is the command with its endpoints and certificates, `state` the directory of the records.
pub fn commands(plan: &Plan, done: Option<&Fix>, etcdctl: &str, state: &Path) -> Vec<String> {
    let is_done = |index: usize| done.is_some_and(|fix| fix.record.is_after(&Fix::step_name(index)));
    let left = plan.steps.iter().enumerate().filter(|(index, _)| !is_done(*index));
    left.flat_map(|(_, step)| command(&step.action, step.diff.as_deref(), &plan.state.member, etcdctl, state))
        .collect()
}

fn command(action: &Action, diff: Option<&str>, member: &str, etcdctl: &str, state: &Path) -> Vec<String> {
    match action {
        Action::Bundle { path, of, .. } => vec![format!("cat {} > {path}", of.join(" "))],
        Action::CreateAuthority { certificate, .. } | Action::Issue { certificate, .. } => {
            vec![format!("issue {certificate} again, with its key")]
        }
        Action::Edit { path, change, .. } => {
            vec![format!("in {path}: {}", described(change).join("; "))]
        }
        Action::MoveLeader { to } => {
            let to = to.first().map_or("ID", String::as_str);
            vec![format!("if {member} leads: {etcdctl} move-leader {to}")]
        }
        Action::Request { request, .. } => vec![format!("make {request} again, with its key")],
        Action::Restart { by, .. } => match by {
            RestartedBy::Kubelet => Vec::new(),
            RestartedBy::KubeletAfterEnd { pid } => vec![format!("kill {pid}")],
            RestartedBy::Systemd { unit } => {
                vec!["systemctl daemon-reload".to_owned(), format!("systemctl restart {unit}")]
            }
        },
        Action::Restore { path, after: None, .. } => vec![format!("rm {path}")],
        Action::Restore { path, preimage, .. } => {
            let from = state.join(format!("fix-{}/preimages/{}.bytes", preimage.fix, preimage.id));
            vec![format!("cat {} > {path}", from.display())]
        }
        Action::Revert { path, .. } => {
            let changed = diff.into_iter().flat_map(str::lines).filter(|line| {
                line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
            });
            let changed: Vec<String> = changed
                .map(|line| match line.split_at_checked(1) {
                    Some(("+", rest)) => format!("add the line {:?}", rest.trim()),
                    Some((_, rest)) => format!("remove the line {:?}", rest.trim()),
                    None => String::new(),
                })
                .collect();
            vec![format!("in {path}: {}", changed.join("; "))]
        }
        Action::SetAttributes { path, to, .. } => {
            vec![format!("chown {}:{} {path}", to.uid, to.gid), format!("chmod {:04o} {path}", to.mode)]
        }
        Action::UpdateMember { member_id, to, .. } => {
            vec![format!("{etcdctl} member update {member_id} --peer-urls={}", to.join(","))]
        }
    }
}

/// Returns what an edit does, setting by setting.
fn described(change: &FileEdit) -> Vec<String> {
    let argument = |edit: &ArgumentEdit| match edit {
        ArgumentEdit::Remove { flag } => format!("remove --{flag}"),
        ArgumentEdit::Set { flag, value } => format!("set --{flag}={value}"),
    };
    let variable = |edit: &environment::Edit| match edit {
        environment::Edit::Remove { name } => format!("remove {name}"),
        environment::Edit::Set { name, value } => format!("set {name}={value}"),
    };
    let of_manifest = |edit: &manifest::Edit| match edit {
        manifest::Edit::Argument(edit) => argument(edit),
        manifest::Edit::Mount(mount) => format!("mount {} at {}", mount.host_path, mount.mount_path),
        manifest::Edit::Unmount(mount) => format!("remove the mount at {}", mount.mount_path),
        manifest::Edit::Variable(edit) => variable(edit),
    };
    let of_config = |edit: &config::Edit| {
        let (config::Edit::Remove { section, key } | config::Edit::Set { section, key, .. }) = edit;
        let key = match section {
            Some(section) => format!("{section}.{key}"),
            None => key.clone(),
        };
        match edit {
            config::Edit::Remove { .. } => format!("remove {key}"),
            config::Edit::Set { value: config::Value::Boolean(value), .. } => format!("set {key}: {value}"),
            config::Edit::Set { value: config::Value::Text(value), .. } => format!("set {key}: {value}"),
        }
    };
    match change {
        FileEdit::Config { edits } => edits.iter().map(of_config).collect(),
        FileEdit::DropIn { edits, .. } => edits.iter().map(argument).collect(),
        FileEdit::Environment { edits } => edits.iter().map(variable).collect(),
        FileEdit::Manifest { edits, .. } => edits.iter().map(of_manifest).collect(),
    }
}
