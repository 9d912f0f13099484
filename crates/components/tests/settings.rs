//! etcd's precedence, line by line, as it was tried on etcd 3.4.23, 3.5.1 and 3.6.13.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use seaworthy_components::etcd::SETTINGS;
use seaworthy_components::etcd::Version;
use seaworthy_components::etcd::settings::{
    Inputs, advertised, auto_tls, client_auth, initial_cluster, listen_urls, resolve, resolve_running,
};
use seaworthy_evidence::{ConfigFormat, ErrorKind, EvidenceError, Observed, Origin, Purpose, Setting};
use seaworthy_settings::{Argument, ConfigText, Resolved, Variable};

/// Inputs in short: arguments separated by spaces, variables likewise, the file that any path leads to.
#[derive(Clone, Copy, Default)]
struct Case<'a> {
    argv: &'a str,
    env: &'a str,
    file: Option<&'a str>,
    version: &'a str,
}

impl Case<'_> {
    fn resolve(self) -> Resolved {
        let arguments: Vec<&[u8]> = self.argv.split_whitespace().map(str::as_bytes).collect();
        let variables: Vec<(&str, &[u8])> = self
            .env
            .split_whitespace()
            .map(|pair| pair.split_once('=').map(|(name, value)| (name, value.as_bytes())).unwrap())
            .collect();
        run(&arguments, Ok(&variables), self.file.map(str::as_bytes), Version::parse(self.version))
    }
}

fn run(
    arguments: &[&[u8]],
    variables: Result<&[(&str, &[u8])], EvidenceError>,
    file: Option<&[u8]>,
    version: Option<Version>,
) -> Resolved {
    let arguments: Vec<Argument> = (1..)
        .zip(arguments)
        .map(|(index, text)| Argument { text: text.to_vec(), origin: Origin::Argv { pid: 812, index } })
        .collect();
    let variables = variables.map(|variables| {
        let variable = |(name, value): &(&str, &[u8])| Variable {
            name: (*name).to_owned(),
            value: value.to_vec(),
            origin: Origin::Environment { pid: 812, name: (*name).to_owned() },
        };
        variables.iter().map(variable).collect::<Vec<_>>()
    });
    resolve(Inputs {
        arguments: &arguments,
        environment: variables.as_deref().map_err(Clone::clone),
        version,
        read: &mut |path| {
            let origin = Origin::process_file(812, path);
            let bytes = file.ok_or_else(|| {
                EvidenceError::new(ErrorKind::NotFound, format!("{path}: no such file")).at(origin.clone())
            })?;
            Ok(ConfigText { bytes: bytes.to_vec(), changed_at: None, origin })
        },
    })
}

fn argv(argv: &str) -> Case<'_> {
    Case { argv, version: "3.5.1", ..Case::default() }
}

/// An etcd 3.5.1 with `file` as its configuration file.
fn file(file: &str) -> Case<'_> {
    Case { argv: "--config-file=/etc/etcd.yaml", file: Some(file), version: "3.5.1", ..Case::default() }
}

fn settings(resolved: &Resolved) -> &BTreeMap<String, Setting> {
    resolved.settings.value().unwrap_or_else(|| panic!("{:?}", resolved.settings.error()))
}

/// Compares the settings named in `want`: value, and a part of its explanation.
fn check(case: Case<'_>, want: &[(&str, &str, &str)]) -> Resolved {
    let resolved = case.resolve();
    let settings = settings(&resolved);
    for (name, value, why) in want {
        let got = &settings[*name];
        let context = format!("{name} of {:?} {:?} {:?}: {got:?}", case.argv, case.env, case.file);
        assert_eq!(got.value, *value, "{context}");
        assert!(got.why.contains(why), "{context}");
        assert_eq!(got.set, !value.is_empty(), "{context}");
    }
    resolved
}

fn messages(resolved: &Resolved) -> String {
    resolved.fatal.iter().map(|f| format!("{}: {}\n", f.setting, f.message)).collect()
}

#[track_caller]
fn fatal(case: Case<'_>, fragment: &str) {
    let got = messages(&case.resolve());
    assert!(
        got.contains(fragment),
        "{:?} {:?} {:?}: {got:?} lacks {fragment:?}",
        case.argv,
        case.env,
        case.file
    );
}

#[track_caller]
fn starts(case: Case<'_>) {
    assert_eq!(messages(&case.resolve()), "", "{:?} {:?} {:?}", case.argv, case.env, case.file);
}

const CERT: &str = "peer-cert-file";
const AUTH: &str = "peer-client-cert-auth";

#[test]
fn flags_are_read_as_go_reads_them() {
    for form in ["--peer-cert-file=/c", "--peer-cert-file /c", "-peer-cert-file=/c", "-peer-cert-file /c"] {
        let resolved = check(argv(form), &[(CERT, "/c", "set by flag")]);
        assert_eq!(settings(&resolved)[CERT].origin, Origin::Argv { pid: 812, index: 1 }, "{form}");
    }
    let resolved = check(argv("--peer-cert-file=/a -peer-cert-file /b"), &[(CERT, "/b", "set by flag")]);
    let lost = &settings(&resolved)[CERT].overridden;
    assert_eq!(lost.len(), 1);
    assert_eq!((lost[0].value.as_str(), lost[0].reason.contains("argv[2]")), ("/a", true), "{lost:?}");

    for (value, on) in [
        ("", "true"),
        ("=1", "true"),
        ("=t", "true"),
        ("=T", "true"),
        ("=TRUE", "true"),
        ("=true", "true"),
        ("=True", "true"),
        ("=0", "false"),
        ("=f", "false"),
        ("=F", "false"),
        ("=FALSE", "false"),
        ("=false", "false"),
        ("=False", "false"),
    ] {
        let resolved = check(argv(&format!("--{AUTH}{value} --name=n")), &[(AUTH, on, "set by flag")]);
        assert_eq!(settings(&resolved)[AUTH].on, Some(on == "true"), "{value}");
        assert_eq!(resolved.fatal, [], "{value}");
    }
    check(argv("--name a=b"), &[("name", "a=b", "set by flag")]);
    check(argv("--peer-cert-file --peer-key-file"), &[(CERT, "--peer-key-file", "set by flag")]);
    check(argv("--peer-cert-file="), &[(CERT, "", "set to nothing by flag")]);
    // An empty list of URLs changes nothing, not even a value before it.
    let lists = "--listen-peer-urls=http://10.0.0.1:2380 --listen-peer-urls=";
    check(argv(lists), &[("listen-peer-urls", "http://10.0.0.1:2380", "set by flag")]);
    check(
        argv("--listen-peer-urls="),
        &[("listen-peer-urls", "http://localhost:2380", "is empty, which changes nothing")],
    );
    check(argv("--data-dir="), &[("data-dir", "default.etcd", "not set")]);
    check(argv("-force=whatever --vv --name=n"), &[("name", "n", "")]);
}

