//! What the lab runs inside its nodes: stand-ins for kubelet and systemd, and the writer.

use std::process::ExitCode;

fn main() -> ExitCode {
    seaworthy_lab::helper()
}
