//! Follows the interfaces: brings memberships, captures, settings, bridges and the engine in line
//! with the interfaces that are there.

use log::info;
use protocol::link::Link;
use protocol::time::Instant;

use super::EventLoop;
use crate::run::bridges::OpenedBridge;
use crate::run::report::Path;
use crate::sys::netlink::Dump;
use crate::sys::packet::Interest;

impl EventLoop<'_> {
    pub(super) fn follow_interfaces(&mut self, now: Instant) {
        self.follow_upstream(now);
        self.follow_downstreams(now);
        self.follow_forwarding(now);
        if !self.news.is_complete {
            return;
        }
        let complete = self.links.are_complete();
        if self.is_complete.replace(complete) != Some(complete) && complete {
            info!("proxying {}", Path(self.engine.config()));
        }
        if self.news.is_settled() {
            self.log_states(now);
            if !self.prefixes.log(now, self.engine) {
                self.try_again(now);
            }
        }
    }

    /// Logs which interfaces cannot be used, and which can be used again.
    fn log_states(&mut self, now: Instant) {
        let mut all_logged = true;
        for (link, interface) in self.links.iter_mut().zip(self.interfaces.iter()) {
            all_logged &= link.note_state(now, interface);
        }
        if !all_logged {
            self.try_again(now);
        }
    }

    fn follow_upstream(&mut self, now: Instant) {
        let index = |link: Option<Link>| link.map(|link| link.index);
        let link = &mut self.links.upstream;
        let upstream = self.interfaces.upstream();
        if link.renew(self.interfaces.upstream_generation()) {
            // With the old interface the kernel dropped its memberships and its settings.
            self.settings.interface_is_gone();
            self.output.memberships.leave_all();
            self.forwarding.leave_all();
            link.tell(now, self.engine, None);
        }
        if index(upstream) != index(link.told()) {
            self.output.memberships.leave_all();
            self.forwarding.leave_all();
        }
        link.tell(now, self.engine, upstream);
        let config = self.engine.config();
        let mut all_followed = true;
        match index(upstream) {
            Some(index) if config.ndp_proxy => {
                let name = config.upstream.as_str();
                all_followed &= self.settings.apply(&self.records, now, name, index);
            }
            Some(_) => {}
            None => self.settings.interface_is_gone(),
        }
        // During the first dump the addresses arrive one by one, and the engine would learn of each
        // set of prefixes in between.
        if self.news.is_complete && config.upstream_prefixes {
            let prefixes = self.interfaces.upstream_prefixes();
            if self.prefixes.tell(now, self.engine, prefixes) {
                // The kernel may already know neighbors in the new prefixes.
                self.news.want(Dump::Neighbors);
            }
        }
        let config = self.engine.config();
        let interest = if config.ndp_proxy {
            Interest::QueriesAndNeighbors
        } else {
            Interest::Queries
        };
        all_followed &= link.listen(index(upstream), interest, &config.upstream);
        if !all_followed {
            self.try_again(now);
        }
    }

    fn follow_downstreams(&mut self, now: Instant) {
        let links = self.links.downstreams.iter_mut().zip(&mut self.bridges);
        let interfaces = self.interfaces.downstreams();
        let mut all_followed = true;
        for ((link, bridge), interface) in links.zip(interfaces) {
            if link.renew(interface.generation) {
                *bridge = OpenedBridge::default();
            }
            all_followed &= link.listen(interface.index, Interest::Hosts, &interface.name);
            link.tell(now, self.engine, interface.downstream());
            bridge.follow(interface, &self.news.netlink, &self.records);
            if self.engine.config().mld_proxy.is_some() {
                bridge.warn_of_streams(interface);
            }
        }
        if !all_followed {
            self.try_again(now);
        }
    }

    /// Restores the settings of all bridges.
    pub(super) fn restore_bridges(&mut self) {
        for (bridge, interface) in self.bridges.iter().zip(self.interfaces.downstreams()) {
            let siblings = &self.tables.siblings;
            bridge.restore(interface, &self.news.netlink, &self.records, siblings);
        }
    }
}
