//! The model as the fuzz bodies use it: what an input does to it, and what must hold in the end.

use std::net::Ipv6Addr;
use std::ops::{Deref, DerefMut};

use model::packets::heard;
use model::{Diligence, Model};
use protocol::config::{Config, Forward, Learn, MldMode, ProxyConfig, QuerierMode, Scope};
use protocol::engine::{Action, Event, Tables};
use protocol::link::{Link, Port, Prefix, Side};
use protocol::mld::streams;
use protocol::ndp::kernel_entries::KernelTable;
use protocol::time::{Duration, Instant};
use protocol::{mld, ndp};

use super::bytes::Bytes;
use super::owner::Owner;

/// The work after which an input ends, so that it takes some milliseconds.
const ENOUGH: usize = 50_000;
const STARTED: Instant = Instant::from_secs(1_000);

pub struct World<'t> {
    model: Model<'t>,
    /// The work so far.
    work: usize,
    /// The kinds of actions that fail.
    fails: u8,
    /// A host that answers where it is, while nothing takes its address from it by right.
    owner: Option<Owner>,
}

impl<'t> Deref for World<'t> {
    type Target = Model<'t>;

    fn deref(&self) -> &Model<'t> {
        &self.model
    }
}

impl<'t> DerefMut for World<'t> {
    fn deref_mut(&mut self) -> &mut Model<'t> {
        &mut self.model
    }
}

impl<'t> World<'t> {
    pub fn new(tables: &'t mut Tables, config: Config, seed: u8) -> Self {
        World {
            model: Model::new(
                tables,
                config,
                [seed.max(1); 16],
                STARTED,
                Diligence::Always,
            ),
            work: 0,
            fails: 0,
            owner: None,
        }
    }

    pub fn started(&self) -> Instant {
        STARTED
    }

    /// From now on the actions of some kinds fail. Each bit stands for a kind.
    pub fn fail(&mut self, kinds: u8) {
        self.fails = kinds;
        self.owner = self.owner.take().filter(|_| kinds == 0);
        self.fail_if(move |action| kinds & 1 << kind_of(action) != 0);
    }

    /// Takes an event, carries out what follows, and checks the state.
    pub fn handle(&mut self, event: Event<'_>) {
        let owner = self.owner.take();
        self.owner = owner.filter(|owner| !owner.is_disturbed_by(&event));
        self.model.handle(event);
        self.note_work();
    }

    /// Carries out all actions, and checks the state.
    pub fn settle(&mut self) {
        self.model.settle();
        self.note_work();
    }

    /// Tells the engine the time, whether or not anything is due.
    pub fn time_out(&mut self) {
        self.model.time_out();
        self.note_work();
    }

    /// The kernel lists both tables as they are.
    pub fn list(&mut self) {
        self.model.list();
        self.note_work();
    }

    /// An owner comes to a port, unless there is one. While actions fail, none comes.
    pub fn admit_owner(&mut self, port: Port) {
        if self.owner.is_some() || self.fails != 0 {
            return;
        }
        if let Some(owner) = Owner::new(&self.model, port) {
            for packet in owner.arrives(&self.model) {
                self.model.handle(heard(owner.side(), owner.mac(), &packet));
            }
            self.owner = Some(owner);
            self.note_work();
        }
    }

    fn note_work(&mut self) {
        let mut deeds = std::mem::take(&mut self.model.deeds);
        if let Some(owner) = &mut self.owner {
            while !deeds.is_empty() {
                for deed in &deeds {
                    if let Some(packet) = owner.answers(&self.model, deed) {
                        self.model.handle(heard(owner.side(), owner.mac(), &packet));
                    }
                }
                deeds = std::mem::take(&mut self.model.deeds);
            }
            owner.check(&self.model);
        }
        let ndp = self.model.engine.ndp();
        self.work += 100 + ndp.neighbors().len() + ndp.groups().len();
    }

    /// Counts the work of many events at once.
    pub fn tire(&mut self, events: usize) {
        self.work += 5 * events;
    }

