//! Chooses the interfaces that the user did not name, by what is there.

use protocol::config::{Config, GLOBAL_UNICAST};
use protocol::link::{InterfaceName, MAX_DOWNSTREAMS};

use super::findings::Findings;
use super::findings::State::Ok;
use crate::control::instance;
use crate::interfaces::Snapshot;
use crate::sys::netlink::Dump;
use crate::sys::netlink::gateways::{DefaultRoute, default_routes, first};

/// The interfaces to check.
pub struct Choice {
    pub upstream: InterfaceName,
    pub downstreams: Vec<InterfaceName>,
    /// Each interface that was chosen, and the finding that says why.
    reasons: Vec<(&'static str, InterfaceName)>,
}

const UPSTREAM_RUNS: &str = "chosen|%1 is the upstream, as it is that of the mldproxy that runs";
const UPSTREAM_ROUTE: &str = "chosen|%1 is the upstream, since the IPv6 default route goes there";
const DOWNSTREAM_RUNS: &str =
    "chosen|%1 is a downstream, as it is one of the mldproxy that runs on %2";
const DOWNSTREAM_GLOBAL: &str = "chosen|%1 is a downstream, since it has a global address";
const DOWNSTREAM_BRIDGE: &str = "chosen|%1 is a downstream, since it is a bridge";

/// Chooses the upstream, unless it was named first, and with `wants_downstreams` the downstreams,
/// unless any was named behind it. `socket` is the control socket of an instance elsewhere.
///
/// # Errors
/// A line that says which interface has to be named.
pub fn choose(
    named: &[InterfaceName],
    wants_downstreams: bool,
    socket: Option<&str>,
) -> Result<Choice, String> {
    let refused = |errno: nix::errno::Errno| errno.desc().to_owned();
    let mut reasons = Vec::new();
    let needs_downstreams = wants_downstreams && named.len() < 2;
    let (named_upstream, downstreams) = match named.split_first() {
        Some((upstream, downstreams)) => (Some(upstream.clone()), downstreams.to_vec()),
        None => (None, Vec::new()),
    };
    if let (Some(upstream), false) = (&named_upstream, needs_downstreams) {
        return Result::Ok(Choice {
            upstream: upstream.clone(),
            downstreams,
            reasons,
        });
    }
    let routes = default_routes().map_err(refused)?;
    // The listing is of all interfaces, whatever the name.
    let any: InterfaceName = "lo".parse().map_err(|_| String::new())?;
    let dumps = [Dump::Links, Dump::Addresses];
    let snapshot = Snapshot::take(&Config::new(any), &dumps).map_err(refused)?;
    let upstream = match named_upstream {
        Some(upstream) => upstream,
        None => {
            let (why, upstream) = upstream(&snapshot, &routes, socket).ok_or(
                "there is no IPv6 default route that would tell the upstream; name it, as in \
                 `mldproxy check wan br-lan`",
            )?;
            reasons.push((why, upstream.clone()));
            upstream
        }
    };
    let mut choice = Choice {
        upstream,
        downstreams,
        reasons,
    };
    if needs_downstreams {
        choice.choose_downstreams(&snapshot, &routes, socket);
        if choice.downstreams.is_empty() {
            return Err(format!(
                "no downstream interface is named, and none is found beside {0}: no other one has \
                 a global address or is a bridge; name one, as in `mldproxy check {0} br-lan`",
                choice.upstream
            ));
        }
    }
    Result::Ok(choice)
}

fn upstream(
    snapshot: &Snapshot,
    routes: &[DefaultRoute],
    socket: Option<&str>,
) -> Option<(&'static str, InterfaceName)> {
    if let Some(name) = instance::only_upstream(socket) {
        return Some((UPSTREAM_RUNS, name.parse().ok()?));
    }
    let (name, _) = snapshot.link(first(routes.iter())?.index)?;
    Some((UPSTREAM_ROUTE, name.parse().ok()?))
}

impl Choice {
    /// Chooses the downstreams of the instance on the upstream. If there is none, chooses what
    /// else has a global address, and only if nothing has one, what else is a bridge.
    fn choose_downstreams(
        &mut self,
        snapshot: &Snapshot,
        routes: &[DefaultRoute],
        socket: Option<&str>,
    ) {
        let upstream = self.upstream.clone();
        for name in instance::downstreams(upstream.as_str(), socket).lines() {
            self.add(DOWNSTREAM_RUNS, name);
        }
        for why in [DOWNSTREAM_GLOBAL, DOWNSTREAM_BRIDGE] {
            if !self.downstreams.is_empty() {
                break;
            }
            for link in &snapshot.links {
                let mut addresses = snapshot.addresses.iter();
                let is_it = match why {
                    DOWNSTREAM_BRIDGE => link.bridge.is_some(),
                    _ => addresses
                        .any(|one| one.index == link.index && GLOBAL_UNICAST.contains(one.address)),
                };
                // A default route goes to another provider, or through a tunnel.
                let leads_out = routes.iter().any(|route| route.index == link.index);
                let may_be = link.running && link.has_mac && !link.is_part && !leads_out;
                if may_be && is_it && link.name != upstream.as_str() {
                    self.add(why, &link.name);
                }
            }
        }
    }

    fn add(&mut self, why: &'static str, name: &str) {
        if let Result::Ok(name) = name.parse::<InterfaceName>()
            && self.downstreams.len() < MAX_DOWNSTREAMS
        {
            self.reasons.push((why, name.clone()));
            self.downstreams.push(name);
        }
    }

    /// Says what was chosen, and why.
    pub fn tell(&self, findings: &mut Findings) {
        for (why, name) in &self.reasons {
            findings.add(Ok, why, &[name.as_str(), self.upstream.as_str()]);
        }
    }
}
