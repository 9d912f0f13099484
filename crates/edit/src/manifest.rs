//! Edits of static pod manifests, YAML or JSON. kubelet reads the first document of a file, so that is the one
//! that is edited.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::DuplicateKeyPolicy;

use crate::arguments::{self, Operation};
use crate::values::{self, Values};
use crate::yaml::{self, New, Node, Step, Yaml};
use crate::{ArgumentEdit, Refused, environment, printable, text};
use Step::{At, Key};

/// A change of one container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "ManifestEdit")]
pub enum Edit {
    /// Changes the command line, in `command` or `args`, wherever the program's flags are.
    Argument(ArgumentEdit),
    /// Lets the container see a file or directory of the host.
    Mount(Mount),
    /// Takes a file or directory of the host away from the container, and its volume when nothing else uses it.
    Unmount(Mount),
    /// Changes a variable of the container's environment.
    Variable(environment::Edit),
}

/// A file or directory of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Name of the volume if there is none of this host path yet.
    pub name: String,
    /// Absolute path on the host.
    pub host_path: String,
    /// Absolute path in the container.
    pub mount_path: String,
    /// What must be on the host: `Directory`, `DirectoryOrCreate`, `File` or `FileOrCreate`.
    pub kind: String,
    /// Whether the container may not write there.
    pub read_only: bool,
}

/// Returns the manifest `bytes` with the `edits` made, one after the other, in the container of that name.
/// `is_program` tells by an argument whether it is the path of the program whose flags are meant.
///
/// What is already as an edit wants it stays as it is, so the result can equal the input.
///
/// # Errors
///
/// When one of the edits cannot be made exactly: the flags are in a shell script, a node is shared with another
/// by an anchor, a key is there twice, and whatever else makes the value of the new text differ from the old
/// one plus the edits.
pub fn apply(
    bytes: &[u8],
    container: &str,
    is_program: impl Fn(&[u8]) -> bool,
    edits: &[Edit],
) -> Result<Vec<u8>, Refused> {
    let mut current = text(bytes)?.to_owned();
    for edit in edits {
        match edit {
            Edit::Argument(edit) => current = edit_arguments(current, container, &is_program, edit)?,
            Edit::Mount(mount) => current = add_mount(current, container, mount)?,
            Edit::Unmount(mount) => current = remove_mount(current, container, mount)?,
            Edit::Variable(edit) => current = edit_variable(&current, container, edit)?,
        }
    }
    Ok(current.into_bytes())
}

/// How kubelet asks whether a container is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its key: `livenessProbe`, `readinessProbe` or `startupProbe`.
    pub kind: String,
    /// What it does.
    pub asks: Asks,
}

/// What a [`Probe`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asks {
    /// It runs a command in the container.
    Command(Vec<String>),
    /// It asks by HTTP: whether over TLS, and at which port.
    Http {
        /// Whether over TLS. kubelet neither verifies the certificate nor has one of its own.
        tls: bool,
        /// The port; `None` when it could not be told.
        port: Option<u16>,
    },
}

/// Returns the probes of a container that ask by HTTP or run a command.
///
/// # Errors
///
/// When the manifest or the container in it cannot be found out.
pub fn probes(bytes: &[u8], container: &str) -> Result<Vec<Probe>, Refused> {
    let yaml = parse(text(bytes)?)?;
    let at = find(&yaml, container)?;
    let Some(node) = yaml.find(&[Key("spec"), Key("containers"), At(at)])? else { return Ok(Vec::new()) };
    let named = |name: &str| {
        let ports = node.get("ports").into_iter().flat_map(Node::items);
        let mut ports = ports.filter(|port| port.get("name").and_then(Node::text) == Some(name));
        ports.next()?.get("containerPort")?.text()?.parse().ok()
    };
    let asks = |probe: &Node| {
        if let Some(http) = probe.get("httpGet") {
            let port = http.get("port").and_then(Node::text);
            return Some(Asks::Http {
                tls: http.get("scheme").and_then(Node::text) == Some("HTTPS"),
                port: port.and_then(|port| port.parse().ok().or_else(|| named(port))),
            });
        }
        let command = probe.get("exec")?.get("command")?.items();
        Some(Asks::Command(command.iter().filter_map(Node::text).map(str::to_owned).collect()))
    };
    let kinds = ["livenessProbe", "readinessProbe", "startupProbe"].into_iter();
    let found = kinds.filter_map(|kind| Some(Probe { kind: kind.to_owned(), asks: asks(node.get(kind)?)? }));
    Ok(found.collect())
}

