//! kube-apiserver: pflag, and files that take the place of some flags or say more than a flag could.

mod audit_policy;
mod examine;
mod refusals;

use std::borrow::Cow;

use seaworthy_evidence::{Observed, Purpose, without_userinfo};
use seaworthy_settings::pflag::{self, Flag, Gate, Table, Takes};
use seaworthy_settings::{Given, Resolved};

use crate::serving::{self, Content, Needed};
use crate::{Component, KeyFiles, Program};

/// API servers.
pub static COMPONENT: Component = Component {
    name: "kube-apiserver",
    of_control_plane: true,
    special: Some(("kube_apiserver", "KubeApiserver")),
    settings: SETTINGS,
    program: Some(&PROGRAM),
};

/// The program of API servers.
pub static PROGRAM: Program = Program {
    package: Some("k8s.io/kubernetes/cmd/kube-apiserver"),
    is_called: |name| name == COMPONENT.name,
    is_other: |arguments| pflag::prints_and_exits(&TABLE, arguments),
    unit: "kube-apiserver.service",
    variable: None,
    config: None,
    files: &[
        "admission-control-config-file",
        "audit-policy-file",
        "audit-webhook-config-file",
        "authentication-config",
        "authentication-token-webhook-config-file",
        "authorization-config",
        "authorization-policy-file",
        "authorization-webhook-config-file",
        "client-ca-file",
        "egress-selector-config-file",
        "encryption-provider-config",
        "etcd-cafile",
        "etcd-certfile",
        "etcd-keyfile",
        "kubelet-certificate-authority",
        "kubelet-client-certificate",
        "kubelet-client-key",
        "oidc-ca-file",
        "peer-ca-file",
        "proxy-client-cert-file",
        "proxy-client-key-file",
        "requestheader-client-ca-file",
        "service-account-signing-key-file",
        "tls-cert-file",
        "tls-private-key-file",
        "token-auth-file",
        "tracing-config-file",
    ],
    kubeconfigs: &[
        "audit-webhook-config-file",
        "authentication-token-webhook-config-file",
        "authorization-webhook-config-file",
    ],
    folder: None,
    data: &[],
    resolve,
    listens: serving::listens,
    credentials: &[
        KeyFiles {
            purpose: Purpose::Client,
            certificate: "tls-cert-file",
            key: "tls-private-key-file",
            trusted: "client-ca-file",
        },
        KeyFiles {
            purpose: Purpose::Kubelet,
            certificate: "kubelet-client-certificate",
            key: "kubelet-client-key",
            trusted: "kubelet-certificate-authority",
        },
        KeyFiles {
            purpose: Purpose::Etcd,
            certificate: "etcd-certfile",
            key: "etcd-keyfile",
            trusted: "etcd-cafile",
        },
        KeyFiles {
            purpose: Purpose::Aggregation,
            certificate: "proxy-client-cert-file",
            key: "proxy-client-key-file",
            trusted: "requestheader-client-ca-file",
        },
    ],
    special: Some(examine::examine),
};

/// The settings that a snapshot keeps.
const SETTINGS: &[&str] = &[
    "admission-control",
    "admission-control-config-file",
    "advertise-address",
    "allow-privileged",
    "anonymous-auth",
    "api-audiences",
    "audit-log-compress",
    "audit-log-maxage",
    "audit-log-maxbackup",
    "audit-log-maxsize",
    "audit-log-mode",
    "audit-log-path",
    "audit-policy-file",
    "audit-webhook-config-file",
    "audit-webhook-mode",
    "authentication-config",
    "authentication-token-webhook-config-file",
    "authorization-config",
    "authorization-mode",
    "authorization-policy-file",
    "authorization-webhook-config-file",
    "bind-address",
    "cert-dir",
    "client-ca-file",
    "contention-profiling",
    "debug-socket-path",
    "disable-admission-plugins",
    "egress-selector-config-file",
    "enable-admission-plugins",
    "enable-bootstrap-token-auth",
    "encryption-provider-config",
    "encryption-provider-config-automatic-reload",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "etcd-prefix",
    "etcd-servers",
    "etcd-servers-overrides",
    "feature-gates",
    "kubelet-certificate-authority",
    "kubelet-client-certificate",
    "kubelet-client-key",
    "kubelet-preferred-address-types",
    "oidc-ca-file",
    "peer-ca-file",
    "profiling",
    "proxy-client-cert-file",
    "proxy-client-key-file",
    "request-timeout",
    "requestheader-allowed-names",
    "requestheader-client-ca-file",
    "runtime-config",
    "secure-port",
    "service-account-extend-token-expiration",
    "service-account-issuer",
    "service-account-key-file",
    "service-account-lookup",
    "service-account-max-token-expiration",
    "service-account-signing-endpoint",
    "service-account-signing-key-file",
    "service-cluster-ip-range",
    "tls-cert-file",
    "tls-cipher-suites",
    "tls-min-version",
    "tls-private-key-file",
    "token-auth-file",
    "tracing-config-file",
];