    /// Has the input done enough work?
    pub fn is_tired(&self) -> bool {
        self.work > ENOUGH
    }

    /// Lets time pass, and handles each deadline on its way. Of very many deadlines it skips some.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.saturating_add(time);
        for handled in 0.. {
            let due = self.next_deadline().filter(|due| *due <= end);
            let Some(due) = due else { break };
            let late = handled >= 24 || self.is_tired();
            if late {
                // Nobody is asked meanwhile.
                self.owner = None;
            }
            self.now = if late { end } else { due.max(self.now) };
            self.time_out();
            if late {
                break;
            }
        }
        self.now = end;
    }

    /// From here on every action succeeds, all links are there, and the kernel lists its tables.
    /// Then the state must be as it should be. When nobody is heard any more, everything must go in
    /// time.
    pub fn finish(&mut self) {
        self.owner = None;
        self.fail(0);
        let mut bytes = Bytes(&[]);
        self.handle(Event::Link(Side::Upstream, Some(upstream(&mut bytes))));
        for port in 0..self.engine.config().downstreams.len() {
            let side = Side::Downstream(port as Port);
            self.handle(Event::Link(side, Some(downstream(&mut bytes))));
        }
        for side in self.sides() {
            let present = true;
            self.handle(Event::Forwarding { side, present });
        }
        self.list();
        self.pass(Duration::from_secs(20));
        assert!(self.kernel.is_trusted() && !self.engine.ndp().groups().is_failing());
        assert!(!self.engine.mld().streams().proxy().is_failing());
        self.is_looked_for = true;
        self.check();
        self.is_looked_for = false;
        // To ask a full table takes half an hour, and a test of its own.
        if self.engine.ndp().neighbors().len() > 100 {
            return;
        }
        let config = self.engine.config();
        let end = config
            .address_timeout
            .saturating_add(config.expiry_interval)
            .saturating_mul(3);
        // Neighbors expire, then nobody wants their groups, then the engine leaves these. A host
        // that claimed an address upstream may get it only then, and expires a timeout later.
        for time in [end, end, end, end, end, end, Duration::from_secs(60)] {
            self.now = self.now.saturating_add(time);
            self.time_out();
            // Nobody expires unasked, and the engine looks through a large table in several turns.
            let until = self.now.saturating_add(Duration::from_secs(2_000));
            while !self.engine.ndp().neighbors().is_empty()
                && let Some(deadline) = self.next_deadline().filter(|deadline| *deadline < until)
            {
                self.now = deadline;
                self.time_out();
            }
            self.model.pass(Duration::from_millis(100));
            // Groups wait for their turn to be joined.
            while self.engine.ndp().neighbors().waiting() > 0 {
                self.model.pass(Duration::from_secs(1));
            }
        }
        // The longest Multicast Address Listening Interval.
        self.now = self.now.saturating_add(Duration::from_secs(8 * 31_744));
        self.time_out();
        // Leaves are reported up to seven times, a second apart.
        self.model.pass(Duration::from_secs(10));
        self.assert_empty();
    }

    /// All links of the router.
    pub fn sides(&self) -> Vec<Side> {
        let ports = 0..self.engine.config().downstreams.len() as Port;
        let ports = ports.map(Side::Downstream);
        std::iter::once(Side::Upstream).chain(ports).collect()
    }
}

fn kind_of(action: &Action) -> u8 {
    match action {
        Action::Ndp(ndp::Action::Join(_)) => 0,
        Action::Ndp(ndp::Action::Leave(_)) => 1,
        Action::Mld(mld::Action::Report { .. }) => 2,
        Action::Ndp(ndp::Action::Ask { .. }) => 3,
        Action::Ndp(ndp::Action::Kernel(change)) if change.table == KernelTable::Proxies => 4,
        Action::Ndp(ndp::Action::Kernel(_)) => 5,
        Action::Ndp(ndp::Action::Solicit { .. }) => 6,
        Action::Ndp(ndp::Action::Advertise { .. }) => 7,
        Action::Mld(mld::Action::Streams(streams::Action::Membership(_))) => 0,
        Action::Mld(mld::Action::Streams(streams::Action::Query { .. })) => 3,
        Action::Mld(mld::Action::Streams(streams::Action::Forward(_))) => 5,
    }
}