pub(crate) fn parse(text: &str) -> Result<Yaml<'_>, Refused> {
    let yaml = Yaml::parse(text, DuplicateKeyPolicy::Error)?;
    match yaml.find(&[Key("kind")])?.and_then(Node::text) {
        Some("Pod") => Ok(yaml),
        _ => Err(Refused::because("the first document is no Pod")),
    }
}

/// Returns the index of the container.
fn find(yaml: &Yaml<'_>, container: &str) -> Result<usize, Refused> {
    let absent = || Refused::because(format!("the pod has no container called {container}"));
    let containers = yaml.find(&[Key("spec"), Key("containers")])?.ok_or_else(absent)?.items();
    let mut named = Vec::new();
    for index in 0..containers.len() {
        let name = yaml.find(&[Key("spec"), Key("containers"), At(index), Key("name")])?;
        if name.and_then(Node::text) == Some(container) {
            named.push(index);
        }
    }
    match named[..] {
        [index] => Ok(index),
        [] => Err(absent()),
        _ => Err(Refused::because(format!("several containers are called {container}"))),
    }
}

fn edit_arguments(
    text: String,
    container: &str,
    is_program: &impl Fn(&[u8]) -> bool,
    edit: &ArgumentEdit,
) -> Result<String, Refused> {
    let yaml = parse(&text)?;
    let index = find(&yaml, container)?;
    let base = [Key("spec"), Key("containers"), At(index)];
    let list = |key| [base[0], base[1], base[2], Key(key)];
    let read = |key| -> Result<Vec<String>, Refused> {
        let items = yaml.find(&list(key))?.map(Node::items).unwrap_or_default();
        let texts = items.iter().map(|item| item.text().map(str::to_owned));
        texts.collect::<Option<_>>().ok_or_else(|| Refused::because(format!("{key} is no list of texts")))
    };
    let (mut argv, args) = (read("command")?, read("args")?);
    let commands = argv.len();
    argv.extend(args);
    // kubelet expands references to variables; what is written here is meant literally.
    if matches!(edit, ArgumentEdit::Set { value, .. } if value.contains("$(")) {
        return Err(Refused::because("the new value has a reference to a variable, $(…)"));
    }
    let operations = match commands {
        1.. => edit.operations(&argv, arguments::program(&argv, is_program)?)?,
        // The image's entrypoint, which is not in the list, is the program.
        0 => {
            let mut whole = vec![""];
            whole.extend(argv.iter().map(String::as_str));
            let back = |operation| match operation {
                Operation::InsertAfter(0, _) => Err(Refused::because("the container has no arguments")),
                Operation::InsertAfter(at, text) => Ok(Operation::InsertAfter(at - 1, text)),
                Operation::Remove(at) => Ok(Operation::Remove(at.saturating_sub(1))),
                Operation::Replace(at, text) => Ok(Operation::Replace(at.saturating_sub(1), text)),
            };
            edit.operations(&whole, 0)?.into_iter().map(back).collect::<Result<_, _>>()?
        }
    };
    let place = |at: usize| match at.checked_sub(commands) {
        Some(at) => (list("args"), at),
        None => (list("command"), at),
    };
    drop(yaml);
    let mut text = text;
    for operation in operations {
        let yaml = parse(&text)?;
        text = match operation {
            Operation::InsertAfter(at, argument) => {
                let (list, at) = place(at);
                yaml.insert_item(&list, at, &New::Text(argument))?
            }
            Operation::Remove(at) => {
                let (list, at) = place(at);
                yaml.remove(&[&list[..], &[At(at)]].concat())?
            }
            Operation::Replace(at, argument) => {
                let (list, at) = place(at);
                yaml.replace(&[&list[..], &[At(at)]].concat(), &New::Text(argument))?
            }
        };
    }
    Ok(text)
}

