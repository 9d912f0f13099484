//! Images of containers, made from nothing: one layer with a program and what it needs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// A file of an image: where it comes from, or what it links to.
pub(crate) enum Entry {
    /// A copy of a file of the machine.
    Copy(PathBuf),
    /// A symbolic link.
    Link(String),
}

/// An image.
pub(crate) struct Image {
    /// Its name with the tag.
    pub(crate) name: String,
    /// Its files, by their paths without the first slash.
    pub(crate) files: Vec<(String, Entry)>,
    /// What it runs if nobody says what to run.
    pub(crate) entrypoint: Option<String>,
}

impl Image {
    /// Writes the image as an OCI archive.
    pub(crate) fn archive(&self, to: impl Write) -> Result<()> {
        let mut layer = tempfile::tempfile().context("cannot create a temporary file")?;
        self.layer(&layer).with_context(|| format!("cannot make a layer of {}", self.name))?;
        layer.rewind()?;
        let mut hash = Context::new(&SHA256);
        let mut size = 0;
        let mut block = vec![0; 1 << 20];
        loop {
            let read = layer.read(&mut block)?;
            if read == 0 {
                break;
            }
            hash.update(block.get(..read).unwrap_or_default());
            size += read as u64;
        }
        layer.rewind()?;
        let layer_hash = hex(hash.finish().as_ref());

        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": self.entrypoint.iter().collect::<Vec<_>>(),
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_hash}")] },
            "history": [{ "created_by": "cargo xtask cluster" }],
        });
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &sha256(config.as_bytes()), config.len() as u64),
            "layers": [descriptor("layer.v1.tar", &layer_hash, size)],
        });
        let manifest = manifest.to_string();
        let mut entry = descriptor("manifest.v1+json", &sha256(manifest.as_bytes()), manifest.len() as u64);
        if let Some(entry) = entry.as_object_mut() {
            let tag = self.name.rsplit(':').next().unwrap_or_default();
            let names =
                json!({ "io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag });
            entry.insert("annotations".into(), names);
        }
        let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();

        let mut archive = Builder::new(to);
        let mut add = |path: &str, bytes: &[u8]| {
            archive.append_data(&mut header(EntryType::Regular, 0o644, bytes.len() as u64), path, bytes)
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add("index.json", index.as_bytes())?;
        add(&format!("blobs/sha256/{}", sha256(config.as_bytes())), config.as_bytes())?;
        add(&format!("blobs/sha256/{}", sha256(manifest.as_bytes())), manifest.as_bytes())?;
        let path = format!("blobs/sha256/{layer_hash}");
        archive.append_data(&mut header(EntryType::Regular, 0o644, size), path, layer)?;
        archive.into_inner()?.flush()?;
        Ok(())
    }

    /// Writes the layer: the files, the folders that they are in, and the users that programs look up.
    fn layer(&self, to: &File) -> Result<()> {
        let mut layer = Builder::new(to);
        let mut folders = BTreeSet::from([PathBuf::from("etc"), PathBuf::from("tmp")]);
        for (path, _) in &self.files {
            folders.extend(Path::new(path).ancestors().skip(1).map(Path::to_owned));
        }
        folders.remove(Path::new(""));
        for folder in folders {
            let mode = if folder == Path::new("tmp") { 0o1777 } else { 0o755 };
            layer.append_data(&mut header(EntryType::Directory, mode, 0), folder, &[][..])?;
        }
        for (path, text) in [("etc/passwd", crate::files::PASSWD), ("etc/group", crate::files::GROUP)] {
            let mut header = header(EntryType::Regular, 0o644, text.len() as u64);
            layer.append_data(&mut header, path, text.as_bytes())?;
        }
        for (path, entry) in &self.files {
            match entry {
                Entry::Copy(from) => {
                    let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
                    let size = file.metadata()?.len();
                    layer.append_data(&mut header(EntryType::Regular, 0o755, size), path, file)?;
                }
                Entry::Link(target) => {
                    layer.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?;
                }
            }
        }
        layer.finish()?;
        Ok(())
    }
}

/// Returns the image of a program of a control plane: the program alone.
pub(crate) fn of_program(name: &str, program: &Path) -> Image {
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    let path = format!("usr/local/bin/{file}");
    let entrypoint = Some(format!("/{path}"));
    Image { name: name.to_owned(), files: vec![(path, Entry::Copy(program.to_owned()))], entrypoint }
}

/// The libraries of iptables and conntrack.
const LIBRARIES: [&str; 7] = [
    "libip4tc.",
    "libip6tc.",
    "libmnl.",
    "libnetfilter_conntrack.",
    "libnfnetlink.",
    "libnftnl.",
    "libxtables.",
];

/// Returns the image of kube-proxy: the program, iptables and conntrack of `debian`, and their libraries.
pub(crate) fn of_proxy(name: &str, program: &Path, debian: &Path) -> Result<Image> {
    let mut image = of_program(name, program);
    image.entrypoint = None;
    let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut add = |path: String, from: PathBuf| image.files.push((path, Entry::Copy(from)));
    for program in ["conntrack", "xtables-nft-multi"] {
        add(format!("usr/sbin/{program}"), debian.join("sbin").join(program));
    }
    for folder in [libraries.clone(), format!("{libraries}/xtables")] {
        for entry in fs::read_dir(debian.join(&folder))?.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let wanted = folder != libraries || LIBRARIES.iter().any(|name| file.starts_with(name));
            if wanted && file.contains(".so") && entry.path().is_file() {
                add(format!("usr/{folder}/{file}"), entry.path().canonicalize()?);
            }
        }
    }
    for name in ["libc.so.6", "libm.so.6"] {
        add(format!("usr/{libraries}/{name}"), Path::new("/usr").join(&libraries).join(name).canonicalize()?);
    }
    let interpreters = ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"];
    let interpreter = interpreters.into_iter().find(|path| Path::new("/").join(path).exists());
    let interpreter = interpreter.context("this machine has no dynamic linker of glibc")?;
    add(interpreter.to_owned(), Path::new("/").join(interpreter).canonicalize()?);
    for name in crate::files::IPTABLES {
        image.files.push((format!("usr/sbin/{name}"), Entry::Link("xtables-nft-multi".to_owned())));
    }
    Ok(image)
}

