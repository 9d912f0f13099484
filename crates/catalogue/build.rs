//! The catalogue is embedded at compile time, so a changed rule must rebuild this crate.

fn main() {
    println!("cargo::rerun-if-changed=../../catalogue");
}