fn add_mount(text: String, container: &str, mount: &Mount) -> Result<String, Refused> {
    for text in [&mount.name, &mount.host_path, &mount.mount_path, &mount.kind] {
        printable(text)?;
    }
    if !mount.host_path.starts_with('/') || !mount.mount_path.starts_with('/') {
        return Err(Refused::because("a mounted path must be absolute"));
    }
    let same = |one: &str, other: &str| one.trim_end_matches('/') == other.trim_end_matches('/');
    let (text, name) = {
        let yaml = parse(&text)?;
        let spec = [Key("spec")];
        let volumes = yaml.find(&[Key("spec"), Key("volumes")])?;
        let named = |volume: &Node| volume.get("name").and_then(Node::text).map(str::to_owned);
        let items = volumes.map(Node::items).unwrap_or_default();
        let of_host = items.iter().find(|volume| {
            let path = volume.get("hostPath").and_then(|host| host.get("path")).and_then(Node::text);
            path.is_some_and(|path| same(path, &mount.host_path))
        });
        match of_host.and_then(named) {
            Some(name) => (text, name),
            None if items.iter().any(|volume| named(volume).as_ref() == Some(&mount.name)) => {
                let why = format!("there is another volume called {}", mount.name);
                return Err(Refused::because(why));
            }
            None => {
                let host = vec![
                    ("path".into(), New::Text(mount.host_path.clone())),
                    ("type".into(), New::Text(mount.kind.clone())),
                ];
                let volume = New::Mapping(vec![
                    ("hostPath".into(), New::Mapping(host)),
                    ("name".into(), New::Text(mount.name.clone())),
                ]);
                (append(&yaml, &spec, "volumes", volume)?, mount.name.clone())
            }
        }
    };
    let yaml = parse(&text)?;
    let base = [Key("spec"), Key("containers"), At(find(&yaml, container)?)];
    let mounts = yaml.find(&[&base[..], &[Key("volumeMounts")]].concat())?;
    for item in mounts.map(Node::items).unwrap_or_default() {
        let text = |key| item.get(key).and_then(Node::text);
        if text("mountPath").is_some_and(|path| same(path, &mount.mount_path)) {
            let whole = text("subPath").is_none() && text("subPathExpr").is_none();
            return match text("name") == Some(&name) && whole {
                true => Ok(yaml.text().to_owned()),
                false => Err(Refused::because(format!("something else is mounted at {}", mount.mount_path))),
            };
        }
    }
    let mut item =
        vec![("mountPath".into(), New::Text(mount.mount_path.clone())), ("name".into(), New::Text(name))];
    if mount.read_only {
        item.push(("readOnly".into(), New::Boolean(true)));
    }
    append(&yaml, &base, "volumeMounts", New::Mapping(item))
}

