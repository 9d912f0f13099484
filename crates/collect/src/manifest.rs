//! Static pods: the manifests that kubelet runs without being told by the API server.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use rayon::prelude::*;
use seaworthy_evidence::{ErrorKind, EvidenceError, FileKind, Origin};
use seaworthy_host::root::Root;
use seaworthy_host::shell;
use seaworthy_host::users::Users;
use seaworthy_settings::{Argument, may_be_shown};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use crate::yaml;

/// Most bytes that one argument or variable is expanded to; the kernel takes no more (`MAX_ARG_STRLEN`). Without
/// a limit, a variable that holds another one twice, which holds another one twice, fills any memory.
const TEXT_CAP: usize = 128 << 10;
/// Most bytes that all references to variables in one container are expanded to.
const EXPANSION_CAP: usize = 2 << 20;
/// Most files of one directory that are looked at.
const FILES_CAP: usize = 4096;

/// The static pods of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StaticPods {
    /// Every pod that could be read, in the order of the files.
    pub pods: Vec<StaticPod>,
    /// Pods that more than one file declares.
    pub rivals: Vec<Rivals>,
    /// What could not be read; with line and column where there are any.
    pub errors: Vec<EvidenceError>,
}

/// A pod that several files declare. kubelet runs one of them: the last by name when it lists the directory,
/// the last that changed when it is notified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rivals {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// The files, in kubelet's order.
    pub files: Vec<String>,
}

/// One pod of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPod {
    /// The file.
    pub file: String,
    /// Whether kubelet ignores it, because it is not the first document of its file.
    pub ignored: bool,
    /// Namespace; `default` when it names none.
    pub namespace: String,
    /// Name, to which kubelet appends the node's.
    pub name: String,
    /// Uid, when it names one; kubelet makes one up otherwise.
    pub uid: Option<String>,
    /// Its containers, init containers first.
    pub containers: Vec<Container>,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image; `None` when it names none.
    pub image: Option<String>,
    /// `command`, with references to variables expanded; empty when the image's entrypoint is used.
    pub command: Vec<Argument>,
    /// `args`, with references to variables expanded.
    pub args: Vec<Argument>,
    /// The variables that [`may_be_shown`].
    pub environment: Vec<DeclaredVariable>,
    /// Names of the variables that `command` and `args` refer to and that are only known at run time
    /// (`valueFrom`, `envFrom`). The references are left as `$(NAME)`.
    pub unresolved: Vec<String>,
    /// Whether it may have other variables, which are only known at run time (`envFrom`).
    pub other_variables: bool,
    /// Directories and files of the host that it sees.
    pub mounts: Vec<Mount>,
    /// Its user; `None` when that is the image's.
    pub uid: Option<u32>,
    /// Its group; `None` when that is the image's, or root's.
    pub gid: Option<u32>,
    /// Groups beside it.
    pub groups: Vec<u32>,
    /// The hosts that kubelet's probes ask over the network; empty text for one that asks the pod's own address.
    pub probes: Vec<String>,
}

/// An environment variable of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredVariable {
    /// Its name.
    pub name: String,
    /// Its value; `None` when it is only known at run time (`valueFrom`).
    pub value: Option<String>,
    /// Where it is set.
    pub origin: Origin,
}

/// A part of the host's file system that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path on the host.
    pub host: String,
    /// Path in the container.
    pub container: String,
}

impl StaticPods {
    /// Returns the static pods in the `directories` below `root`, read as kubelet reads them: every regular
    /// file whose name does not begin with a dot, whatever its extension, and of each file the first
    /// document. One of the `directories` may be a single file, and those that do not exist are left out.
    pub fn read<P: AsRef<Path>>(root: &Root, directories: impl IntoIterator<Item = P>) -> Self {
        let mut found = Self::default();
        for directory in directories {
            found.read_directory(root, directory.as_ref());
        }
        let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for pod in found.pods.iter().filter(|pod| !pod.ignored) {
            files.entry((&pod.namespace, &pod.name)).or_default().push(pod.file.clone());
        }
        let rivals = files.into_iter().filter(|(_, files)| files.len() > 1);
        found.rivals = rivals
            .map(|((namespace, name), files)| Rivals {
                namespace: namespace.clone(),
                name: name.clone(),
                files,
            })
            .collect();
        found
    }

