//! What a listener said on the wire, for a terminal or a script.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use seaworthy_catalogue::Status;
use seaworthy_evidence::{ClientCertificate, EvidenceError, Wire};
use serde::Serialize;

use crate::document;
use crate::style::{self, BOLD, DIM, paint, plain, wrap};

/// The format of [`json`].
pub const FORMAT: &str = "seaworthy.dev/probe/v1";

/// Returns one probe's result as text with ANSI styles.
pub fn text(target: &str, result: &Result<Wire, EvidenceError>, width: usize) -> String {
    let mut out = String::new();
    let wire = match result {
        Ok(wire) => wire,
        Err(error) => {
            let message =
                error.message.strip_prefix(target).unwrap_or(&error.message).trim_start_matches([':', ' ']);
            let message = wrap(message, width, "", "  ");
            let _ = write!(
                out,
                "{} {} {message}",
                paint(style::of(Status::Unknown), "UNKNOWN"),
                paint(BOLD, target)
            );
            return out;
        }
    };
    let (status, verdict) = match (wire.tls.value(), wire.plaintext.value()) {
        (Some(true), Some(false)) => (Status::Pass, "TLS"),
        (Some(true), Some(true)) => (Status::Fail, "TLS AND PLAINTEXT"),
        (Some(true), None) => (Status::Unknown, "TLS, AND WHETHER PLAINTEXT IS NOT KNOWN"),
        (Some(false), Some(true)) => (Status::Fail, "PLAINTEXT"),
        (None, Some(true)) => (Status::Fail, "PLAINTEXT, AND WHETHER TLS IS NOT KNOWN"),
        (Some(false), Some(false)) => (Status::Unknown, "NEITHER TLS NOR A PLAINTEXT SERVICE"),
        (None, _) | (_, None) => (Status::Unknown, "NO PLAINTEXT SERVICE, AND WHETHER TLS IS NOT KNOWN"),
    };
    let _ = writeln!(out, "{}  {}", paint(BOLD, plain(target)), paint(style::of(status), verdict));
    let mut row = |name: &str, value: &str| {
        let label = format!("  {name:<20}");
        let _ = write!(out, "{}", wrap(value, width, &label, &" ".repeat(22)));
    };
    row("answered", &wire.spoke);
    for (name, asked) in
        [("TLS", &wire.tls), ("plaintext", &wire.plaintext), ("not all tried", &wire.complete)]
    {
        if let Some(error) = asked.error() {
            row(name, &error.message);
        }
    }
    if wire.raft == Some(true) {
        row("service", "etcd peer port");
    }
    if let Some(version) = &wire.etcd_version {
        row("etcd version", version);
    }
    if wire.speaks_tls() {
        let accepted = |yes: bool| {
            let names: Vec<String> =
                wire.protocols.iter().filter(|p| p.accepted == yes).map(|p| p.version.to_string()).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        row("protocols accepted", &accepted(true));
        row("protocols refused", &accepted(false));
        for suite in &wire.suites {
            let weak = suite.weak.as_ref().map(|w| format!(" WEAK: {w}")).unwrap_or_default();
            row("cipher suite", &format!("{} {}{weak}", suite.protocol, suite.name));
        }
        if !wire.groups.is_empty() {
            row("key exchange", &wire.groups.join(", "));
        }
        row(
            "client certificate",
            match wire.client_certificate {
                Some(ClientCertificate::NotRequested) => "not requested",
                Some(ClientCertificate::Requested) => "requested, but not required",
                Some(ClientCertificate::Required) => "required",
                None => "could not be told",
            },
        );
        for ca in wire.acceptable_cas.iter().flatten() {
            row("accepts from CA", ca);
        }
        for (index, certificate) in wire.chain.iter().enumerate() {
            let name = if index == 0 { "certificate" } else { "issued by" };
            let names = [certificate.sans.dns.join(", "), certificate.sans.ip.join(", ")];
            let names: Vec<&str> = names.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
            row(
                name,
                &format!(
                    "{}; {}; {}; {}; names: {}",
                    certificate.subject,
                    match certificate.key.algorithm.as_str() {
                        "RSA" => format!("RSA {}", certificate.key.bits),
                        other => other.to_owned(),
                    },
                    certificate.signature,
                    match certificate.days_left {
                        0.. => format!("{} days left", certificate.days_left),
                        _ => format!("expired on {}", certificate.not_after.to_zoned(TimeZone::UTC).date()),
                    },
                    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                ),
            );
        }
    }
    let _ = writeln!(
        out,
        "{}",
        paint(DIM, format!("  {} connections, {} ms", wire.connections, wire.milliseconds))
    );
    out
}

/// Returns all results as one JSON document, indented, with a final newline.
pub fn json(results: &[(String, Result<Wire, EvidenceError>)]) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        format: &'static str,
        probes: Vec<Probe<'a>>,
    }
    #[derive(Serialize)]
    struct Probe<'a> {
        target: &'a str,
        wire: Option<&'a Wire>,
        error: Option<&'a EvidenceError>,
    }
    let probes = results
        .iter()
        .map(|(target, result)| Probe { target, wire: result.as_ref().ok(), error: result.as_ref().err() })
        .collect();
    document(&Document { format: FORMAT, probes }).unwrap_or_default()
}