#[test]
fn command_lines_that_etcd_refuses_are_predicted() {
    let cases = [
        ("--peer-client-cert-auth true", "no flag: etcd calls it not a valid flag"),
        ("--peer-client-cert-auth=yes", "invalid boolean value for -peer-client-cert-auth"),
        ("--peer-client-cert-auth=", "invalid boolean value"),
        (
            "--peer-client-file=x --peer-key-file=y",
            "provided but not defined: etcd 3.5.1 has no flag -peer-client-file",
        ),
        ("--peer-ca-file=x", "not defined"),
        ("--peer_cert_file=x", "not defined"),
        ("--tls-min-version=TLS1.2", "etcd 3.5.1 has no flag -tls-min-version"),
        ("-- --name=x", "after `--`"),
        ("-", "no flag"),
        ("---name=x", "bad flag syntax"),
        ("--=x", "bad flag syntax"),
        ("--name", "flag needs an argument"),
        ("--peer-cert-file=/c", "peer-key-file is not set"),
        ("--peer-key-file=/c", "peer-cert-file is not set"),
        ("--listen-peer-urls=https://10.0.0.1:2380", "KeyFile and CertFile are not presented"),
        (
            "--listen-client-urls=https://10.0.0.1:2379 --advertise-client-urls=https://10.0.0.1:2379",
            "must be provided for https://10.0.0.1:2379",
        ),
        ("--listen-metrics-urls=https://10.0.0.1:2381", "must be provided for https://10.0.0.1:2381"),
        (
            "--listen-peer-urls=https://10.0.0.1:2380,http://10.0.0.1:2380 --peer-cert-file=/c \
             --peer-key-file=/k",
            "address already in use",
        ),
        ("--listen-client-urls=http://10.0.0.1:2379", "--advertise-client-urls is required"),
        ("--listen-peer-urls=http://10.0.0.1:2380/", "URL must not contain a path"),
        ("--listen-peer-urls=http://example.com:2380", "expected IP in URL for binding"),
        ("--listen-peer-urls=10.0.0.1:2380", "does not have the form"),
        ("--listen-peer-urls=ftp://10.0.0.1:2380", "URL scheme must be"),
        (
            "--peer-cert-file=/c --peer-key-file=/k --peer-cert-allowed-cn=a --peer-cert-allowed-hostname=b",
            "mutually exclusive",
        ),
        (
            "--peer-cert-file=/c --peer-key-file=/k --peer-client-cert-file=/d",
            "peer-client-key-file is not set",
        ),
        ("--initial-cluster-state=foo", "clusterState"),
        ("--initial-cluster-state=", "new or existing"),
    ];
    for (line, fragment) in cases {
        fatal(argv(line), fragment);
    }
    let newer = |argv| Case { argv, version: "3.6.13", ..Case::default() };
    fatal(newer("--tls-min-version=TLS1.1"), "unexpected TLS version");
    fatal(newer("--tls-min-version=TLS1.3 --tls-max-version=TLS1.2"), "greater than max version");
    fatal(newer("--tls-min-version=TLS1.3 --cipher-suites=x"), "cipher suites cannot be configured");
    fatal(
        newer("--experimental-peer-skip-client-san-verification --peer-skip-client-san-verification"),
        "at the same time",
    );
    let removed = Case { version: "3.7.1", ..argv("--experimental-peer-skip-client-san-verification") };
    fatal(removed, "etcd 3.7.1 has no flag");
    fatal(argv("--heartbeat-interval=1000"), "--election-timeout[1000ms] should be at least as 5 times");
    fatal(argv("--election-timeout=60000"), "is too long");
    fatal(Case { env: "ETCD_QUOTA_BACKEND_BYTES=8G", ..argv("") }, "wants a whole number");
    fatal(argv("--cipher-suites=ECDHE-RSA-AES128-GCM-SHA256"), "unexpected TLS cipher suite");
    fatal(file("cipher-suites: [TLS_NONE]\n"), "unexpected TLS cipher suite");
    fatal(file("log-level: loud\n"), "invalid value \"loud\"");
    assert_eq!(file("initial-cluster-state: ''\n").resolve().fatal, []);
    let output = |value: &'static str| Case { version: "3.4.23", ..file(value) };
    assert!(output("log-output: stderr\n").resolve().settings.error().is_some());
    assert_eq!(output("log-output: [stderr]\n").resolve().fatal, []);
    let suites = "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 --cert-file=/c --key-file=/k";
    assert_eq!(argv(suites).resolve().fatal, []);
    let serves = "--listen-client-urls=https://10.0.0.1:2379 --advertise-client-urls=https://10.0.0.1:2379";
    fatal(argv(&format!("{suites} {serves}")), "HTTP/2 requires");
}