    fn read_directory(&mut self, root: &Root, directory: &Path) {
        match root.stat(directory, &Users::default()).map(|file| file.kind) {
            Ok(FileKind::Directory) => {}
            Ok(FileKind::Regular) => return self.add(StaticPod::read(root, directory)),
            Ok(FileKind::Other) => return,
            Err(error) if error.kind == ErrorKind::NotFound => return,
            Err(error) => return self.errors.push(error),
        }
        let names = match root.list(directory, FILES_CAP) {
            Ok(names) => names,
            Err(error) => return self.errors.push(error),
        };
        let read = |name: &OsString| {
            let path = directory.join(name);
            match root.stat(&path, &Users::default()) {
                Ok(file) if file.kind == FileKind::Regular => StaticPod::read(root, &path),
                // kubelet does not descend, and skips what is no file.
                other => other.map(|_| Vec::new()),
            }
        };
        let visible = names.par_iter().filter(|name| !name.as_encoded_bytes().starts_with(b"."));
        for pods in visible.map(read).collect::<Vec<_>>() {
            self.add(pods);
        }
    }

    fn add(&mut self, pods: Result<Vec<StaticPod>, EvidenceError>) {
        match pods {
            Ok(pods) => self.pods.extend(pods),
            Err(error) => self.errors.push(error),
        }
    }
}

impl StaticPod {
    /// Returns the pods in the file at `path`.
    fn read(root: &Root, path: &Path) -> Result<Vec<Self>, EvidenceError> {
        Self::parse(&root.read(path, yaml::CAP)?, &root.origin(path))
    }

    /// Returns the pods in the manifest `bytes` (YAML or JSON), which are from the file `origin`.
    ///
    /// # Errors
    ///
    /// `Malformed`, with line and column, when the first document cannot be parsed. kubelet does not look at
    /// any other.
    pub fn parse(bytes: &[u8], origin: &Origin) -> Result<Vec<Self>, EvidenceError> {
        let mut pods = Vec::new();
        for (index, document) in yaml::documents::<RawPod>(bytes, origin).into_iter().enumerate() {
            match document {
                Ok(pod) if pod.kind.as_deref() == Some("Pod") => pods.push(pod.interpret(origin, index > 0)),
                Err(error) if index == 0 => return Err(error),
                _ => {}
            }
        }
        Ok(pods)
    }
}

impl Container {
    /// Returns where on the host `path` is, and what of the host is mounted for it; `None` when it is in the container only.
    pub fn on_host(&self, path: &str) -> Option<(String, &Mount)> {
        let inside = |mount: &Mount| {
            let rest = path.strip_prefix(mount.container.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
        };
        let mounts = self.mounts.iter().filter_map(|mount| Some((inside(mount)?, mount)));
        let (below, mount) = mounts.max_by_key(|(_, mount)| mount.container.len())?;
        Some((format!("{}{below}", mount.host.trim_end_matches('/')), mount))
    }

    /// Returns the whole command line. When there is no `command` its beginning is the image's entrypoint,
    /// which the manifest does not say.
    pub fn argv(&self) -> Vec<Argument> {
        self.command.iter().chain(&self.args).cloned().collect()
    }

    /// Returns the command line of the program that it runs, if it is one that `is_program`: see
    /// [`shell::program`].
    pub fn program(
        &self,
        is_program: impl Fn(&[u8]) -> bool,
    ) -> Option<Result<Vec<Argument>, EvidenceError>> {
        shell::program(&self.argv(), is_program)
    }
}

// The parts of the Pod API that matter here. A null is the same as nothing, as in Go.

#[derive(Deserialize)]
struct RawPod {
    kind: Option<String>,
    metadata: Option<RawMetadata>,
    spec: Option<RawSpec>,
}

#[derive(Default, Deserialize)]
struct RawMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    init_containers: Option<Vec<RawContainer>>,
    containers: Option<Vec<RawContainer>>,
    volumes: Option<Vec<RawVolume>>,
    security_context: Option<RawSecurity>,
}