fn remove_mount(text: String, container: &str, mount: &Mount) -> Result<String, Refused> {
    let same = |one: &str, other: &str| one.trim_end_matches('/') == other.trim_end_matches('/');
    let (text, name) = {
        let yaml = parse(&text)?;
        let list = [Key("spec"), Key("containers"), At(find(&yaml, container)?), Key("volumeMounts")];
        let items = yaml.find(&list)?.map(Node::items).unwrap_or_default();
        let of = |item: &Node, key| item.get(key).and_then(Node::text).map(str::to_owned);
        let at = items
            .iter()
            .position(|item| of(item, "mountPath").is_some_and(|path| same(&path, &mount.mount_path)));
        let Some((at, item)) = at.and_then(|at| Some((at, items.get(at)?))) else { return Ok(text) };
        let name = of(item, "name").unwrap_or_default();
        let path = if items.len() == 1 { list.to_vec() } else { [&list[..], &[At(at)]].concat() };
        (yaml.remove(&path)?, name)
    };
    let yaml = parse(&text)?;
    let list = [Key("spec"), Key("volumes")];
    let volumes = yaml.find(&list)?.map(Node::items).unwrap_or_default();
    let kinds = ["initContainers", "containers", "ephemeralContainers"];
    let mut used = false;
    for kind in kinds {
        let containers = yaml.find(&[Key("spec"), Key(kind)])?.map(Node::items).unwrap_or_default();
        let mounts = containers.iter().filter_map(|c| c.get("volumeMounts")).flat_map(Node::items);
        used |= mounts.filter_map(|m| m.get("name")?.text()).any(|other| other == name);
    }
    let named = |volume: &Node| volume.get("name").and_then(Node::text) == Some(&name);
    match volumes.iter().position(named) {
        // A volume of another name was there before the mount.
        Some(_) if used || name != mount.name => Ok(text),
        Some(_) if volumes.len() == 1 => yaml.remove(&list),
        Some(at) => yaml.remove(&[&list[..], &[At(at)]].concat()),
        None => Ok(text),
    }
}

/// Returns what is in a manifest, value by value: the flags of the program in `container`, and everything else.
///
/// # Errors
///
/// When it is no manifest with that container, or its command line cannot be understood.
pub(crate) fn values(
    bytes: &[u8],
    container: &str,
    is_program: &dyn Fn(&[u8]) -> bool,
) -> Result<Values, Refused> {
    let text = text(bytes)?;
    let yaml = parse(text)?;
    let index = find(&yaml, container)?;
    let documents = yaml::values(text, DuplicateKeyPolicy::Error)?;
    let mut found = Values::new();
    let pod = documents.first().and_then(|pod| pod.pointer(&format!("/spec/containers/{index}")));
    let list = |key: &str| -> Vec<String> {
        let items = pod.and_then(|pod| pod.get(key)).and_then(serde_json::Value::as_array);
        items.into_iter().flatten().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
    };
    let (mut argv, args) = (list("command"), list("args"));
    // Without a command the image's entrypoint is the program.
    if argv.is_empty() {
        argv.push(String::new());
        argv.extend(args);
        arguments::add_values(&argv, 0, &mut found)?;
    } else {
        argv.extend(args);
        arguments::add_values(&argv, arguments::program(&argv, &is_program)?, &mut found)?;
    }
    let own = format!("0.spec.containers[\"{container}\"]");
    let skip = |path: &str| {
        path.strip_prefix(&own).is_some_and(|rest| matches!(rest, ".command" | ".args" | ".env"))
    };
    for (index, document) in documents.iter().enumerate() {
        values::flatten(document, &index.to_string(), &skip, &mut found);
    }
    for variable in
        pod.and_then(|pod| pod.get("env")).and_then(serde_json::Value::as_array).into_iter().flatten()
    {
        let name = variable.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
        let plain = variable.get("value").and_then(serde_json::Value::as_str);
        let value = plain.map_or_else(|| format!("({variable})"), str::to_owned);
        values::add(&mut found, &values::variable(name), value);
    }
    // An empty list is as good as none.
    found.retain(|_, value| value != "[]");
    Ok(found)
}