#[test]
fn command_lines_that_etcd_takes_are_not_complained_about() {
    for line in [
        "",
        "--",
        "--peer-cert-file= --peer-key-file=",
        "--peer-cert-file=/c --peer-key-file=/k",
        "--peer-cert-file=/c --peer-key-file=/k --listen-peer-urls=HTTPS://10.0.0.1:2380",
        "--listen-peer-urls=https://10.0.0.1:2380 --peer-auto-tls",
        // The client's certificate is loaded only for a listener with TLS.
        "--cert-file=/c",
        // The same port for TLS and plaintext, which only the client side takes.
        "--cert-file=/c --key-file=/k --listen-client-urls=https://10.0.0.1:2379,http://10.0.0.1:2379 \
         --advertise-client-urls=https://10.0.0.1:2379",
        "--peer-cert-allowed-cn=a --peer-cert-allowed-hostname=b",
        "--listen-client-urls=unixs:///run/etcd.sock --advertise-client-urls=http://localhost:2379 \
         --cert-file=/c --key-file=/k",
        "--listen-peer-urls=http://localhost:2380,http://[::1]:2380",
    ] {
        starts(argv(line));
    }
    let unknown = Case {
        argv: "--tls-min-version=TLS1.2 --proxy=off --peer-skip-client-san-verification",
        ..Case::default()
    };
    starts(unknown);
}

#[test]
fn an_unknown_flag_does_not_hide_what_follows() {
    let line = "--from-the-future --peer-cert-file=/c --another=value --peer-key-file=/k";
    let resolved = check(argv(line), &[(CERT, "/c", ""), ("peer-key-file", "/k", "")]);
    assert_eq!(resolved.fatal.len(), 2);
    // What stands alone after an unknown flag may be its value, even a secret one.
    assert!(!messages(&argv("--some-password hunter2").resolve()).contains("hunter2"));
}

#[test]
fn environment_counts_where_no_flag_is() {
    let env = |env| Case { env, version: "3.5.1", ..Case::default() };
    let resolved = check(
        env("ETCD_PEER_CERT_FILE=/c"),
        &[(CERT, "/c", "set by environment variable ETCD_PEER_CERT_FILE")],
    );
    let origin = Origin::Environment { pid: 812, name: "ETCD_PEER_CERT_FILE".to_owned() };
    assert_eq!(settings(&resolved)[CERT].origin, origin);
    check(env("ETCD_PEER_CLIENT_CERT_AUTH=True"), &[(AUTH, "true", "environment")]);
    check(
        env("ETCD_PEER_CERT_FILE="),
        &[(CERT, "", "not set: the environment variable ETCD_PEER_CERT_FILE is empty")],
    );
    check(env("ETCD_PEER_CERT_FILE=/a ETCD_PEER_CERT_FILE=/b"), &[(CERT, "/a", "")]);
    check(
        env("ETCD_PEER_CA_FILE=/ca ETCD_UNSUPPORTED_ARCH=arm64"),
        &[("peer-trusted-ca-file", "", "not set")],
    );
    starts(env("ETCD_PEER_CA_FILE=/ca ETCD_CA_FILE=/ca ETCD_VERSION=3.5.1 ETCD_peer_auto_tls=x"));
    check(env("ETCD_TLS_MIN_VERSION=TLS1.3"), &[("tls-min-version", "", "etcd 3.5.1 has no such setting")]);
    fatal(env("ETCD_PEER_CLIENT_CERT_AUTH=yes"), "invalid value for ETCD_PEER_CLIENT_CERT_AUTH");
    check(env("ETCD_PEER_CLIENT_CERT_AUTH=yes"), &[(AUTH, "", "not set")]);

    for env in ["ETCD_PEER_CERT_FILE=/c", "ETCD_PEER_CERT_FILE=/d", "ETCD_PEER_CERT_FILE="] {
        let case = Case { env, ..argv("--peer-cert-file=/c --peer-key-file=/k") };
        fatal(case, "conflicting environment variable ETCD_PEER_CERT_FILE is shadowed");
        let resolved = check(case, &[(CERT, "/c", "set by flag")]);
        assert_eq!(settings(&resolved)[CERT].overridden.len(), 1);
    }
    fatal(Case { env: "ETCD_LOG_LEVEL=info", ..argv("--log-level=info") }, "log-level: conflicting");
}

#[test]
fn a_configuration_file_replaces_flags_and_environment() {
    let plain = "listen-peer-urls: http://10.0.0.1:2380\n";
    let flags = "--config-file=/etc/etcd.yaml --listen-peer-urls=https://10.0.0.1:2380 --peer-cert-file /c \
                 --peer-key-file=/k";
    let case = Case { argv: flags, env: "ETCD_PEER_TRUSTED_CA_FILE=/ca", ..file(plain) };
    let resolved = check(
        case,
        &[
            ("listen-peer-urls", "http://10.0.0.1:2380", "set in the configuration file"),
            (CERT, "", "not set: the flag at argv[3] is ignored because a configuration file is in use"),
            ("peer-trusted-ca-file", "", "environment variable ETCD_PEER_TRUSTED_CA_FILE is ignored"),
            ("peer-auto-tls", "", "not set"),
        ],
    );
    let overridden = &settings(&resolved)["listen-peer-urls"].overridden;
    assert_eq!(overridden[0].value, "https://10.0.0.1:2380");
    assert!(overridden[0].reason.contains("/etc/etcd.yaml"), "{overridden:?}");
    let origin = Origin::process_file(812, "/etc/etcd.yaml").at(1, 1);
    assert_eq!(settings(&resolved)["listen-peer-urls"].origin, origin);
    starts(case);

    let tls =
        "listen-peer-urls: https://10.0.0.1:2380\npeer-transport-security: {cert-file: /c, key-file: /k}\n";
    let by_variable =
        Case { argv: "--listen-peer-urls=http://10.0.0.1:2380", env: "ETCD_CONFIG_FILE=/e", ..file(tls) };
    check(by_variable, &[("listen-peer-urls", "https://10.0.0.1:2380", ""), (CERT, "/c", "")]);
    starts(by_variable);

    // The flag wins over the variable, an empty one does not, and conflicts are not looked at with a file.
    for (argv, env, path) in [
        ("--config-file=/a", "ETCD_CONFIG_FILE=/b", "/a"),
        ("--config-file=", "ETCD_CONFIG_FILE=/b", "/b"),
        ("-config-file /a --name=x", "ETCD_NAME=y ETCD_PEER_CLIENT_CERT_AUTH=yes", "/a"),
    ] {
        let resolved = Case { argv, env, ..file(plain) }.resolve();
        assert_eq!(resolved.config_file.as_ref().unwrap().value().unwrap().path, path, "{argv}");
        assert_eq!(resolved.fatal, [], "{argv}");
    }
    fatal(Case { argv: "--config-file=/a --zzz", ..file(plain) }, "not defined");
    // No advertised URL is demanded with a file.
    let alone = file("listen-client-urls: http://10.0.0.1:2379\n");
    check(alone, &[("advertise-client-urls", "http://localhost:2379", "not set")]);
    starts(alone);
}