/// Any configuration that can be run.
pub fn config(bytes: &mut Bytes<'_>, seed: u8) -> Config {
    let mut config = Config::new("wan".parse().expect("a name"));
    let flags = bytes.number();
    let set = |bit: u32| flags >> bit & 1 != 0;
    for name in ["br-lan", "guest", "iot"].iter().take(1 + bytes.below(3)) {
        let name = name.parse().expect("a name");
        config.downstreams.push(name).expect("there is room");
    }
    config.ndp_proxy = set(0);
    config.host_routes = set(1);
    config.announce = set(2);
    config.ask = !set(3);
    config.probe = !set(4) || set(3);
    config.upstream_prefixes = set(5);
    config.per_mac = if set(6) { 3 } else { 64 };
    (config.join_rate, config.join_burst) = match set(7) {
        true => (1, 4),
        false => (50, 200),
    };
    config.learn = match flags >> 8 & 3 {
        0 => Learn::Ndp,
        1 => Learn::Mld,
        _ => Learn::Both,
    };
    config.mld_mode = match flags >> 10 & 3 {
        0 => MldMode::V1,
        1 => MldMode::V2,
        _ => MldMode::Auto,
    };
    let seconds = |code: u8| Duration::from_secs(u64::from(code));
    if set(12) {
        config.address_timeout = seconds(bytes.octet().max(1));
        config.refresh_interval = seconds(bytes.octet());
        config.expiry_interval = seconds(bytes.octet().max(1));
    }
    if set(13) {
        let all = Prefix::new(Ipv6Addr::UNSPECIFIED, 0).expect("a prefix");
        config.prefixes = heapless::Vec::from_slice(&[all]).expect("there is room");
    }
    if set(14) {
        let excluded = Prefix::of(bytes.address(), 126).expect("a prefix");
        config.excluded.push(excluded).expect("there is room");
    }
    if flags >> 13 == 7 {
        // Limits that let the tables fill.
        config.per_mac = u16::MAX;
        (config.join_rate, config.join_burst) = (100_000, 100_000);
    }
    config.mld_proxy = set(15).then(|| proxy_config(seed));
    config
}

/// The settings of the MLD proxy, by the bits of an octet.
fn proxy_config(seed: u8) -> ProxyConfig {
    let set = |bit: u32| seed >> bit & 1 != 0;
    let mut proxy = ProxyConfig {
        fast_leave: set(1),
        senders: set(2),
        forward: if set(3) {
            Forward::Always
        } else {
            Forward::Auto
        },
        querier: match seed >> 4 & 3 {
            0 => QuerierMode::V1,
            1 => QuerierMode::Off,
            _ => QuerierMode::Auto,
        },
        scope: if set(6) {
            Scope::SITE_LOCAL
        } else {
            Scope::ORGANIZATION_LOCAL
        },
        ..ProxyConfig::default()
    };
    if set(7) {
        (proxy.max_groups, proxy.max_sources) = (3, 2);
        (proxy.robustness, proxy.query_interval) = (3, Duration::from_secs(9));
    }
    proxy
}

pub fn upstream(bytes: &mut Bytes<'_>) -> Link {
    let flags = bytes.octet();
    Link {
        index: 7 + u32::from(flags & 1),
        link_local: (flags & 2 == 0).then(|| bytes.link_local()),
        mtu: match flags >> 2 & 3 {
            0 => 1500,
            1 => 1280,
            2 => 0,
            _ => u32::MAX,
        },
        mac: bytes.mac(),
    }
}

pub fn downstream(bytes: &mut Bytes<'_>) -> Link {
    Link {
        index: 8,
        link_local: Some(bytes.link_local()),
        mtu: 1500,
        mac: bytes.mac(),
    }
}
