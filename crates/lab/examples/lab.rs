//! Fetches every etcd, starts a three-member cluster of each, and says how long it took.

use std::time::Instant;

use seaworthy_lab::{Cluster, ClusterSpec, Error, EtcdBinary, Package};

#[expect(clippy::print_stdout, reason = "an example talks")]
fn main() -> Result<(), Error> {
    for package in Package::ALL {
        let start = Instant::now();
        match package.install() {
            Ok(binary) => println!("{package:?}: etcd {} in {:.1?}", binary.version, start.elapsed()),
            Err(error) if package.optional() => println!("{package:?}: none: {error}"),
            Err(error) => return Err(error),
        }
    }
    for binary in EtcdBinary::required()? {
        for (what, plain) in [("plain", true), ("mutual TLS", false)] {
            let start = Instant::now();
            let spec = ClusterSpec::new(&binary).each(move |m| {
                if plain {
                    m.plain()
                }
            });
            let cluster = Cluster::start(spec)?;
            let ready = start.elapsed();
            let start = Instant::now();
            drop(cluster);
            println!(
                "etcd {}, {what}: ready in {ready:.2?}, gone in {:.2?}",
                binary.version,
                start.elapsed()
            );
        }
    }
    Ok(())
}