#[test]
fn what_cannot_be_read_is_not_guessed() {
    let denied = || EvidenceError::new(ErrorKind::PermissionDenied, "/proc/812/environ: permission denied");
    let resolved = run(&[b"--name=x"], Err(denied()), None, None);
    assert_eq!(resolved.settings, Observed::failed(denied()));
    assert_eq!(resolved.config_file, None);
    let resolved = run(&[b"--config-file=/e"], Err(denied()), Some(b"name: m1"), None);
    assert_eq!(settings(&resolved)["name"].value, "m1");
    let resolved = run(&[b"--config-file=/e"], Ok(&[]), None, None);
    assert_eq!(resolved.settings.error().unwrap().kind, ErrorKind::NotFound);
    assert_eq!(resolved.config_file.unwrap().error().unwrap().kind, ErrorKind::NotFound);
    assert_eq!(resolved.fatal.len(), 1);
}

#[test]
fn defaults_are_those_of_the_release() {
    let none = |version| Case { version, ..Case::default() };
    check(
        none("3.5.1"),
        &[
            (
                "listen-peer-urls",
                "http://localhost:2380",
                "not set, so it is etcd's default http://localhost:2380",
            ),
            ("initial-advertise-peer-urls", "http://localhost:2380", "default"),
            ("listen-client-urls", "http://localhost:2379", "default"),
            ("advertise-client-urls", "http://localhost:2379", "default"),
            ("data-dir", "default.etcd", "default"),
            ("name", "default", "default"),
            ("initial-cluster", "default=http://localhost:2380", "default"),
            ("initial-cluster-state", "new", "default"),
            ("self-signed-cert-validity", "1", "default"),
            ("tls-min-version", "", "etcd 3.5.1 has no such setting"),
            (CERT, "", "not set"),
            (AUTH, "", "not set"),
        ],
    );
    check(
        none("3.4.23"),
        &[("self-signed-cert-validity", "", ""), ("peer-client-cert-file", "", "no such setting")],
    );
    check(none("3.6.13"), &[("tls-min-version", "TLS1.2", "default")]);
    let resolved = none("3.5.1").resolve();
    assert_eq!(settings(&resolved)[AUTH].on, Some(false));
    assert_eq!(settings(&resolved)[CERT].on, None);
    let default = Origin::Default { component: "etcd".to_owned(), version: Some("3.5.1".to_owned()) };
    assert_eq!(settings(&resolved)["name"].origin, default);
    assert!(SETTINGS.iter().all(|name| settings(&resolved).contains_key(*name)));
    check(
        argv("--name m1 --initial-advertise-peer-urls=https://10.0.0.1:2380,https://10.0.0.2:2380"),
        &[
            ("data-dir", "m1.etcd", "default"),
            ("initial-cluster", "m1=https://10.0.0.1:2380,m1=https://10.0.0.2:2380", "default"),
        ],
    );
    check(argv("--discovery-srv=example.org"), &[("initial-cluster", "", "not set")]);
    check(argv("--listen-client-urls=http://10.0.0.1:2379"), &[("advertise-client-urls", "", "not set")]);
    // Certificates and no listen URL: plaintext on the default port.
    check(
        argv("--peer-cert-file=/c --peer-key-file=/k"),
        &[("listen-peer-urls", "http://localhost:2380", "not set")],
    );
}

#[test]
fn the_file_is_read_as_yaml_1_1_by_go() {
    let full = "\
# etcd
name: m1
listen-peer-urls: https://10.0.0.1:2380,http://10.0.0.1:2390
cipher-suites: [TLS_A, TLS_B]
self-signed-cert-validity: 010
peer-transport-security:
  cert-file: /c
  key-file: '/k'
  client-cert-auth: yes
  trusted-ca-file: /ca
  auto-tls: off
client-transport-security: {cert-file: /cc, key-file: /ck, client-cert-auth: On}
";
    let resolved = check(
        file(full),
        &[
            ("name", "m1", "set in the configuration file"),
            ("listen-peer-urls", "https://10.0.0.1:2380,http://10.0.0.1:2390", ""),
            ("cipher-suites", "TLS_A,TLS_B", ""),
            ("self-signed-cert-validity", "8", ""),
            (CERT, "/c", ""),
            ("peer-key-file", "/k", ""),
            (AUTH, "true", ""),
            ("peer-trusted-ca-file", "/ca", ""),
            ("peer-auto-tls", "false", ""),
            ("cert-file", "/cc", ""),
            ("client-cert-auth", "true", ""),
        ],
    );
    let config = resolved.config_file.as_ref().unwrap().value().unwrap();
    assert_eq!((config.format, config.ignored.len()), (ConfigFormat::Yaml, 0), "{:?}", config.ignored);
    assert_eq!(settings(&resolved)[CERT].origin, Origin::process_file(812, "/etc/etcd.yaml").at(7, 3));

    let json = r#"{"name": "m1", "peer-transport-security": {"cert-file": "/c", "client-cert-auth": true}}"#;
    let resolved = check(file(json), &[("name", "m1", ""), (CERT, "/c", ""), (AUTH, "true", "")]);
    assert_eq!(resolved.config_file.unwrap().value().unwrap().format, ConfigFormat::Json);

    for (text, name, value) in [
        ("Peer-Transport-Security: {CERT-FILE: /c}", CERT, "/c"),
        ("NAME: upper\nname: lower", "name", "lower"),
        ("name: lower\nNAME: upper", "name", "lower"),
        ("name: one\nname: two", "name", "two"),
        ("peer-transport-security: {cert-file: /a}\npeer-transport-security: {key-file: /b}", CERT, ""),
        ("peer-transport-security: {cert-file: /a}\nPEER-TRANSPORT-SECURITY: {key-file: /b}", CERT, "/a"),
        ("peer-transport-security: {client-cert-auth: y}", AUTH, "true"),
        ("peer-transport-security: {client-cert-auth: ~}", AUTH, ""),
        ("peer-transport-security:\n", AUTH, ""),
        ("name: ~", "name", "default"),
        ("name: !!str 5", "name", "5"),
        ("name: '5'", "name", "5"),
        ("name:\ta", "name", "a"),
        ("self-signed-cert-validity: 1_0", "self-signed-cert-validity", "10"),
        ("self-signed-cert-validity: 2.0", "self-signed-cert-validity", "2"),
        ("listen-peer-urls: ''", "listen-peer-urls", "http://localhost:2380"),
        ("x: &x {name: merged}\n<<: *x", "name", "merged"),
        ("a: &a {cert-file: /c}\npeer-transport-security:\n  <<: *a", CERT, "/c"),
        ("name: &n m1\ndata-dir: *n", "data-dir", "m1"),
        ("---\nname: a\n---\nname: b", "name", "a"),
        ("name: a\n...\n: : :", "name", "a"),
        ("# nothing\n", "name", "default"),
        ("", "name", "default"),
        ("\u{feff}name: bom", "name", "bom"),
        ("5: b\nyes: 3\nname: a", "name", "a"),
        ("x: !foo bar\nname: a", "name", "a"),
        ("x: .inf\nname: a", "name", "a"),
    ] {
        let resolved = file(text).resolve();
        let error = resolved.settings.error();
        assert!(error.is_none(), "{text:?}: {error:?}");
        assert_eq!(settings(&resolved)[name].value, value, "{text:?}");
    }
}