/// The flags of all releases.
static TABLE: Table = include!(concat!(env!("OUT_DIR"), "/kube_apiserver.rs"));

/// The files without which it exits, as `k8s.io/kubernetes/pkg/controlplane/apiserver` and `k8s.io/apiserver/pkg/server/options` of 1.35.4
/// read them before they serve.
const NEEDED: &[Needed] = &[
    always("admission-control-config-file", Content::Anything),
    always("audit-policy-file", Content::Anything),
    always("authentication-config", Content::Anything),
    always("authorization-config", Content::Anything),
    always("client-ca-file", Content::Certificates),
    always("encryption-provider-config", Content::Anything),
    always("etcd-cafile", Content::Certificates),
    always("etcd-certfile", Content::Certificates),
    always("etcd-keyfile", Content::Key),
    always("kubelet-certificate-authority", Content::Certificates),
    always("kubelet-client-certificate", Content::Certificates),
    always("kubelet-client-key", Content::Key),
    always("proxy-client-cert-file", Content::Certificates),
    always("proxy-client-key-file", Content::Key),
    always("requestheader-client-ca-file", Content::Certificates),
    always("service-account-signing-key-file", Content::Key),
    always("tls-cert-file", Content::Certificates),
    always("tls-private-key-file", Content::Key),
];

const fn always(setting: &'static str, content: Content) -> Needed {
    Needed { setting, content, when: |_| true, then: "" }
}

