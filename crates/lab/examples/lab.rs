//! Fetches every etcd, starts a three-member cluster of each, and says how long it took.

use std::time::Instant;

use seaworthy_lab::{Cluster, ClusterSpec, Error, EtcdBinary, install};

#[expect(clippy::print_stdout, reason = "an example talks")]
fn main() -> Result<(), Error> {
    let start = Instant::now();
    for installed in install()? {
        match installed.outcome {
            Ok(binary) => println!("{:?}: etcd {}", installed.package, binary.version),
            Err(error) => println!("{:?}: none, because {error}", installed.package),
        }
    }
    println!("every etcd is there after {:.2?}", start.elapsed());
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