#[test]
fn what_the_file_cannot_say_is_an_error_with_its_place() {
    let cases = [
        ("peer-transport-security:\n  client-cert-auth: \"true\"\n", 2, "client-cert-auth is a string"),
        ("name: 5", 1, "name is a number where etcd wants a string"),
        ("peer-transport-security: {cert-file: true}", 1, "cert-file is a boolean"),
        ("peer-transport-security: x", 1, "peer-transport-security is a string"),
        ("listen-peer-urls: [http://10.0.0.1:2380]", 1, "listen-peer-urls is a list"),
        ("heartbeat-interval: \"100\"", 1, "heartbeat-interval is a string"),
        ("self-signed-cert-validity: -1", 1, "a positive integer"),
        ("cipher-suites: TLS_A", 1, "a list of strings"),
        ("grpc-keepalive-timeout: 5s", 1, "an integer"),
        ("PeerTLSInfo: {AllowedCN: y}", 1, "AllowedCN is a boolean"),
        ("hello", 1, "the file is a string"),
        ("- a", 1, "the file is a list"),
        ("\n~: b", 2, "a key that is no text"),
        ("name: m1\n  x: [", 2, "etcd cannot read the file"),
        ("LPUrls: [{Scheme: http, Host: 'x:1'}]", 1, "Go field"),
    ];
    for (text, line, message) in cases {
        let resolved = file(text).resolve();
        let error = resolved.settings.error().unwrap_or_else(|| panic!("{text:?} was read"));
        assert!(error.message.contains(message), "{text:?}: {error:?}");
        let Some(Origin::File { line: Some(got), column: Some(_), .. }) = &error.origin else {
            panic!("{text:?}: {error:?}");
        };
        assert_eq!(*got, line, "{text:?}: {error:?}");
        assert_eq!(resolved.config_file.unwrap().error(), Some(error), "{text:?}");
        // What etcd reads, and we do not, stops nobody.
        let stops = usize::from(error.kind == ErrorKind::Malformed);
        assert_eq!((resolved.fatal.len(), stops == 0), (stops, message == "Go field"), "{text:?}");
    }
    let latin = run(&[b"--config-file=/e"], Ok(&[]), Some(b"name: m1\nx: caf\xe9\n"), None);
    assert_eq!(latin.settings.error().unwrap().origin, Some(Origin::process_file(812, "/e").at(2, 7)));
    let huge = run(&[b"--config-file=/e"], Ok(&[]), Some(&vec![b' '; ConfigText::MAX + 1]), None);
    assert_eq!(huge.settings.error().unwrap().kind, ErrorKind::TooLarge);
    assert_eq!(huge.fatal, [], "etcd may read more than we do");
}

#[test]
fn no_bomb_goes_off() {
    let mut laughs = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for (name, before) in ('b'..='i').zip('a'..) {
        let items = [format!("*{before}").as_str(); 9].join(", ");
        laughs.push_str(&format!("{name}: &{name} [{items}]\n"));
    }
    let deep = "[".repeat(20_000);
    let wide = "- a\n".repeat(100_000);
    for text in [laughs, deep, "{a: ".repeat(200), wide] {
        let started = std::time::Instant::now();
        let resolved = file(&text).resolve();
        assert_eq!(resolved.settings.error().unwrap().kind, ErrorKind::Malformed);
        assert!(started.elapsed().as_secs() < 60);
    }
}