fn edit_variable(text: &str, container: &str, edit: &environment::Edit) -> Result<String, Refused> {
    let (environment::Edit::Remove { name } | environment::Edit::Set { name, .. }) = edit;
    if !environment::is_name(name) {
        return Err(Refused::because("that is no name of a variable"));
    }
    let yaml = parse(text)?;
    let base = [Key("spec"), Key("containers"), At(find(&yaml, container)?)];
    let list = [&base[..], &[Key("env")]].concat();
    let items = yaml.find(&list)?.map(Node::items).unwrap_or_default();
    let mut named = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if item.get("name").and_then(Node::text) == Some(name) {
            named.push((index, item));
        }
    }
    let (at, item) = match (named.as_slice(), edit) {
        ([], environment::Edit::Remove { .. }) => return Ok(text.to_owned()),
        ([], environment::Edit::Set { value, .. }) => {
            let variable = New::Mapping(vec![
                ("name".into(), New::Text(name.clone())),
                ("value".into(), New::Text(literal(value)?.to_owned())),
            ]);
            return append(&yaml, &base, "env", variable);
        }
        ([one], _) => *one,
        _ => return Err(Refused::because(format!("{name} is set more than once"))),
    };
    match edit {
        environment::Edit::Remove { .. } if items.len() == 1 => yaml.remove(&list),
        environment::Edit::Remove { .. } => yaml.remove(&[&list[..], &[At(at)]].concat()),
        environment::Edit::Set { value, .. } => {
            let old = item.get("value").and_then(Node::text);
            let old = old.ok_or_else(|| Refused::because(format!("{name} comes from elsewhere")))?;
            if old == value {
                return Ok(text.to_owned());
            }
            let path = [&list[..], &[At(at), Key("value")]].concat();
            yaml.replace(&path, &New::Text(literal(value)?.to_owned()))
        }
    }
}

/// Returns a value that kubelet does not expand.
fn literal(value: &str) -> Result<&str, Refused> {
    printable(value)?;
    match value.contains("$(") {
        true => Err(Refused::because("the new value has a reference to a variable, $(…)")),
        false => Ok(value),
    }
}

