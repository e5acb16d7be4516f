//! Other programs that forward streams.

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::process::Command;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::lab::{
    DOWNSTREAM, FOLDER, FRR, Frr, GUEST, Process, SOURCE, StreamLab, UPSTREAM, eventually,
    find_tool, missing_tools, path_of_fd,
};
use crate::support::SOON;

/// Starts the programs of a home's router that forward these groups of the upstream's first source.
pub type Start = fn(&StreamLab, &[Ipv6Addr]) -> Vec<Process>;

/// smcroute; `None` if it is not installed. It forwards what its configuration names, and hears no
/// host.
pub fn smcroute() -> Option<(&'static str, Start)> {
    find_tool("smcrouted")?;
    Some(("smcroute", |home, groups| {
        vec![start_smcroute(home, groups)]
    }))
}

/// FRR as an MLD querier with PIM upstream; `None` if it is not unpacked. It hears the hosts.
pub fn frr() -> Option<(&'static str, Start)> {
    missing_tools(&[FRR])
        .is_empty()
        .then_some(("FRR", |home, _| start_frr(home)))
}

fn start_frr(home: &StreamLab) -> Vec<Process> {
    let mut configuration = format!("interface {UPSTREAM}\n ipv6 pim\nexit\n");
    for downstream in [DOWNSTREAM, GUEST] {
        configuration += &format!("interface {downstream}\n ipv6 pim\n ipv6 mld\nexit\n");
    }
    let router = &home.lab.rtr;
    let frr = Frr::start(router, &configuration);
    eventually("FRR is the querier", 2 * SOON, || {
        let shown = frr.show("ipv6 mld interface");
        let queriers = shown.lines().filter(|line| line.contains("local"));
        queriers.count() == 2
    });
    frr.into_processes().into()
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