#[test]
fn keys_without_effect_are_reported() {
    // key, suggestion, whether it looks like security; the setting that somebody wanted to set.
    type Row<'a> = (&'a str, &'a str, Option<&'a str>, bool, Option<&'a str>);
    let rows: &[Row<'_>] = &[
        ("peer-cert-file: /c", "peer-cert-file", Some("peer-transport-security.cert-file"), true, Some(CERT)),
        (
            "peer-client-cert-auth: true",
            AUTH,
            Some("peer-transport-security.client-cert-auth"),
            true,
            Some(AUTH),
        ),
        (
            "peer-transport-security: {peer-client-cert-auth: true}",
            "peer-transport-security.peer-client-cert-auth",
            Some("peer-transport-security.client-cert-auth"),
            true,
            Some(AUTH),
        ),
        (
            "client-cert-auth: true",
            "client-cert-auth",
            Some("client-transport-security.client-cert-auth"),
            true,
            None,
        ),
        (
            "peer-transport-security: {trusted-ca: /ca}",
            "peer-transport-security.trusted-ca",
            None,
            true,
            None,
        ),
        (
            "peer-transport-security: {cert_file: /c}",
            "peer-transport-security.cert_file",
            Some("peer-transport-security.cert-file"),
            true,
            Some(CERT),
        ),
        (
            "peer-transport-security: {allowed-cn: x}",
            "peer-transport-security.allowed-cn",
            Some("PeerTLSInfo.AllowedCN"),
            true,
            Some("peer-cert-allowed-cn"),
        ),
        ("peer-crl-file: /crl", "peer-crl-file", Some("PeerTLSInfo.CRLFile"), true, Some("peer-crl-file")),
        (
            "peer-transport-securty: {cert-file: /c}",
            "peer-transport-securty",
            Some("peer-transport-security"),
            true,
            Some(CERT),
        ),
        (
            "peer_transport_security: {cert-file: /c}",
            "peer_transport_security",
            Some("peer-transport-security"),
            true,
            Some(CERT),
        ),
        ("listen-peer-url: https://10.0.0.1:2380", "listen-peer-url", Some("listen-peer-urls"), true, None),
        ("log-levl: debug", "log-levl", Some("log-level"), false, None),
        ("colour: blue", "colour", None, false, None),
        (
            "peer-transport-security: {ca-file: /ca}",
            "peer-transport-security.ca-file",
            Some("peer-transport-security.trusted-ca-file"),
            true,
            Some("peer-trusted-ca-file"),
        ),
        (
            "peer-client-file: /c",
            "peer-client-file",
            Some("peer-transport-security.cert-file"),
            true,
            Some(CERT),
        ),
        ("tls-min-version: TLS1.3", "tls-min-version", None, true, None),
        (
            "PeerTLSInfo: {CertFile: /c}",
            "PeerTLSInfo.CertFile",
            Some("peer-transport-security.cert-file"),
            true,
            Some(CERT),
        ),
        (
            "PeerAutoTLS: true",
            "PeerAutoTLS",
            Some("peer-transport-security.auto-tls"),
            true,
            Some("peer-auto-tls"),
        ),
        ("name: a\nname: b", "name", None, false, None),
    ];
    for (text, key, suggestion, security, meant) in rows {
        let resolved = file(text).resolve();
        let config = resolved.config_file.as_ref().unwrap().value().unwrap();
        let [got] = config.ignored.as_slice() else { panic!("{text}: {:?}", config.ignored) };
        assert_eq!(
            (got.key.as_str(), got.suggestion.as_deref(), got.about_security),
            (*key, *suggestion, *security),
            "{text}: {got:?}"
        );
        assert!(
            matches!(&got.origin, Origin::File { line: Some(1), column: Some(_), .. }),
            "{text}: {got:?}"
        );
        if let Some(meant) = meant {
            let why = &settings(&resolved)[*meant].why;
            assert!(why.contains(&format!("the file says {key} at line 1")), "{text}: {why}");
        }
        assert_eq!(resolved.fatal, [], "{text}");
    }
    let resolved = file("listen-peer-urls: http://10.0.0.1:2380\n\n\npeer-cert-file: /c\n").resolve();
    assert_eq!(
        settings(&resolved)[CERT].why,
        "not set: the file says peer-cert-file at line 4, but etcd 3.5.1 does not know it there; \
         peer-transport-security.cert-file was probably meant"
    );
}

