//! Other programs that forward streams.

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::process::Command;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::lab::{
    DOWNSTREAM, FOLDER, Process, SOURCE, StreamLab, UPSTREAM, eventually, find_tool, path_of_fd,
};
use crate::support::SOON;

/// The name of a program, and the function that starts it on a home's router for these groups of
/// the upstream's first source.
pub type Peer = (&'static str, fn(&StreamLab, &[Ipv6Addr]) -> Process);

/// smcroute; `None` if it is not installed.
pub fn smcroute() -> Option<Peer> {
    find_tool("smcrouted")?;
    Some(("smcroute", start_smcroute))
}

fn start_smcroute(home: &StreamLab, groups: &[Ipv6Addr]) -> Process {
    let configuration = memfd_create("smcroute.conf", MFdFlags::MFD_CLOEXEC).expect("memory");
    let mut configuration = File::from(configuration);
    let mut text = format!("phyint {UPSTREAM} enable\nphyint {DOWNSTREAM} enable\n");
    for group in groups {
        text += &format!(
            "mgroup from {UPSTREAM} group {group} source {SOURCE}\n\
             mroute from {UPSTREAM} group {group} source {SOURCE} to {DOWNSTREAM}\n"
        );
    }
    configuration.write_all(text.as_bytes()).expect("memory");
    let mut command = Command::new(find_tool("smcrouted").expect("it is installed"));
    command.args(["-n", "-N", "-f", &path_of_fd(&configuration)]);
    let pid_file = format!("{FOLDER}/smcroute.pid");
    command.args(["-P", &pid_file, "-u", &format!("{FOLDER}/smcroute.sock")]);
    let router = &home.lab.rtr;
    let smcroute = router.spawn(&command);
    eventually("smcroute has written its entries", SOON, || {
        assert!(smcroute.is_running(), "{}", smcroute.log());
        let entries = home.entries();
        router.multicast_interfaces().len() == 2 && entries.len() >= groups.len()
    });
    smcroute
}
