//! Who owns a multicast routing table, with which rights, and for how long.

use std::net::Ipv6Addr;
use std::process::{Command, ExitCode};

use daemon::sys::mroute::{Mroute, likely_owner};
use daemon::sys::privileges::effective_capabilities;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{ALL, ANY, GROUP, LA, Network, U, WAN, bit};
use crate::lab::{Namespace, OTHER_USERS, eventually, find_tool};
use crate::support::SOON;

crate::tests![
    a_table_has_one_owner_and_its_likely_name_is_told,
    nothing_outlives_the_owner;
    an_owner_needs_no_capability_later_on needs [OTHER_USERS],
];

fn a_table_has_one_owner_and_its_likely_name_is_told() {
    let router = Namespace::new("router");
    let open = |table| router.within(|| Mroute::open(table));
    let first = open(None).unwrap();
    assert_eq!(open(None).err(), Some(Errno::EADDRINUSE));
    assert_eq!(open(Some(first.table())).err(), Some(Errno::EADDRINUSE));
    let other = open(Some(100)).unwrap();
    assert_eq!(other.table(), 100);
    assert_eq!(open(Some(100)).err(), Some(Errno::EADDRINUSE));
    assert_eq!(open(Some(100_000_000)).err(), Some(Errno::EINVAL));
    drop(first);
    // A program that another test starts may hold the socket for a moment longer.
    eventually("the table is free", SOON, || open(None).is_ok());

    assert_eq!(router.within(likely_owner), None);
    let mut command = Command::new(find_tool("bash").expect("bash"));
    // The owner is recognised by its name, which a process may give itself.
    let script = "echo -n omcproxy > /proc/self/comm; echo renamed; exec 3<> <(:); read -u 3";
    let omcproxy = router.spawn(command.args(["-c", script]));
    omcproxy.wait_for_line("renamed", SOON);
    assert_eq!(router.within(likely_owner), Some("omcproxy"));
    let elsewhere = Namespace::new("elsewhere");
    assert_eq!(elsewhere.within(likely_owner), None);
}

fn nothing_outlives_the_owner() {
    let network = Network::new();
    let program = std::env::current_exe().unwrap();
    let owner = network.router.spawn(Command::new(program).arg(OWNER));
    owner.wait_for_line("forwards", SOON);
    let opened = || network.router.within(|| Mroute::open(None));
    assert_eq!(opened().err(), Some(Errno::EADDRINUSE));
    owner.signal(Signal::SIGKILL);
    owner.wait(SOON);
    // The kernel removes all before the socket is closed.
    let mroute = network.mroute();
    assert_eq!(network.send(&mroute, WAN, U, GROUP), "?");
    assert_eq!(network.entries(), [""; 0]);
}

fn an_owner_needs_no_capability_later_on() {
    let network = Network::new();
    let program = std::env::current_exe().unwrap();
    let owner = network
        .router
        .spawn(Command::new(program).arg(OWNER_AS_NOBODY));
    owner.wait_for_line("forwards", SOON);
    let expected = [
        "254 2001:db8:1::10 ff1e::8 wan > la: 0 packets, 0 octets, 0 wrong",
        "254 :: :: wan > wan la: 0 packets, 0 octets, 0 wrong",
    ];
    eventually("what it set is there", SOON, || {
        network.entries() == expected
    });
}

/// The first argument by which this program is an owner, and by which it is one as another user.
const OWNER: &str = "--own-the-multicast-routing";
const OWNER_AS_NOBODY: &str = "--own-the-multicast-routing-as-nobody";

/// Runs this program as an owner if its first argument says so.
pub fn run() -> Option<ExitCode> {
    let argument = std::env::args().nth(1)?;
    if argument != OWNER && argument != OWNER_AS_NOBODY {
        return None;
    }
    let mut mroute = Mroute::open(None).unwrap();
    if argument == OWNER_AS_NOBODY {
        let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
        setgroups(&[]).unwrap();
        setresgid(group, group, group).unwrap();
        setresuid(user, user, user).unwrap();
        assert_eq!(effective_capabilities(), 0);
        assert_eq!(Mroute::open(None).err(), Some(Errno::EPERM));
    }
    let index = |name| if_nametoindex(name).unwrap();
    let removed = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 9);
    mroute.add_interface(WAN, index("wan")).unwrap();
    mroute.add_interface(LA, index("lb")).unwrap();
    mroute.remove_interface(LA).unwrap();
    mroute.add_interface(LA, index("la")).unwrap();
    for source in [ANY, U] {
        mroute.set_entry(source, removed, WAN, ALL).unwrap();
        mroute.remove_entry(source, removed, WAN).unwrap();
    }
    mroute.set_entry(ANY, ANY, WAN, ALL).unwrap();
    mroute.set_entry(U, GROUP, WAN, bit(LA)).unwrap();
    println!("forwards");
    loop {
        std::thread::park();
    }
}