fn resolve(mut given: Given<'_>) -> Resolved {
    let mut resolved = pflag::resolve(&TABLE, SETTINGS, &given);
    if let Observed::Seen { value: settings, .. } = &mut resolved.settings {
        // Users and passwords in URLs are secrets.
        for setting in settings.values_mut() {
            let candidates = setting.overridden.iter_mut().map(|candidate| &mut candidate.value);
            for text in candidates.chain([&mut setting.value]) {
                if let Cow::Owned(clean) = without_userinfo(text) {
                    *text = clean;
                }
            }
        }
    }
    refusals::judge(&mut resolved, given.release);
    serving::missing(&mut given, &mut resolved, NEEDED);
    resolved
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use seaworthy_evidence::{
        ErrorKind, EvidenceError, Instance, InstanceFiles, KubeApiserver, Observed, Origin,
    };
    use seaworthy_settings::{Argument, ConfigText};

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\n";
    /// What no API server starts without.
    const LEAST: &str = "--etcd-servers=https://h:1 --service-account-issuer=i --service-account-key-file=/key \
                         --service-account-signing-key-file=/key";

    fn read(files: &BTreeMap<&str, String>, path: &str) -> Result<ConfigText, EvidenceError> {
        let text = match path {
            "/crt" => CERTIFICATE.to_owned(),
            "/key" => KEY.to_owned(),
            "/pub" => "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n".to_owned(),
            "/denied" => return Err(EvidenceError::new(ErrorKind::PermissionDenied, "denied")),
            path => match files.get(path) {
                Some(text) => text.clone(),
                None => return Err(EvidenceError::new(ErrorKind::NotFound, "no such file")),
            },
        };
        Ok(ConfigText { bytes: text.into_bytes(), changed_at: None, origin: Origin::file(path) })
    }

    fn given(line: &str, release: Option<&str>, runs: bool) -> Resolved {
        let argument = |(index, text): (u32, &str)| Argument {
            text: text.as_bytes().to_vec(),
            origin: Origin::Argv { pid: 7, index },
        };
        let arguments: Vec<Argument> = (1..).zip(line.split_whitespace()).map(argument).collect();
        let read = &mut |path: &str| read(&BTreeMap::from([("/some", "x".to_owned())]), path);
        resolve(Given {
            arguments: &arguments,
            environment: Ok(&[]),
            release,
            runs,
            read,
            list: &mut seaworthy_settings::no_list,
        })
    }

    /// Returns what it would exit for, the settings before it; `?` where that is not known.
    fn said(line: &str, release: Option<&str>) -> String {
        let resolved = given(line, release, false);
        match (resolved.fatal.as_slice(), resolved.doubt) {
            ([], None) => String::new(),
            ([], Some(_)) => "?".to_owned(),
            (fatal, _) => {
                fatal.iter().map(|f| format!("{}: {}", f.setting, f.message)).collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// Returns what there is to know of an API server with these arguments and files.
    fn examined(line: &str, files: &[(&'static str, &str)]) -> KubeApiserver {
        let files: BTreeMap<&str, String> =
            files.iter().map(|(path, text)| (*path, (*text).to_owned())).collect();
        let none = || EvidenceError::new(ErrorKind::NotFound, "none");
        let mut instance = Instance {
            id: "kube-apiserver".to_owned(),
            component: "kube-apiserver".to_owned(),
            process: Observed::failed(none()),
            version: Observed::seen("1.35.4".to_owned(), Origin::Build { pid: 7 }),
            settings: given(line, Some("1.35.4"), true).settings,
            config_file: None,
            ignored_environment: None,
            declared: Observed::failed(none()),
            drift: Observed::failed(none()),
            listeners: Observed::failed(none()),
            credentials: Vec::new(),
            files: InstanceFiles {
                authorities: None,
                config: None,
                unit: None,
                manifest_open_to: Observed::failed(none()),
                manifest: None,
                rival_manifests: Observed::failed(none()),
                pki: Observed::failed(none()),
                kubeconfigs: Observed::failed(none()),
                access: None,
            },
            etcd: None,
            etcd_proxy: None,
            kube_apiserver: None,
        };
        (PROGRAM.special.unwrap())(&mut instance, &mut |path, _| read(&files, path));
        let special = *instance.kube_apiserver.unwrap();
        assert!(!format!("{special:?}").contains("hunter2"), "{special:?}");
        special
    }

    #[test]
    fn what_no_api_server_starts_with_is_told() {
        let cases = [
            ("", ""),
            ("--service-account-signing-endpoint=/s", "service-account-signing-endpoint: --service-account"),
            ("--secure-port=0", "secure-port: --secure-port cannot be turned off with 0"),
            ("--authorization-mode=Node,RBAC", ""),
            ("--authorization-mode=Node,rbac", "authorization-mode: \"rbac\" is not a valid mode"),
            ("--authorization-mode=RBAC,RBAC", "authorization-mode: RBAC is specified more than once"),
            ("--authorization-mode=ABAC", "authorization-mode: mode ABAC needs --authorization-policy-file"),
            (
                "--authorization-policy-file=/some --authorization-mode=RBAC",
                "authorization-policy-file: it needs",
            ),
            ("--authorization-config=/some", ""),
            (
                "--authorization-config=/some --authorization-mode=RBAC",
                "authorization-mode: --authorization-config",
            ),
            ("--authorization-config=/none", "authorization-config: open /none: no such file"),
            ("--enable-admission-plugins=NodeRestriction,AlwaysPullImages", ""),
            (
                "--enable-admission-plugins=Noderestriction",
                "enable-admission-plugins: plugin \"Noderestriction\"",
            ),
            (
                "--enable-admission-plugins=PodSecurity --disable-admission-plugins=PodSecurity",
                "disable-admission-plugins: \"PodSecurity\" is enabled as well",
            ),
            (
                "--admission-control=PodSecurity --enable-admission-plugins=PodSecurity",
                "admission-control: it and",
            ),
            (
                "--encryption-provider-config-automatic-reload",
                "encryption-provider-config-automatic-reload: --encryption-provider-config-automatic-reload must",
            ),
            ("--encryption-provider-config=/none", "encryption-provider-config: open /none"),
            ("--request-timeout=-1s", "request-timeout: --request-timeout can not be negative"),
            ("--audit-log-maxage=-1", ""),
            ("--audit-log-path=- --audit-log-maxage=-1", "audit-log-maxage: --audit-log-maxage can't be"),
            (
                "--kubelet-client-certificate=/key --kubelet-client-key=/key",
                "kubelet-client-certificate: /key does",
            ),
            ("--client-ca-file=/denied", "?"),
            ("--insecure-port=8080", "insecure-port: unknown flag: --insecure-port"),
        ];
        for (more, want) in cases {
            let said = said(&format!("{LEAST} {more}"), Some("v1.35.4"));
            assert!(said.starts_with(want) && said.is_empty() == want.is_empty(), "{more}: {said}");
        }
        for (index, word) in LEAST.split_whitespace().enumerate() {
            let without: Vec<&str> = LEAST.split_whitespace().filter(|other| *other != word).collect();
            let said = said(&without.join(" "), Some("1.35.4"));
            let name = word.trim_start_matches('-').split('=').next().unwrap();
            assert!(said.starts_with(&format!("{name}: ")) && !said.contains("; "), "{index}: {said}");
        }
        assert_eq!(
            said(&format!("{LEAST} --enable-admission-plugins=Soon"), None),
            "?",
            "it may be of a newer release"
        );
    }

    #[test]
    fn users_and_passwords_of_urls_are_not_kept() {
        let resolved = given(
            "--etcd-servers=https://u:hunter2@h:1 --service-account-issuer=https://u:hunter2@i --service-account-issuer=j",
            None,
            true,
        );
        assert!(!format!("{resolved:?}").contains("hunter2"), "{resolved:?}");
        assert_eq!(resolved.settings.value().unwrap()["etcd-servers"].value, "https://***@h:1");
    }

    #[test]
    fn anonymous_callers_are_those_of_the_file_or_of_the_flag() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        // The arguments, the file, and whether they are let in, where, and why.
        let cases = [
            ("--authorization-mode=RBAC", "", (true, "", "not set; by default it is true")),
            ("--authorization-mode=RBAC --anonymous-auth=false", "", (false, "", "set by flag")),
            ("", "", (false, "", "switched off, because AlwaysAllow")),
            ("--authorization-mode=RBAC,AlwaysAllow", "", (false, "", "switched off")),
            ("--authorization-config=/z", "", (true, "", "not set")),
            ("--authorization-mode=RBAC", "jwt: []\n", (true, "", "not set")),
            ("--authorization-mode=RBAC", "anonymous: {enabled: false}\n", (false, "", "set in /a")),
            (
                "--authorization-mode=RBAC",
                "anonymous: {enabled: true, conditions: [{path: /livez}]}\n",
                (true, "/livez", "set in /a"),
            ),
        ];
        for (line, file, (enabled, paths, why)) in cases {
            let (line, file) = match file {
                "" => (line.to_owned(), String::new()),
                file => (format!("{line} --authentication-config=/a"), format!("{head}{file}")),
            };
            let special = examined(&line, &[("/a", &file)]);
            let anonymous = special.anonymous.value().unwrap();
            let of = anonymous.paths.clone().unwrap_or_default().join(",");
            assert_eq!((anonymous.enabled, of.as_str()), (enabled, paths), "{line} {file}");
            assert!(anonymous.why.starts_with(why), "{line}: {}", anonymous.why);
        }
    }

    #[test]
    fn authorizers_are_those_of_the_file_or_of_the_flag() {
        let file = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthorizationConfiguration\n\
                    authorizers: [{type: Node, name: node}, {type: Webhook, name: w, webhook: {timeout: 3s}}]\n";
        let modes = |line: &str| {
            let special = examined(line, &[("/z", file)]);
            special.authorization.value().unwrap().modes.join(",")
        };
        assert_eq!(modes(""), "AlwaysAllow");
        assert_eq!(modes("--authorization-mode=Node --authorization-mode=RBAC"), "Node,RBAC");
        assert_eq!(modes("--authorization-config=/z"), "Node,Webhook");
    }

    #[test]
    fn admission_plugins_are_on_by_default_or_by_flag() {
        let on = |line: &str, plugin: &str| {
            let special = examined(line, &[]);
            special.admission_plugins.value().unwrap().iter().any(|one| one == plugin)
        };
        let cases = [
            ("", "NamespaceLifecycle", true),
            ("", "NodeRestriction", false),
            ("", "NodeDeclaredFeatureValidator", true),
            ("", "PodGroupProtection", false),
            ("--enable-admission-plugins=NodeRestriction", "NodeRestriction", true),
            ("--enable-admission-plugins=NodeRestriction", "ServiceAccount", true),
            ("--disable-admission-plugins=ServiceAccount,PodSecurity", "ServiceAccount", false),
            ("--admission-control=NodeRestriction", "ServiceAccount", false),
            ("--admission-control=NodeRestriction", "NodeRestriction", true),
        ];
        for (line, plugin, want) in cases {
            assert_eq!(on(line, plugin), want, "{line}: {plugin}");
        }
    }

    #[test]
    fn limits_of_events_are_in_the_file_or_in_one_beside_it() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n";
        let limits = "limits: [{type: Server, qps: 5, burst: 10}]";
        let inline = format!(
            "{head}- {{name: PodSecurity, configuration: {{defaults: {{enforce: baseline}}}}}}\n- {{name: EventRateLimit, configuration: {{{limits}}}}}\n"
        );
        let beside = format!("{head}- {{name: EventRateLimit, path: limits.yaml}}\n");
        let none = format!("{head}- {{name: PodSecurity, path: p.yaml}}\n");
        for (file, want) in
            [(&inline, &["Server 5/s, burst 10"][..]), (&beside, &["Server 5/s, burst 10"]), (&none, &[])]
        {
            let files = [("/d/a", file.as_str()), ("/d/limits.yaml", limits)];
            let special = examined("--admission-control-config-file=/d/a", &files);
            assert_eq!(special.event_limits.value().unwrap(), want, "{file}");
        }
        let gone = examined("--admission-control-config-file=/d/a", &[("/d/a", beside.as_str())]);
        assert_eq!(gone.event_limits.error().unwrap().kind, ErrorKind::NotFound);
    }

    #[test]
    fn the_first_provider_of_the_entry_that_decides_encrypts() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        let keys = "{keys: [{name: a, secret: hunter2}]}";
        let cases = [
            (format!("- {{resources: [secrets], providers: [{{aescbc: {keys}}}, {{identity: {{}}}}]}}"), "aescbc,identity"),
            (format!("- {{resources: [secrets], providers: [{{identity: {{}}}}, {{aescbc: {keys}}}]}}"), "identity,aescbc"),
            (format!("- {{resources: [configmaps], providers: [{{aescbc: {keys}}}]}}"), "identity"),
            (format!("- {{resources: ['*.*'], providers: [{{secretbox: {keys}}}]}}"), "secretbox"),
            (format!("- {{resources: ['*.'], providers: [{{aesgcm: {keys}}}]}}"), "aesgcm"),
            (format!("- {{resources: ['*.apps'], providers: [{{aesgcm: {keys}}}]}}"), "identity"),
            (
                format!(
                    "- {{resources: [secrets], providers: [{{identity: {{}}}}]}}\n- {{resources: ['*.*'], providers: [{{aescbc: {keys}}}]}}"
                ),
                "identity",
            ),
            (
                "- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: k, endpoint: 'unix:///s'}}, {kms: {name: o}}]}".to_owned(),
                "kms v2,kms v1",
            ),
        ];
        for (entries, want) in cases {
            let file = format!("{head}{entries}\n");
            let special = examined("--encryption-provider-config=/e", &[("/e", &file)]);
            let secrets = &special.at_rest.value().unwrap()[0];
            assert_eq!(
                (secrets.resource.as_str(), secrets.providers.join(",").as_str()),
                ("secrets", want),
                "{file}"
            );
        }
        let json = format!(
            r#"{{"apiVersion":"apiserver.config.k8s.io/v1","kind":"EncryptionConfiguration","resources":[{{"resources":["secrets","deployments.apps"],"providers":[{{"secretbox":{{"keys":[{{"name":"a","secret":"{}"}}]}}}}]}}]}}"#,
            "hunter2"
        );
        let special = examined("--encryption-provider-config=/e", &[("/e", &json)]);
        let at_rest = special.at_rest.value().unwrap();
        assert_eq!(
            at_rest.iter().map(|one| one.resource.as_str()).collect::<Vec<_>>(),
            ["secrets", "deployments.apps"]
        );
        assert_eq!(at_rest[0].providers, ["secretbox"]);
        let alone = examined("--encryption-provider-config-automatic-reload=true", &[]);
        assert_eq!(alone.at_rest.value().unwrap()[0].providers, ["identity"], "that alone is nothing");
    }

    #[test]
    fn a_file_that_is_something_else_is_an_error_that_tells_nothing_of_it() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
        let bomb = format!(
            "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n{head}resources: *f\n"
        );
        let huge = format!("{head}resources: []\n#{}\n", "x".repeat(ConfigText::MAX));
        let cases = [
            "",
            "hunter2",
            "apiVersion: apiserver.config.k8s.io/v1\nkind: hunter2\nresources: []\n",
            "apiVersion: v1\nkind: EncryptionConfiguration\nresources: []\n",
            &format!(
                "{head}resources: [{{resources: [secrets], providers: [{{aescbc: {{keys: [{{secret: hunter2"
            ),
            &format!("{head}resources: hunter2\n"),
            &format!("{head}resources: [{{resources: [secrets], providers: [{{hunter2: {{}}}}]}}]\n"),
            &format!("{head}resources: [{{resources: [secrets], providers: []}}]\n"),
            &format!("{head}resources: []\nresources: []\n"),
            &bomb,
            &huge,
            "\u{0}\u{1}",
        ];
        for file in cases {
            let special = examined("--encryption-provider-config=/e", &[("/e", file)]);
            let error = special.at_rest.error();
            assert!(error.is_some_and(|error| !error.message.contains("hunter2")), "{file:.80}: {error:?}");
            assert!(special.authorization.value().is_some(), "nothing else depends on it");
        }
        let denied = examined("--encryption-provider-config=/denied", &[]);
        assert_eq!(denied.at_rest.error().unwrap().kind, ErrorKind::PermissionDenied);
    }

    #[test]
    fn the_audit_log_the_keys_and_the_timeout_are_told() {
        let special = examined(
            "--audit-log-path=/l --audit-log-maxage=0x1e --audit-webhook-config-file=/w --service-account-key-file=/pub \
             --service-account-key-file=/key --service-account-key-file=/none --tls-private-key-file=/key \
             --request-timeout=1h1m0.5s",
            &[],
        );
        let audit = special.audit.value().unwrap();
        let log = audit.log.as_ref().unwrap();
        assert_eq!((log.days.value(), log.megabytes.value()), (Some(&30), Some(&0)));
        assert!(audit.webhook && audit.policy.is_none());
        let keys = special.token_keys.value().unwrap();
        let keys: Vec<_> = keys.iter().map(|key| (key.holds.value().unwrap().as_str(), key.serves)).collect();
        assert_eq!(keys, [("public key", false), ("private key", true), ("nothing", false)]);
        assert_eq!(special.request_timeout.value(), Some(&3660.5));
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";
        let special = examined("--audit-policy-file=/p", &[("/p", policy)]);
        let audit = special.audit.value().unwrap();
        assert!(
            audit.log.is_none()
                && audit.policy.as_ref().unwrap().value().unwrap().iter().all(|one| one.enough)
        );
    }
}