#[test]
fn variables_that_etcd_does_not_know_are_named() {
    // The version, the variable, what was probably meant, whether it is about security; `None`: not named.
    type Row = (&'static str, &'static str, Option<(Option<&'static str>, bool)>);
    let rows: &[Row] = &[
        ("3.5.1", "ETCD_PEER_CERT_FILE", None),
        ("3.5.1", "ETCD_LOG_LEVEL", None),
        ("3.5.1", "ETCD_CONFIG_FILE", None),
        ("3.5.1", "ETCD_UNSUPPORTED_ARCH", None),
        ("3.5.1", "ETCD_VERSION", None),
        ("3.5.1", "ETCDCTL_CACERT", None),
        ("3.5.1", "SSL_CERT_FILE", None),
        ("3.5.1", "ETCD_SERVICE_HOST", None),
        ("3.5.1", "ETCD_AUTH_SERVICE_PORT_HTTPS", None),
        ("3.5.1", "ETCD_PORT", None),
        ("3.5.1", "ETCD_PORT_2379_TCP_ADDR", None),
        ("3.5.1", "ETCD_PEER_CA_FILE", Some((Some("ETCD_PEER_TRUSTED_CA_FILE"), true))),
        ("3.5.1", "ETCD_CA_FILE", Some((Some("ETCD_TRUSTED_CA_FILE"), true))),
        ("3.5.1", "ETCD_PEER_CLIENT_FILE", Some((Some("ETCD_PEER_CERT_FILE"), true))),
        ("3.5.1", "ETCD_PEER_CERTFILE", Some((Some("ETCD_PEER_CERT_FILE"), true))),
        ("3.5.1", "ETCD_LISTEN_PEER_URL", Some((Some("ETCD_LISTEN_PEER_URLS"), true))),
        ("3.5.1", "ETCD_PEER-CERT-FILE", Some((Some("ETCD_PEER_CERT_FILE"), true))),
        ("3.5.1", "ETCD_peer_cert_file", Some((Some("ETCD_PEER_CERT_FILE"), true))),
        ("3.5.1", "ETCD_LOG_LEVL", Some((Some("ETCD_LOG_LEVEL"), false))),
        ("3.5.1", "ETCD_PEER_TRANSPORT_SECURITY", Some((None, true))),
        ("3.5.1", "ETCD_PEER_SKIP_CLIENT_SAN_VERIFICATION", Some((None, true))),
        ("3.6.0", "ETCD_PEER_SKIP_CLIENT_SAN_VERIFICATION", None),
        ("3.5.1", "ETCD_COLOUR", Some((None, false))),
    ];
    for (version, name, want) in rows {
        let secret = format!("{name}=hunter2");
        let resolved = Case { env: &secret, version, ..Case::default() }.resolve();
        let ignored = resolved.ignored_environment.as_ref().unwrap().value().unwrap();
        assert!(!format!("{ignored:?}").contains("hunter2"), "{name}");
        let got = ignored.first().map(|key| {
            assert_eq!((key.key.as_str(), ignored.len()), (*name, 1));
            assert_eq!(key.reason, format!("etcd {version} does not know it"));
            assert!(matches!(&key.origin, Origin::Environment { name: at, .. } if at == name), "{key:?}");
            (key.suggestion.as_deref(), key.about_security)
        });
        assert_eq!(got, *want, "{name} of {version}");
    }
}

#[test]
fn with_a_configuration_file_only_unknown_variables_are_named() {
    let env = "ETCD_PEER_CERT_FILE=/c ETCD_PEER_CA_FILE=/ca";
    let resolved = Case { env, ..file("name: m1") }.resolve();
    let [key] = &resolved.ignored_environment.as_ref().unwrap().value().unwrap()[..] else {
        panic!("{resolved:?}")
    };
    assert_eq!(key.key, "ETCD_PEER_CA_FILE");
    assert!(key.reason.contains("the configuration file /etc/etcd.yaml is in use"), "{key:?}");

    let denied = EvidenceError::new(ErrorKind::PermissionDenied, "denied");
    let resolved = run(&[b"--config-file=/e"], Err(denied.clone()), Some(b"name: m1"), None);
    assert_eq!(resolved.ignored_environment, Some(Observed::failed(denied)));
    assert!(resolved.settings.value().is_some());
}

#[test]
fn keys_depend_on_the_release() {
    let allowed = "peer-transport-security: {allowed-cn: x}";
    let list = "peer-transport-security: {allowed-cn: [x, z]}";
    let cn = "peer-cert-allowed-cn";
    for (version, text, want) in [
        ("3.4.23", allowed, Some("")),
        ("3.5.1", list, Some("")),
        ("3.5.14", allowed, Some("x")),
        ("3.5.15", allowed, None),
        ("3.5.15", list, Some("x,z")),
        ("3.6.13", allowed, None),
        ("3.6.13", list, Some("x,z")),
        ("", allowed, Some("x")),
        ("", list, Some("x,z")),
        ("3.5.1", "PeerTLSInfo: {AllowedCN: x}", Some("x")),
        ("3.6.13", "peertlsinfo: {ALLOWEDCN: x}", Some("x")),
    ] {
        let resolved = Case { version, ..file(text) }.resolve();
        let got = resolved.settings.value().map(|s| s[cn].value.as_str());
        assert_eq!(got, want, "{version} {text}: {:?}", resolved.settings.error());
    }
    let skip = "peer-transport-security: {skip-client-san-verification: true}";
    let skips = |version| {
        let resolved = Case { version, ..file(skip) }.resolve();
        settings(&resolved)["peer-skip-client-san-verification"].on
    };
    assert_eq!((skips("3.5.33"), skips("3.6.13")), (Some(false), Some(true)));
    // From 3.6 on an empty section is fatal, but only the peers' and only in this spelling.
    for (version, text, reads) in [
        ("3.5.1", "peer-transport-security:", true),
        ("3.6.13", "peer-transport-security:", false),
        ("3.6.13", "Peer-Transport-Security:", true),
        ("3.6.13", "client-transport-security:", true),
    ] {
        assert_eq!(
            Case { version, ..file(text) }.resolve().settings.error().is_none(),
            reads,
            "{version} {text}"
        );
    }
    let crl = "PeerTLSInfo: {CRLFile: /crl}\nClientTLSInfo: {CRLFile: /ccrl}";
    check(file(crl), &[("peer-crl-file", "/crl", ""), ("client-crl-file", "/ccrl", "")]);
}

#[test]
fn client_certificates_are_demanded_by_a_ca_or_the_flag() {
    let rows = [
        (
            "",
            false,
            false,
            false,
            "not demanded: peer-client-cert-auth is not set, and peer-trusted-ca-file is not set",
        ),
        ("--peer-client-cert-auth --peer-trusted-ca-file=/ca", true, true, false, "verified against /ca"),
        (
            "--peer-trusted-ca-file=/ca",
            true,
            false,
            false,
            "peer-trusted-ca-file alone is enough even without",
        ),
        (
            "--peer-trusted-ca-file=/ca --peer-client-cert-auth=false",
            true,
            false,
            false,
            "although peer-client-cert-auth is false",
        ),
        ("--peer-client-cert-auth", true, true, true, "system's public roots"),
        // Self-made certificates replace the whole TLS configuration.
        (
            "--peer-auto-tls --peer-client-cert-auth --peer-trusted-ca-file=/ca",
            false,
            true,
            false,
            "replaces",
        ),
        (
            "--peer-auto-tls --peer-trusted-ca-file=/ca --peer-cert-file=/c --peer-key-file=/k",
            true,
            false,
            false,
            "/ca",
        ),
    ];
    for (line, enforced, flag, roots, why) in rows {
        let resolved = argv(line).resolve();
        let got = client_auth(settings(&resolved), Purpose::Peer);
        assert_eq!((got.enforced, got.flag, got.system_roots), (enforced, flag, roots), "{line}: {got:?}");
        assert!(got.why.contains(why), "{line}: {got:?}");
    }
    let resolved = argv("--trusted-ca-file=/ca").resolve();
    assert!(client_auth(settings(&resolved), Purpose::Client).enforced);
    assert!(client_auth(settings(&resolved), Purpose::Metrics).enforced);
    assert!(!client_auth(settings(&resolved), Purpose::Peer).enforced);
}

#[test]
fn self_made_certificates_need_a_tls_listener_and_no_other() {
    let https = "--listen-peer-urls=https://10.0.0.1:2380";
    let rows = [
        (String::new(), false, false, "peer-auto-tls is not set"),
        ("--peer-auto-tls=false".to_owned(), false, false, "is false"),
        ("--peer-auto-tls".to_owned(), true, false, "no listener has TLS"),
        (format!("--peer-auto-tls {https}"), true, true, "in effect"),
        (
            format!("--peer-auto-tls {https} --peer-cert-file=/c --peer-key-file=/k"),
            true,
            false,
            "ignored because peer-cert-file",
        ),
    ];
    for (line, requested, in_effect, why) in rows {
        let resolved = argv(&line).resolve();
        let got = auto_tls(settings(&resolved), Purpose::Peer);
        assert_eq!((got.requested, got.in_effect), (requested, in_effect), "{line}: {got:?}");
        assert!(got.why.contains(why), "{line}: {got:?}");
    }
}

#[test]
fn urls_and_members_are_taken_apart() {
    let line = "--name=m1 --listen-client-urls=https://10.0.0.1:2379,http://[::1]:2379 \
                --listen-client-http-urls=http://10.0.0.1:2382 --listen-metrics-urls=http://10.0.0.1:2381 \
                --advertise-client-urls=https://m1:2379 \
                --initial-cluster=m1=https://10.0.0.1:2380,\
                m2=https://10.0.0.2:2380,m1=https://10.1.0.1:2380,junk";
    let resolved = Case { version: "3.6.13", ..argv(line) }.resolve();
    let settings = settings(&resolved);
    let ports = |purpose| listen_urls(settings, purpose).iter().map(|(url, _)| url.port).collect::<Vec<_>>();
    assert_eq!(ports(Purpose::Client), [Some(2379), Some(2379), Some(2382)]);
    assert_eq!(ports(Purpose::Metrics), [Some(2381)]);
    assert_eq!(ports(Purpose::Peer), [Some(2380)]);
    assert_eq!(advertised(settings, Purpose::Client)[0].0.host, "m1");
    assert_eq!(advertised(settings, Purpose::Peer)[0].0.text, "http://localhost:2380");
    let members = initial_cluster(settings);
    let summary: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.peer_urls.len(), m.this)).collect();
    assert_eq!(summary, [("m1", 2, true), ("m2", 1, false)]);
}