fn descriptor(kind: &str, hash: &str, size: u64) -> Value {
    let kind = format!("application/vnd.oci.image.{kind}");
    json!({ "mediaType": kind, "digest": format!("sha256:{hash}"), "size": size })
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Returns this machine's architecture as Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_every_blob_that_its_manifest_names() {
        let program = tempfile::NamedTempFile::new().unwrap();
        fs::write(&program, "not really a program").unwrap();
        let mut bytes = Vec::new();
        of_program("registry.k8s.io/x:v1", program.path()).archive(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut blobs = BTreeSet::new();
        let mut index = Value::Null;
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            match path.strip_prefix("blobs/sha256/") {
                Some(hash) => {
                    assert_eq!(hash, sha256(&content));
                    blobs.insert(content);
                }
                None if path == "index.json" => index = serde_json::from_slice(&content).unwrap(),
                None => {}
            }
        }
        let find = |digest: &Value| {
            let wanted = digest.as_str().unwrap().trim_start_matches("sha256:").to_owned();
            blobs.iter().find(|blob| sha256(blob) == wanted).unwrap()
        };
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "registry.k8s.io/x:v1");
        let manifest: Value = serde_json::from_slice(find(&entry["digest"])).unwrap();
        find(&manifest["config"]["digest"]);
        let mut layer = tar::Archive::new(&find(&manifest["layers"][0]["digest"])[..]);
        let paths: Vec<String> = layer
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        assert!(
            paths.contains(&"etc/passwd".to_owned()) && paths.iter().any(|p| p.starts_with("usr/local/bin/"))
        );
    }
}
