//! Drift: where the declaration, the files on disk and the running process disagree.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seaworthy_evidence::{
    ClientCertificate, ConfigFile, Declared, Drift, ErrorKind, EvidenceError, Listener, Observed, Origin,
    Process, Purpose, Setting, Side,
};

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
/// of acceptable CAs that a listener sends (RFC 8446 §4.2.4, RFC 5246 §7.4.4): etcd reads the file only at start. The list
/// has names and no keys, so a file that changed since then and has the same names may hold other keys.
///
/// # Errors
///
/// When the names are the same, and it cannot be told whether the file changed since.
pub(crate) fn trusted(
    files: &Files,
    modified: Option<Timestamp>,
    process: &Observed<Process>,
    listeners: &[Listener],
    what: &str,
    now: Timestamp,
) -> Result<Option<Drift>, EvidenceError> {
    let Some((file, Ok(content))) = files.trusted.as_ref().map(|file| (file, &file.content)) else {
        return Ok(None);
    };
    let names =
        |list: &mut dyn Iterator<Item = &str>| -> BTreeSet<String> { list.map(str::to_owned).collect() };
    let on_disk = names(&mut content.iter().map(|p| p.certificate.subject.as_str()));
    let sent = listeners.iter().filter_map(|listener| {
        let wire = listener.wire.as_ref()?;
        let sent = names(&mut wire.value()?.acceptable_cas.as_ref()?.iter().map(String::as_str));
        (!sent.is_empty()).then_some((sent, wire.origin()))
    });
    let sent: Vec<_> = sent.collect();
    let joined = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
    let (path, disk) = (&file.path, joined(&on_disk));
    if let Some((other, wire)) = sent.iter().find(|(names, _)| *names != on_disk) {
        let other = joined(other);
        return Ok(Some(Drift {
            subject: format!("the {what} CA file"),
            message: format!(
                "the {what} CA file {path} holds {disk}, but the running etcd accepts certificates of {other}: it read \
                 the file when it started, and a restart changes whom it trusts"
            ),
            declared: Side { value: disk, origin: file.origin.clone() },
            running: Side {
                value: other,
                origin: wire.cloned().unwrap_or_else(|| Origin::derived("the wire")),
            },
        }));
    }
    let Some((process, modified)) = process.value().zip(modified).filter(|_| !sent.is_empty()) else {
        return Ok(None);
    };
    let changed = match order(modified, process, now) {
        Order::Before => false,
        Order::After => true,
        Order::Unknown => return Err(doubtful(path, modified, process)),
    };
    Ok(changed.then(|| Drift {
        subject: format!("the {what} CA file"),
        declared: Side { value: format!("changed {}", at(modified)), origin: file.origin.clone() },
        running: started(process),
        message: format!(
            "the {what} CA file {path} was changed at {}, after etcd had read it at {}: the names in it are those that \
             the running etcd accepts ({disk}), but the wire does not tell whether their keys are, and a restart may \
             change whom it trusts",
            at(modified),
            at(process.started_at)
        ),
    }))
}

/// Returns what shows that the process runs with another configuration than its file has now. The file is compared only
/// if it was changed after the process read it, by what can be seen from outside: sockets, TLS and client certificates.
/// `listeners` are those that the file names now, joined with the sockets there are; `enforced` tells whether the file
/// demands client certificates of them.
///
/// # Errors
///
/// When something contradicts the file, and it cannot be told whether the file changed since.
pub(crate) fn configuration(
    file: &Observed<ConfigFile>,
    process: &Observed<Process>,
    listeners: &[Listener],
    enforced: Option<bool>,
    now: Timestamp,
) -> Result<Vec<Drift>, EvidenceError> {
    let changed = || Some((file.value()?, file.value()?.modified_at?, process.value()?));
    let Some((file, modified, process)) = changed() else { return Ok(Vec::new()) };
    let order = order(modified, process, now);
    if order == Order::Before {
        return Ok(Vec::new());
    }
    let contradiction = |listener: &Listener| -> Option<Drift> {
        let (declared, running, origin) = contradicted(listener, enforced)?;
        Some(Drift {
            subject: format!("the configuration file, {}", listener.url.text),
            message: format!(
                "{} was changed at {}, after etcd had read it at {}: by the file, {} {declared}; in truth, it {running}",
                file.path,
                at(modified),
                at(process.started_at),
                listener.url.text
            ),
            declared: Side { value: declared.to_owned(), origin: listener.origin.clone() },
            running: Side {
                value: running.to_owned(),
                origin: origin.unwrap_or_else(|| socket_table(process)),
            },
        })
    };
    let contradictions: Vec<_> = listeners.iter().filter_map(contradiction).collect();
    if order == Order::Unknown && !contradictions.is_empty() {
        return Err(doubtful(&file.path, modified, process));
    }
    Ok(contradictions)
}