#[test]
fn invalid_utf8_is_survived() {
    let resolved = run(&[b"--name=\xff\xfe", b"\xff"], Ok(&[("ETCD_DATA_DIR", b"/\xff")]), None, None);
    assert_eq!(settings(&resolved)["name"].value, "\u{fffd}\u{fffd}");
    assert_eq!(settings(&resolved)["data-dir"].value, "/\u{fffd}");
}

proptest! {
    #[test]
    fn any_command_line_is_survived(arguments in prop::collection::vec(
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            "-{0,3}(name|peer-cert-file|peer-client-cert-auth|config-file|listen-peer-urls)?[= ]?.{0,10}"
                .prop_map(String::into_bytes),
        ],
        0..8,
    )) {
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let resolved = run(&arguments, Ok(&[]), Some(b"name: x"), None);
        let settings = settings(&resolved);
        prop_assert!(SETTINGS.iter().all(|name| settings.contains_key(*name)));
        for purpose in [Purpose::Client, Purpose::Metrics, Purpose::Peer] {
            let _ = (client_auth(settings, purpose), auto_tls(settings, purpose));
        }
    }

    #[test]
    fn any_file_is_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "((peer-transport-security|name|<<|[a-z&*!-]{1,8})(: |:\n  |: \\{|\\[|, )){0,8}.{0,8}",
    ) {
        for content in [bytes.as_slice(), text.as_bytes()] {
            let resolved = run(&[b"--config-file=/e"], Ok(&[]), Some(content), None);
            let file = resolved.config_file.unwrap();
            prop_assert_eq!(resolved.settings.error().is_some(), file.error().is_some());
        }
    }
}

#[test]
fn what_releases_of_a_line_agree_on_is_known() {
    let running = |text: &str, version: Option<&str>| {
        let argument =
            Argument { text: b"--config-file=/c".to_vec(), origin: Origin::Argv { pid: 812, index: 1 } };
        resolve_running(Inputs {
            arguments: &[argument],
            environment: Ok(&[]),
            version: version.and_then(Version::parse),
            read: &mut |_| {
                let origin = Origin::process_file(812, "/c");
                Ok(ConfigText { bytes: text.as_bytes().to_vec(), changed_at: None, origin })
            },
        })
    };
    let name = "peer-cert-allowed-cn";
    let text = "name: m1\npeer-transport-security:\n  allowed-cn: m1\n";
    // Until 3.5.13 the key is ignored, 3.5.14 wants a text, and later ones a list: they would not have started.
    let resolved = running(text, Some("3.5"));
    assert_eq!(resolved.fatal, []);
    let settings = resolved.settings.value().unwrap();
    assert_eq!(settings["name"].value, "m1");
    let why = settings.why_unknown(name).unwrap().to_string();
    assert!(why.contains("the patch release of etcd 3.5 is not known"), "{why}");
    assert!(resolved.config_file.unwrap().error().is_some());
    assert_eq!(running(text, Some("3.5.14")).settings.value().unwrap()[name].value, "m1");

    // Only those with lists are left.
    let list = running("peer-transport-security:\n  allowed-cn: [m1, m2]\n", Some("3.5"));
    assert!(list.settings.value().unwrap().why_unknown(name).is_some());
    let plain = running("peer-transport-security:\n  cert-file: /c\n", Some("3.5"));
    assert_eq!(plain.settings.value().unwrap()["peer-cert-file"].value, "/c");
    assert!(plain.config_file.unwrap().value().is_some());

    // Where no release would have started, the file was changed since, and the newest says what is wrong with it.
    let refused = running("peer-transport-security: {client-cert-auth: \"true\"}\n", None);
    assert!(refused.settings.error().is_some());
    assert_eq!(refused.fatal.len(), 1);
    let old = running("peer-transport-security: {client-cert-file: /c}\n", None);
    let why = old.settings.value().unwrap().why_unknown("peer-client-cert-file").unwrap().to_string();
    assert!(why.contains("the release of etcd is not known"), "{why}");
}