/// Returns the text with `item` at the end of the list `key` of the mapping at `parent`, created if need be.
fn append(yaml: &Yaml<'_>, parent: &[Step<'_>], key: &str, item: New) -> Result<String, Refused> {
    let path = [parent, &[Key(key)]].concat();
    match yaml.find(&path)? {
        None => yaml.insert_entry(parent, key, &New::Sequence(vec![item])),
        Some(list) => yaml.insert_item(&path, list.items().len().saturating_sub(1), &item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBEADM: &str = include_str!("../testdata/etcd.yaml");

    fn is_etcd(text: &[u8]) -> bool {
        text.rsplit(|b| *b == b'/').next() == Some(b"etcd")
    }

    fn set(flag: &str, value: &str) -> Edit {
        Edit::Argument(ArgumentEdit::Set { flag: flag.into(), value: value.into() })
    }

    fn remove(flag: &str) -> Edit {
        Edit::Argument(ArgumentEdit::Remove { flag: flag.into() })
    }

    fn mount(name: &str, path: &str) -> Edit {
        Edit::Mount(Mount {
            name: name.into(),
            host_path: path.into(),
            mount_path: path.into(),
            kind: "DirectoryOrCreate".into(),
            read_only: true,
        })
    }

    fn edit(text: &str, edits: &[Edit]) -> Result<String, Refused> {
        apply(text.as_bytes(), "etcd", is_etcd, edits).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    /// The lines that were removed (-) and added (+), in order.
    fn lines(before: &str, after: &str) -> String {
        let diff = similar::TextDiff::from_lines(before, after);
        let changes = diff.iter_all_changes().filter(|c| c.tag() != similar::ChangeTag::Equal);
        changes.map(|c| format!("{}{}", c.tag(), c.value())).collect()
    }

    #[test]
    fn probes_are_told_by_what_they_ask() {
        let text = "kind: Pod\nspec:\n  containers:\n  - name: other\n    livenessProbe:\n      httpGet: {port: 1}\n  \
                    - name: etcd\n    ports:\n    - {containerPort: 2381, name: probe-port}\n    livenessProbe:\n      \
                    httpGet:\n        port: probe-port\n        scheme: HTTP\n    readinessProbe:\n      httpGet:\n        \
                    port: 2379\n        scheme: HTTPS\n    startupProbe:\n      exec:\n        command: [etcdctl, get, x]\n";
        let found = probes(text.as_bytes(), "etcd").unwrap();
        let asks: Vec<Asks> = found.into_iter().map(|probe| probe.asks).collect();
        assert_eq!(
            asks,
            [
                Asks::Http { tls: false, port: Some(2381) },
                Asks::Http { tls: true, port: Some(2379) },
                Asks::Command(["etcdctl", "get", "x"].map(str::to_owned).to_vec()),
            ]
        );
        assert_eq!(probes(KUBEADM.as_bytes(), "etcd").unwrap().len(), KUBEADM.matches("Probe:").count());
        assert!(probes(text.as_bytes(), "missing").is_err());
    }

    #[test]
    fn the_manifest_of_kubeadm_is_edited_in_place() {
        let cases: [(&[Edit], &str); 6] = [
            (
                &[set("peer-client-cert-auth", "true"), set("peer-cert-file", "/x/peer.crt")],
                "+    - --peer-client-cert-auth=true\n+    - --peer-cert-file=/x/peer.crt\n",
            ),
            (
                &[set("listen-peer-urls", "https://10.0.0.1:2380")],
                "-    - --listen-peer-urls=http://10.0.0.1:2380 # plaintext\n+    - --listen-peer-urls=https://10.0.0.1:2380 # plaintext\n",
            ),
            (
                &[remove("listen-peer-urls")],
                "-    - --listen-peer-urls=http://10.0.0.1:2380 # plaintext\n+    # plaintext\n",
            ),
            (
                &[mount("etcd-peer", "/etc/etcd/peer")],
                "+    - mountPath: /etc/etcd/peer\n+      name: etcd-peer\n+      readOnly: true\n\
                 +  - hostPath:\n+      path: /etc/etcd/peer\n+      type: DirectoryOrCreate\n+    name: etcd-peer\n",
            ),
            (&[mount("other", "/etc/kubernetes/pki/etcd/")], ""),
            (&[set("name", "node-1"), remove("auto-tls")], ""),
        ];
        for (edits, want) in cases {
            let after = edit(KUBEADM, edits).unwrap();
            assert_eq!(lines(KUBEADM, &after), want, "{edits:?}");
            assert_eq!(edit(&after, edits).unwrap(), after, "a second time: {edits:?}");
        }
    }

    #[test]
    fn shapes_of_command_lines() {
        let pod =
            |container: &str| format!("kind: Pod\nspec:\n  containers:\n  - name: etcd\n    {container}\n");
        let edits = [set("a", "9")];
        let cases = [
            ("command: [etcd, --a, '1']", "command: [etcd, --a, '9']"),
            ("command: [etcd]\n    args: [--b=1]", "command: [etcd]\n    args: [--b=1, --a=9]"),
            ("command: [etcd, -a=1]\n    args: [--b=1]", "command: [etcd, -a=9]\n    args: [--b=1]"),
            ("command: [nice, -n, '5', /bin/etcd]", "command: [nice, -n, '5', /bin/etcd, --a=9]"),
            ("args: [--a=1]", "args: [--a=9]"),
        ];
        for (before, after) in cases {
            assert_eq!(edit(&pod(before), &edits), Ok(pod(after)), "{before}");
        }
        for (before, why) in [
            ("command: [sh, -c, exec etcd --a=1]", "the flags are in a shell script"),
            ("command: [sh, -c, 'etcd --a=$(b) | tee x']", "the flags are in a shell script"),
            ("command: [other]", "the command line does not start that program"),
            ("image: x", "the container has no arguments"),
            ("command: [etcd, x]", "the command line has an argument that is no flag"),
            ("command: [etcd]\n    command: [etcd]", "the key command is there twice"),
            ("command: [etcd]\n    <<: {a: 1}", "it has a merge key (<<)"),
        ] {
            assert_eq!(edit(&pod(before), &edits).unwrap_err().why, why, "{before}");
        }
        let json = r#"{"kind": "Pod", "spec": {"containers": [{"name": "etcd", "command": ["etcd"]}]}}"#;
        let want =
            r#"{"kind": "Pod", "spec": {"containers": [{"name": "etcd", "command": ["etcd", "--a=9"]}]}}"#;
        assert_eq!(edit(json, &edits).as_deref(), Ok(want));
    }

    #[test]
    fn variables_are_set_and_taken_away() {
        let set = |name: &str, value: &str| {
            Edit::Variable(environment::Edit::Set { name: name.into(), value: value.into() })
        };
        let remove = |name: &str| Edit::Variable(environment::Edit::Remove { name: name.into() });
        let after = edit(KUBEADM, &[set("SSL_CERT_FILE", "/x.crt")]).unwrap();
        assert_eq!(lines(KUBEADM, &after), "+    - name: SSL_CERT_FILE\n+      value: /x.crt\n");
        assert_eq!(edit(&after, &[set("SSL_CERT_FILE", "/x.crt")]), Ok(after.clone()), "a second time");
        let other = edit(&after, &[set("SSL_CERT_FILE", "/y.crt")]).unwrap();
        assert_eq!(lines(&after, &other), "-      value: /x.crt\n+      value: /y.crt\n");
        assert_eq!(edit(&after, &[remove("SSL_CERT_FILE")]).as_deref(), Ok(KUBEADM));
        assert_eq!(edit(KUBEADM, &[remove("SSL_CERT_FILE")]).as_deref(), Ok(KUBEADM));
        let more = edit(&after, &[set("A", "true")]).unwrap();
        assert_eq!(lines(&after, &more), "+    - name: A\n+      value: \"true\"\n", "no boolean");
        assert_eq!(edit(&more, &[remove("A")]).as_deref(), Ok(&*after));

        let bare = "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: [etcd] # c\n";
        let alone = edit(bare, &[set("A", "1")]).unwrap();
        let want = "+    env:\n+    - name: A\n+      value: \"1\"\n";
        assert_eq!(lines(bare, &alone), want, "no number");
        assert_eq!(edit(&alone, &[remove("A")]).as_deref(), Ok(bare));

        let pod = |env: &str| {
            format!("kind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: [etcd]\n    env: {env}\n")
        };
        for (env, change, why) in [
            ("[{name: A, valueFrom: {fieldRef: {fieldPath: x}}}]", set("A", "1"), "A comes from elsewhere"),
            ("[{name: A, value: '1'}, {name: A, value: '2'}]", set("A", "1"), "A is set more than once"),
            ("[]", set("A", "$(B)"), "the new value has a reference to a variable, $(…)"),
            ("[]", set("A=", "1"), "that is no name of a variable"),
        ] {
            assert_eq!(edit(&pod(env), &[change]).unwrap_err().why, why, "{env}");
        }
    }

    #[test]
    fn mounts_are_not_confused() {
        let taken = edit(KUBEADM, &[mount("etcd-certs", "/new")]).unwrap_err();
        assert_eq!(taken.why, "there is another volume called etcd-certs");
        let Edit::Mount(mut other) = mount("fresh", "/new") else { unreachable!() };
        other.mount_path = "/var/lib/etcd".into();
        let error = edit(KUBEADM, &[Edit::Mount(other)]).unwrap_err();
        assert_eq!(error.why, "something else is mounted at /var/lib/etcd");
        let bare = "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: [etcd] # c\n";
        let want = "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: [etcd] # c\n    volumeMounts:\n    \
                    - mountPath: /p\n      name: v\n      readOnly: true\n  volumes:\n  - hostPath:\n      path: /p\n      \
                    type: DirectoryOrCreate\n    name: v\n";
        assert_eq!(edit(bare, &[mount("v", "/p")]).as_deref(), Ok(want));
    }

    #[test]
    fn a_stranger_is_refused() {
        for (text, why) in [
            ("kind: Deployment\n", "the first document is no Pod"),
            ("", "the first document is no Pod"),
            ("kind: Pod\nspec: {containers: []}\n", "the pod has no container called etcd"),
            (
                "kind: Pod\nspec: {containers: [{name: etcd}, {name: etcd}]}\n",
                "several containers are called etcd",
            ),
        ] {
            assert_eq!(edit(text, &[set("a", "1")]).unwrap_err().why, why);
        }
        assert!(apply(&[0xff], "etcd", is_etcd, &[set("a", "1")]).is_err());
    }
}