/// When a file was changed, as seen from the start of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Before it, or nothing speaks for after it.
    Before,
    /// After it for certain.
    After,
    /// After it by the clock as it is set now, which does not tell.
    Unknown,
}

/// Returns when a file with the time `modified` was changed. The time of a file is what the clock said then, and the start
/// of a process is derived from the clock as it is set now: they cannot be compared more exactly than the clock is known
/// to have been kept, nor can a time that is still to come.
fn order(modified: Timestamp, process: &Process, now: Timestamp) -> Order {
    if modified <= process.started_at {
        Order::Before
    } else if modified > process.started_before.unwrap_or(process.started_at) && modified <= now {
        Order::After
    } else {
        Order::Unknown
    }
}

fn doubtful(path: &str, modified: Timestamp, process: &Process) -> EvidenceError {
    let message = format!(
        "{path} was changed at {}, and etcd was started at {}: which was first cannot be told, because the clock of the \
         node may have been set back in between",
        at(modified),
        at(process.started_at)
    );
    EvidenceError::new(ErrorKind::Unsupported, message)
}

/// Returns what a listener is by the settings and what it is in truth, with the place of the latter, where they differ.
fn contradicted(
    listener: &Listener,
    enforced: Option<bool>,
) -> Option<(&'static str, &'static str, Option<Origin>)> {
    match (listener.configured, &listener.address) {
        (true, None) => return Some(("is listened on", "is not", None)),
        (false, _) => return Some(("is not listened on", "is", None)),
        (true, Some(_)) => {}
    }
    let seen = listener.wire.as_ref()?;
    let (wire, origin) = (seen.value()?, seen.origin().cloned());
    let (declared, running) = match (listener.url.is_tls(), wire.speaks_only_tls()) {
        (true, Some(false)) => ("speaks TLS", "speaks plaintext"),
        (false, Some(true)) => ("speaks plaintext", "speaks TLS"),
        _ if listener.purpose == Purpose::Metrics => return None,
        _ => match (enforced?, wire.client_certificate?) {
            (true, ClientCertificate::NotRequested | ClientCertificate::Requested) => {
                ("demands a client certificate", "serves a client that has none")
            }
            (false, ClientCertificate::Required) => {
                ("demands no client certificate", "refuses a client that has none")
            }
            _ => return None,
        },
    };
    Some((declared, running, origin))
}