/// The security context of a pod or of a container, of which each has its part.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSecurity {
    run_as_user: Option<u32>,
    run_as_group: Option<u32>,
    fs_group: Option<u32>,
    supplemental_groups: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainer {
    name: Option<String>,
    image: Option<String>,
    command: Option<Vec<Spanned<String>>>,
    args: Option<Vec<Spanned<String>>>,
    env: Option<Vec<RawVariable>>,
    env_from: Option<IgnoredAny>,
    volume_mounts: Option<Vec<RawMount>>,
    security_context: Option<RawSecurity>,
    liveness_probe: Option<RawProbe>,
    readiness_probe: Option<RawProbe>,
    startup_probe: Option<RawProbe>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProbe {
    http_get: Option<RawProbed>,
    tcp_socket: Option<RawProbed>,
    grpc: Option<RawProbed>,
}

#[derive(Deserialize)]
struct RawProbed {
    host: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVariable {
    name: Spanned<String>,
    value: Option<Spanned<String>>,
    value_from: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMount {
    name: Option<String>,
    mount_path: Option<String>,
    sub_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVolume {
    name: Option<String>,
    host_path: Option<RawHostPath>,
}

#[derive(Deserialize)]
struct RawHostPath {
    path: Option<String>,
}

impl RawPod {
    fn interpret(self, origin: &Origin, ignored: bool) -> StaticPod {
        let Self { metadata, spec, .. } = self;
        let metadata = metadata.unwrap_or_default();
        let spec = spec.unwrap_or_default();
        let security = spec.security_context.unwrap_or_default();
        let volumes: BTreeMap<_, _> = spec
            .volumes
            .into_iter()
            .flatten()
            .filter_map(|volume| Some((volume.name?, volume.host_path?.path?)))
            .collect();
        let containers = spec.init_containers.into_iter().chain(spec.containers).flatten();
        let file = match origin {
            Origin::File { path, .. } => path.clone(),
            other => other.to_string(),
        };
        StaticPod {
            file,
            ignored,
            namespace: metadata.namespace.filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned()),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.filter(|uid| !uid.is_empty()),
            containers: containers
                .map(|container| container.interpret(origin, &volumes, &security))
                .collect(),
        }
    }
}

impl RawContainer {
    fn interpret(self, origin: &Origin, volumes: &BTreeMap<String, String>, pod: &RawSecurity) -> Container {
        let mut variables = Variables {
            values: BTreeMap::new(),
            others: self.env_from.is_some(),
            budget: Cell::new(EXPANSION_CAP),
        };
        let mut environment = Vec::new();
        for variable in self.env.into_iter().flatten() {
            let place = yaml::place(origin, variable.value.as_ref().unwrap_or(&variable.name));
            let name = variable.name.value;
            // A value may refer to the variables before it.
            let value = match (variable.value, variable.value_from) {
                (None, Some(_)) => None,
                (value, _) => {
                    let mut unknown = Vec::new();
                    let value = variables.expand(&value.map(|v| v.value).unwrap_or_default(), &mut unknown);
                    unknown.is_empty().then_some(value)
                }
            };
            if may_be_shown(name.as_bytes()) {
                environment.push(DeclaredVariable {
                    name: name.clone(),
                    value: value.clone(),
                    origin: place,
                });
            }
            variables.values.insert(name, value);
        }
        let mut unresolved = Vec::new();
        let mut arguments = |texts: Option<Vec<Spanned<String>>>| -> Vec<_> {
            let argument = |text: Spanned<String>| Argument {
                text: variables.expand(&text.value, &mut unresolved).into_bytes(),
                origin: yaml::place(origin, &text),
            };
            texts.into_iter().flatten().map(argument).collect()
        };
        let (command, args) = (arguments(self.command), arguments(self.args));
        let mount = |mount: RawMount| {
            let host = volumes.get(&mount.name?)?;
            let host = match mount.sub_path.filter(|path| !path.is_empty()) {
                Some(path) => format!("{}/{path}", host.trim_end_matches('/')),
                None => host.clone(),
            };
            Some(Mount { host, container: mount.mount_path? })
        };
        let own = self.security_context.unwrap_or_default();
        let probes = [self.liveness_probe, self.readiness_probe, self.startup_probe].into_iter().flatten();
        let asked = probes.filter_map(|probe| probe.http_get.or(probe.tcp_socket).or(probe.grpc));
        Container {
            name: self.name.unwrap_or_default(),
            image: self.image,
            command,
            args,
            environment,
            unresolved,
            other_variables: variables.others,
            mounts: self.volume_mounts.into_iter().flatten().filter_map(mount).collect(),
            uid: own.run_as_user.or(pod.run_as_user),
            gid: own.run_as_group.or(pod.run_as_group),
            groups: pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group).collect(),
            probes: asked.map(|asked| asked.host.unwrap_or_default()).collect(),
        }
    }
}

/// The variables of a container, as far as a manifest tells.
struct Variables {
    /// Values by name; `None` when only known at run time.
    values: BTreeMap<String, Option<String>>,
    /// Whether there may be others (`envFrom`).
    others: bool,
    /// How many more bytes references may expand to.
    budget: Cell<usize>,
}

impl Variables {
    /// Returns `text` with `$(NAME)` replaced by the variable's value and `$$` by `$`, as kubelet does it. A
    /// reference to a variable that does not exist stays as it is; so does one to a variable that is not
    /// known here or too large, whose name is added to `unresolved`.
    fn expand(&self, text: &str, unresolved: &mut Vec<String>) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
                rest = after;
                let affordable = |value: &str| {
                    let left = self.budget.get().checked_sub(value.len())?;
                    (expanded.len() + value.len() <= TEXT_CAP).then_some(left)
                };
                match self.values.get(name) {
                    Some(Some(value)) if let Some(left) = affordable(value) => {
                        self.budget.set(left);
                        expanded.push_str(value);
                    }
                    known => {
                        if (known.is_some() || self.others) && !unresolved.iter().any(|n| n == name) {
                            unresolved.push(name.to_owned());
                        }
                        expanded.push_str(&format!("$({name})"));
                    }
                }
            } else {
                expanded.push('$');
            }
        }
        expanded + rest
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const KUBEADM: &str = r#"apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.0.0.1:2379
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    # members talk in the clear
    - --listen-peer-urls=http://10.0.0.1:2380
    - "--name=m1"
    image: registry.k8s.io/etcd:3.5.15-0
    livenessProbe:
      httpGet: {host: 127.0.0.1, path: /livez, port: 2381}
    name: etcd
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
    - {mountPath: /ca.crt, name: etcd-certs, subPath: ca.crt}
    - {mountPath: /tmp, name: scratch}
  hostNetwork: true
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki/etcd
      type: DirectoryOrCreate
    name: etcd-certs
  - hostPath:
      path: /var/lib/etcd
    name: etcd-data
  - name: scratch
    emptyDir: {}
"#;

    fn parse(text: &str) -> Vec<StaticPod> {
        StaticPod::parse(text.as_bytes(), &Origin::file("/m/etcd.yaml")).unwrap()
    }

    fn texts(arguments: &[Argument]) -> String {
        arguments.iter().map(|a| String::from_utf8_lossy(&a.text)).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn kubeadms_manifest() {
        for text in [KUBEADM.to_owned(), KUBEADM.replace('\n', "\r\n")] {
            let pods = parse(&text);
            let [pod] = &pods[..] else { panic!("{pods:?}") };
            assert_eq!((&*pod.namespace, &*pod.name, pod.ignored), ("kube-system", "etcd", false));
            let [container] = &pod.containers[..] else { panic!("{pod:?}") };
            let argv = container.program(|word| word == b"etcd").unwrap().unwrap();
            assert_eq!(texts(&argv), "etcd|--listen-peer-urls=http://10.0.0.1:2380|--name=m1");
            let places: Vec<_> = argv.iter().map(|a| a.origin.to_string()).collect();
            assert_eq!(places, ["/m/etcd.yaml:11:7", "/m/etcd.yaml:13:7", "/m/etcd.yaml:14:7"]);
            let mount =
                |host: &str, container: &str| Mount { host: host.into(), container: container.into() };
            assert_eq!(
                container.mounts,
                [
                    mount("/var/lib/etcd", "/var/lib/etcd"),
                    mount("/etc/kubernetes/pki/etcd/ca.crt", "/ca.crt")
                ]
            );
        }
    }

    #[test]
    fn every_form_of_a_list_has_its_places() {
        let pod = |list: &str| format!("kind: Pod\nspec:\n  containers:\n  - command: {list}\n");
        let cases = [
            (pod("[etcd, '--a=b']"), "etcd|--a=b", vec![(4, 15), (4, 21)]),
            (pod("[\n    etcd,\n    \"--a=b\",\n  ]"), "etcd|--a=b", vec![(5, 5), (6, 5)]),
            (pod("\n    - &e etcd\n    - >-\n      --a=b\n      c"), "etcd|--a=b c", vec![(5, 10), (7, 7)]),
            (pod("&l [etcd, --a]\n  - args: *l"), "etcd|--a", vec![(4, 18), (4, 24)]),
            ("x: &x {command: [etcd]}\nkind: Pod\nspec:\n  containers:\n  - <<: *x\n".into(), "etcd", vec![(1, 18)]),
            (
                "{\n\t\"kind\": \"Pod\",\n\t\"spec\": {\"containers\": [{\"command\": [\"etcd\",\n\t\t\"--a\"]}]}\n}".into(),
                "etcd|--a",
                vec![(3, 39), (4, 3)],
            ),
            (pod("[etcd]\n    command: [etcd, --last-wins]"), "etcd|--last-wins", vec![(5, 15), (5, 21)]),
            (pod("[etcd]\n    args: null\n    env: ~"), "etcd", vec![(4, 15)]),
        ];
        for (text, want, places) in cases {
            let pods = parse(&text);
            let argv = pods[0].containers.last().unwrap().argv();
            assert_eq!(texts(&argv), want, "{text}");
            let origins: Vec<_> =
                places.iter().map(|&(l, c)| Origin::file("/m/etcd.yaml").at(l, c)).collect();
            assert_eq!(argv.into_iter().map(|a| a.origin).collect::<Vec<_>>(), origins, "{text}");
        }
    }

    #[test]
    fn variables_that_grow_without_end_are_left_alone() {
        let mut text =
            "kind: Pod\nspec:\n  containers:\n  - command: [etcd, --name=$(V60), --a=$(V3)]\n    env:\n    \
            - {name: V0, value: aa}\n"
                .to_owned();
        for i in 1..=60 {
            let before = i - 1;
            text.push_str(&format!("    - {{name: V{i}, value: $(V{before})$(V{before})}}\n"));
        }
        let pods = parse(&text);
        let container = &pods[0].containers[0];
        assert_eq!(texts(&container.command), format!("etcd|--name=$(V60)|--a={}", "a".repeat(16)));
        assert_eq!(container.unresolved, ["V60"]);
    }

    #[test]
    fn variables_are_expanded_as_kubelet_does_it() {
        let text = "kind: Pod\nspec:\n  containers:\n  - command: [etcd, '--name=$(NAME)', '--a=$(IP):$(NONE)$$(NAME)$x$(', '$(PEM)']\n    \
            env:\n    - {name: HOST, value: m}\n    - {name: NAME, value: '$(HOST)1'}\n    \
            - {name: IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}\n    \
            - {name: ETCD_LISTEN, value: 'http://$(IP):1'}\n    - {name: ETCD_NAME, value: \"$(NAME)\"}\n    \
            - {name: ETCD_EMPTY}\n    - {name: ETCD_ROOT_PASSWORD, value: hunter2}\n";
        let pods = parse(text);
        let container = &pods[0].containers[0];
        assert_eq!(texts(&container.command), "etcd|--name=m1|--a=$(IP):$(NONE)$(NAME)$x$(|$(PEM)");
        assert_eq!(container.unresolved, ["IP"]);
        let shown: Vec<_> = container.environment.iter().map(|v| (&*v.name, v.value.as_deref())).collect();
        assert_eq!(shown, [("ETCD_LISTEN", None), ("ETCD_NAME", Some("m1")), ("ETCD_EMPTY", Some(""))]);
        assert_eq!(container.environment[1].origin, Origin::file("/m/etcd.yaml").at(10, 32));

        let pods = parse(&text.replace("    env:", "    envFrom: [{secretRef: {name: x}}]\n    env:"));
        assert_eq!(pods[0].containers[0].unresolved, ["IP", "NONE", "PEM"]);
    }

    #[test]
    fn of_several_documents_kubelet_runs_the_first() {
        let text = format!("---\n{KUBEADM}---\nkind: Service\nspec: just text\n---\n{KUBEADM}");
        let pods = parse(&text);
        assert_eq!(pods.iter().map(|pod| pod.ignored).collect::<Vec<_>>(), [false, true]);
        let pods = parse(&format!("{KUBEADM}---\nbroken: [\n"));
        assert_eq!(pods.len(), 1);
        assert!(parse("kind: ConfigMap\n---\nkind: Pod\n")[0].ignored);
        assert_eq!(parse(""), []);
    }

    #[test]
    fn what_cannot_be_parsed_is_an_error_with_its_place() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &('b'..='i')
                .map(|c| {
                    format!("{c}: &{c} [{}]\n", vec![format!("*{}", (c as u8 - 1) as char); 9].join(","))
                })
                .collect::<String>();
        let deep = "[".repeat(20_000);
        type Place = Option<(u32, u32)>;
        let cases: [(&[u8], Place); 6] = [
            (b"kind: Pod\nspec: {containers: [\n", None),
            (b"kind: Pod\nspec:\n\tcontainers: []\n", Some((3, 2))),
            (b"kind: Pod\nspec:\n  containers: text\n", Some((3, 15))),
            (bomb.as_bytes(), None),
            (deep.as_bytes(), None),
            (b"kind: Pod\nx: \xff\xfe\n", Some((2, 4))),
        ];
        for (text, place) in cases {
            let error = StaticPod::parse(text, &Origin::file("/m")).unwrap_err();
            println!("{error}");
            assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
            assert!(!error.message.contains('\n') && error.message.starts_with("/m"), "{error}");
            if let Some((line, column)) = place {
                assert_eq!(error.origin, Some(Origin::file("/m").at(line, column)), "{error}");
            }
        }
    }

    #[test]
    fn a_directory_is_read_as_kubelet_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = directory.path().join("etc/kubernetes/manifests");
        fs::create_dir_all(manifests.join("subdirectory")).unwrap();
        let write = |name: &str, text: &[u8]| fs::write(manifests.join(name), text).unwrap();
        write("etcd.yaml", KUBEADM.as_bytes());
        write("etcd.yaml.bak", KUBEADM.as_bytes());
        write(".etcd.yaml.swp", KUBEADM.as_bytes());
        write("subdirectory/etcd.yaml", KUBEADM.as_bytes());
        write("README", b"# not a pod\n");
        write("broken.yaml", b"a: b: c\n");
        fs::File::create(manifests.join("huge")).unwrap().set_len(100 << 20).unwrap();
        std::os::unix::fs::symlink("/gone", manifests.join("link")).unwrap();
        let root = Root::host(directory.path()).unwrap();

        let found = StaticPods::read(&root, ["/etc/kubernetes/manifests", "/none"]);
        let files: Vec<_> = found.pods.iter().map(|pod| pod.file.rsplit('/').next().unwrap()).collect();
        assert_eq!(files, ["etcd.yaml", "etcd.yaml.bak"]);
        let [rivals] = &found.rivals[..] else { panic!("{found:?}") };
        assert_eq!((&*rivals.namespace, &*rivals.name, rivals.files.len()), ("kube-system", "etcd", 2));
        let kinds: Vec<_> = found.errors.iter().map(|error| error.kind).collect();
        assert_eq!(
            kinds,
            [ErrorKind::Malformed, ErrorKind::TooLarge, ErrorKind::NotFound],
            "{:?}",
            found.errors
        );

        let found = StaticPods::read(&root, ["/etc/kubernetes/manifests/etcd.yaml"]);
        assert_eq!((found.pods.len(), found.errors.len()), (1, 0));
    }

    #[test]
    fn several_containers() {
        let text = "kind: Pod\nmetadata: {name: etcd}\nspec:\n  initContainers:\n  - {name: init, command: [cp]}\n  \
            containers:\n  - {name: etcd, image: x, command: [/bin/sh, -c, 'exec nice -n -19 etcd --name=a']}\n  \
            - {name: proxy, args: [grpc-proxy]}\n";
        let pods = parse(text);
        let programs: Vec<_> = pods[0]
            .containers
            .iter()
            .map(|c| (&*c.name, c.program(|word| word == b"etcd").map(|argv| texts(&argv.unwrap()))))
            .collect();
        assert_eq!(programs, [("init", None), ("etcd", Some("etcd|--name=a".to_owned())), ("proxy", None)]);
        assert_eq!(pods[0].namespace, "default");
    }

    proptest! {
        #[test]
        fn no_manifest_panics(lines in prop::collection::vec("( ){0,6}(- |kind: Pod|spec:|containers:|command:|env:|&a|\\*a|<<:|\\[|\\{|\\}|'|\"|\\||x|\t|---){1,3}", 0..12)) {
            let _ = StaticPod::parse(lines.join("\n").as_bytes(), &Origin::file("/m"));
        }

        #[test]
        fn mutilated_manifests_do_not_panic(at in 0..KUBEADM.len(), byte: u8) {
            let mut text = KUBEADM.as_bytes().to_vec();
            text[at] = byte;
            let _ = StaticPod::parse(&text, &Origin::file("/m"));
        }
    }
}
