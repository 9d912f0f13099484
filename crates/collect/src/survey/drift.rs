//! Drift: where the declaration, the files on disk and the running process disagree.

use std::collections::BTreeMap;

use jiff::Timestamp;
use seaworthy_evidence::{ConfigFile, Declared, Drift, Listener, Observed, Origin, Process, Setting, Side};

use super::material::Files;

/// Returns the settings that `declared` would give a process started now, and the running one does not have.
pub(crate) fn settings(declared: &Declared, running: &BTreeMap<String, Setting>, who: &str) -> Vec<Drift> {
    let Some(promised) = declared.settings.value() else { return Vec::new() };
    let differing = promised.iter().filter_map(|(name, promised)| {
        let running = running.get(name)?;
        let same = promised.value == running.value && promised.on == running.on;
        // Defaults differ between versions, and the declared one is not known to have any.
        let defaults = is_default(promised) && is_default(running);
        (!same && !defaults).then_some((name, promised, running))
    });
    differing
        .map(|(name, promised, running)| Drift {
            subject: name.clone(),
            message: format!(
                "{} declares {name} as {}, but {who} runs with {}: the next restart changes it",
                declared.path,
                shown(promised),
                shown(running)
            ),
            declared: side(promised),
            running: side(running),
        })
        .collect()
}

/// Returns whether the CA file of a side is another one than its process loaded when it started. The proof is the list
/// of acceptable CAs that a listener sends (RFC 8446 §4.2.4, RFC 5246 §7.4.4): etcd reads the file only at start.
pub(crate) fn trusted(files: &Files, listeners: &[Listener], what: &str) -> Option<Drift> {
    let file = files.trusted.as_ref()?;
    let mut on_disk: Vec<&str> =
        file.content.as_ref().ok()?.iter().map(|p| p.certificate.subject.as_str()).collect();
    let (wire, sent) = listeners.iter().find_map(|listener| {
        let wire = listener.wire.as_ref()?;
        Some((wire, wire.value()?.acceptable_cas.as_ref()?))
    })?;
    let mut sent: Vec<&str> = sent.iter().map(String::as_str).collect();
    for list in [&mut on_disk, &mut sent] {
        list.sort_unstable();
        list.dedup();
    }
    (on_disk != sent && !sent.is_empty()).then(|| Drift {
        subject: format!("the {what} CA file"),
        declared: Side { value: on_disk.join("; "), origin: file.origin.clone() },
        running: Side {
            value: sent.join("; "),
            origin: wire.origin().cloned().unwrap_or_else(|| Origin::derived("the wire")),
        },
        message: format!(
            "the {what} CA file {} holds {}, but the running etcd accepts certificates of {}: it read the file when \
             it started, and a restart changes whom it trusts",
            file.path,
            on_disk.join("; "),
            sent.join("; ")
        ),
    })
}

/// Returns whether the configuration file was changed after the process read it, so that it may run with other settings
/// than the file has now.
pub(crate) fn configuration(file: &Observed<ConfigFile>, process: &Observed<Process>) -> Option<Drift> {
    let (file, origin) = (file.value()?, file.origin()?);
    let process = process.value()?;
    let modified = file.modified_at.filter(|modified| *modified > process.started_at)?;
    let at = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    Some(Drift {
        subject: "the configuration file".to_owned(),
        declared: Side { value: format!("changed {}", at(modified)), origin: origin.clone() },
        running: Side {
            value: format!("started {}", at(process.started_at)),
            origin: Origin::proc(format!("/proc/{}/stat", process.pid)),
        },
        message: format!(
            "{} was changed at {}, after etcd had read it at {}: the running etcd may have other settings",
            file.path,
            at(modified),
            at(process.started_at)
        ),
    })
}

fn side(setting: &Setting) -> Side {
    Side { value: shown(setting), origin: setting.origin.clone() }
}

fn is_default(setting: &Setting) -> bool {
    matches!(setting.origin, Origin::Default { .. })
}

fn shown(setting: &Setting) -> String {
    match setting.value.as_str() {
        "" => "unset".to_owned(),
        value => value.to_owned(),
    }
}