fn at(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn started(process: &Process) -> Side {
    let origin = Origin::proc(format!("/proc/{}/stat", process.pid));
    Side { value: format!("started {}", at(process.started_at)), origin }
}

fn socket_table(process: &Process) -> Origin {
    Origin::proc(format!("/proc/{}/net/tcp", process.pid))
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

#[cfg(test)]
mod tests {
    use seaworthy_evidence::{ConfigFormat, ProcessId, Url, Wire};

    use super::super::material::Content;
    use super::*;

    const START: i64 = 1_000_000;

    fn wire(tls: bool, client_certificate: Option<ClientCertificate>) -> Observed<Wire> {
        let seen = |value| Observed::seen(value, Origin::wire("10.0.0.1:2380", "TLS"));
        let wire = Wire {
            address: "10.0.0.1:2380".to_owned(),
            tls: seen(tls),
            plaintext: seen(!tls),
            complete: seen(true),
            spoke: String::new(),
            raft: None,
            etcd_version: None,
            protocols: Vec::new(),
            suites: Vec::new(),
            groups: Vec::new(),
            client_certificate,
            acceptable_cas: Some(vec!["CN=etcd-ca".to_owned()]),
            chain: Vec::new(),
            milliseconds: 0,
            connections: 0,
        };
        Observed::seen(wire, Origin::wire("10.0.0.1:2380", "TLS"))
    }

    fn listener(url: &str, configured: bool, bound: bool, wire: Option<Observed<Wire>>) -> Listener {
        Listener {
            url: Url::parse(url).unwrap(),
            purpose: Purpose::Peer,
            configured,
            address: bound.then(|| "10.0.0.1:2380".to_owned()),
            wire,
            origin: Origin::file("/etc/etcd.yaml"),
        }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn process() -> Observed<Process> {
        let process = Process {
            pid: 7,
            exe: Observed::seen("/etcd".to_owned(), Origin::proc("/proc/7/exe")),
            build: None,
            argv0: "etcd".to_owned(),
            identity: Some(ProcessId { boot_id: String::new(), pid: 7, start_ticks: 100 }),
            started_at: second(START),
            started_before: Some(second(START + 60)),
            uid: 0,
            gid: 0,
            user: None,
            container: None,
            own_mounts: None,
            own_network: None,
        };
        Observed::seen(process, Origin::proc("/proc/7/stat"))
    }

    /// Returns a configuration file that was changed so many seconds after the start.
    fn file(later: i64) -> Observed<ConfigFile> {
        let file = ConfigFile {
            path: "/etc/etcd.yaml".to_owned(),
            format: ConfigFormat::Yaml,
            modified_at: Some(second(START + later)),
            ignored: Vec::new(),
        };
        Observed::seen(file, Origin::file("/etc/etcd.yaml"))
    }

    #[test]
    fn a_rewritten_configuration_file_is_drift_only_where_something_contradicts_it() {
        let https = "https://10.0.0.1:2380";
        let required = Some(ClientCertificate::Required);
        let none = Some(ClientCertificate::NotRequested);
        let sound = || listener(https, true, true, Some(wire(true, required)));
        let cases = [
            ("rewritten, and nothing contradicts it", 61, sound(), Some(true), None),
            ("nobody asked the wire", 61, listener(https, true, true, None), Some(true), None),
            ("not changed since", -1, listener(https, true, false, None), Some(true), None),
            ("no such socket", 61, listener(https, true, false, None), Some(true), Some("is not")),
            ("a socket more", 61, listener(https, false, true, None), Some(true), Some("it is")),
            (
                "plaintext on the wire",
                61,
                listener(https, true, true, Some(wire(false, None))),
                Some(true),
                Some("speaks plaintext"),
            ),
            (
                "no certificate demanded",
                61,
                listener(https, true, true, Some(wire(true, none))),
                Some(true),
                Some("serves a client that has none"),
            ),
            ("a certificate demanded", 61, sound(), Some(false), Some("refuses a client that has none")),
        ];
        for (about, later, listener, enforced, want) in cases {
            let now = second(START + 1000);
            let drifts = configuration(&file(later), &process(), &[listener], enforced, now).unwrap();
            let said: Vec<_> = drifts.iter().map(|d| d.message.as_str()).collect();
            assert_eq!(said.len(), usize::from(want.is_some()), "{about}: {said:?}");
            assert!(said.iter().all(|s| s.ends_with(want.unwrap_or_default())), "{about}: {said:?}");
        }
    }

    #[test]
    fn a_clock_that_may_have_been_set_back_proves_no_drift() {
        let https = "https://10.0.0.1:2380";
        let gone = || listener(https, true, false, None);
        let sound = || listener(https, true, true, Some(wire(true, Some(ClientCertificate::Required))));
        // The file's time and the clock, both after the start; the listener; whether there is a drift, or why not.
        let cases = [
            ("before the start", 0, 1000, gone(), Ok(0)),
            ("after it, by less than can be told", 60, 1000, gone(), Err(ErrorKind::Unsupported)),
            ("after it, by less than can be told, and nothing contradicts", 60, 1000, sound(), Ok(0)),
            ("after it", 61, 1000, gone(), Ok(1)),
            ("in the future", 61, 60, gone(), Err(ErrorKind::Unsupported)),
        ];
        for (about, later, now, listener, want) in cases {
            let now = second(START + now);
            let got = configuration(&file(later), &process(), &[listener], Some(true), now);
            assert_eq!(got.map(|d| d.len()).map_err(|e| e.kind), want, "{about}");
        }
    }

    #[test]
    fn a_ca_file_of_the_same_names_has_drifted_only_if_it_changed_after_the_start() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "etcd-ca");
        let pem = params.self_signed(&key).unwrap().pem();
        let origin = Origin::file("/ca.crt");
        let content = seaworthy_pki::certificates_from_pem(pem.as_bytes(), origin.clone(), second(START));
        let trusted_file = Content { path: "/ca.crt".to_owned(), origin, content };
        let files = Files {
            certificate: None,
            key: None,
            client_certificate: None,
            trusted: Some(trusted_file),
            revocations: None,
        };
        let listener = listener("https://10.0.0.1:2380", true, true, Some(wire(true, None)));
        let cases = [
            ("long before", Some(-1000), Ok(false)),
            ("shortly before", Some(0), Ok(false)),
            ("at about the time", Some(60), Err(ErrorKind::Unsupported)),
            ("after it", Some(61), Ok(true)),
            ("in the future", Some(1001), Err(ErrorKind::Unsupported)),
            ("no time", None, Ok(false)),
        ];
        for (about, later, want) in cases {
            let modified = later.map(|later| second(START + later));
            let now = second(START + 1000);
            let got = trusted(&files, modified, &process(), std::slice::from_ref(&listener), "peer", now);
            assert_eq!(got.map(|d| d.is_some()).map_err(|e| e.kind), want, "{about}");
        }
    }
}
