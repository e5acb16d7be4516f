//! The engine in stepped time, and the kernel that carries out its actions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use protocol::config::Config;
use protocol::counters::Counter;
use protocol::engine::{Action, BUFFER_LENGTH, Engine, Event, Tables};
use protocol::link::Side;
use protocol::mld::{self, streams};
use protocol::ndp;
use protocol::ndp::kernel_entries::Listing;
use protocol::ndp::solicited::LEAVE_DELAY;
use protocol::time::{Duration, Instant};

use crate::streams::Told;
use crate::{Kernel, TABLES, storage, view};

/// The least time from one question to the next.
const PACE: Duration = Duration::from_millis(50);
/// The actions that any event may cause, however little there is in the tables.
const FEW: usize = 100;

/// An action that the model carried out, or let fail.
#[derive(Clone, Debug)]
pub struct Deed {
    pub at: Instant,
    pub action: Action,
    /// The packet that was sent, if the action sends one.
    pub packet: Vec<u8>,
    pub succeeded: bool,
}

/// How often the model checks the engine's whole state.
#[derive(Clone, Copy, Debug)]
pub enum Diligence {
    /// After each event.
    Always,
    /// Now and then, so that it checks so many entries an event on average.
    Entries(usize),
}

/// An engine, and a kernel that carries out its actions.
pub struct Model<'t> {
    pub engine: Engine<'t>,
    pub now: Instant,
    pub kernel: Kernel,
    /// Whether an action is to fail.
    fails: Box<dyn FnMut(&Action) -> bool>,
    /// The deeds so far. Whoever reads them takes them away.
    pub deeds: Vec<Deed>,
    diligence: Diligence,
    /// The entries that the model may check by now.
    allowance: usize,
    /// The engine is about to leave every group.
    pub(crate) is_ending: bool,
    /// What the upstream's router believes of the groups of streams.
    pub(crate) told: Told,
    /// The engine has had the time to find each source where it is.
    pub is_looked_for: bool,
    /// A deadline has passed, and the engine was not told of the time.
    pub(crate) was_late: bool,
    /// Joined groups that nobody wants: the earliest time since when that may be so, and the time
    /// since when it is certain.
    idle: BTreeMap<Ipv6Addr, (Instant, Instant)>,
    /// How many neighbors were known, learned and expired when the model last counted.
    seen: (usize, u64, u64),
    last_question: Option<Instant>,
    /// The groups that were joined since the actions were drained last and that no report has named
    /// as joined.
    pub(crate) unreported: BTreeSet<Ipv6Addr>,
    /// The deadline after the last action. It may have passed since, unseen.
    due: Option<Instant>,
}

impl<'t> Model<'t> {
    /// An engine that starts now, and has not been told of any link.
    pub fn new(
        tables: &'t mut Tables,
        config: Config,
        seed: [u8; 16],
        now: Instant,
        diligence: Diligence,
    ) -> Self {
        let downstreams = config.downstreams.len();
        Model {
            engine: storage::engine(tables, config, seed),
            now,
            kernel: Kernel::new(downstreams),
            fails: Box::new(|_| false),
            deeds: Vec::new(),
            diligence,
            allowance: 0,
            is_ending: false,
            told: Told::default(),
            is_looked_for: false,
            was_late: false,
            idle: BTreeMap::new(),
            seen: (0, 0, 0),
            last_question: None,
            unreported: BTreeSet::new(),
            due: None,
        }
    }

    /// The engine takes an event, and the model carries out what follows.
    pub fn handle(&mut self, event: Event<'_>) {
        self.tell(event);
        match event {
            Event::Packet { packet, .. } => self.settle_within(|model| {
                // Each address or group in a packet takes some octets. Where there is no room, the
                // engine leaves all groups that nobody wants.
                let is_full = model.count(Counter::RefusedFull) > 0;
                let idle = if is_full { model.idle.len() } else { 0 };
                FEW + packet.len() / 5 + idle + model.most_stream_actions()
            }),
            Event::Link(..)
            | Event::Remembered { .. }
            | Event::Forgotten(_)
            | Event::Own { .. }
            | Event::OwnUnknown
            | Event::OwnKnown
            | Event::UpstreamPrefixes(_)
            | Event::Listed(..)
            | Event::Forwarding { .. }
            | Event::Counted { .. }
            | Event::Removed(..)
            | Event::Renew
            | Event::Stalled => self.settle(),
        }
    }

    /// The engine takes an event. The model carries out nothing yet.
    pub fn tell(&mut self, event: Event<'_>) {
        if self.kernel.follow(&event) {
            self.idle.clear();
            self.told.clear();
        }
        self.engine.handle(self.now, event);
        if let Event::Listed(table, Listing::Ends) = event {
            let entries = self.engine.ndp().kernel_entries();
            let believed = |address| view::believed(entries.get(address)?, table);
            self.kernel.believe(table, believed);
        }
    }

    /// From now on the model checks so many entries an event on average.
    pub fn diligence(&mut self, entries: usize) {
        self.diligence = Diligence::Entries(entries);
    }

    /// From now on the actions for which `fails` is true fail.
    pub fn fail_if(&mut self, fails: impl FnMut(&Action) -> bool + 'static) {
        self.fails = Box::new(fails);
    }

    /// The engine leaves all groups.
    pub fn end(&mut self) {
        self.is_ending = true;
        self.engine.end();
    }

    /// The kernel lists both tables as they are.
    pub fn list(&mut self) {
        for table in TABLES {
            self.tell(Event::Listed(table, Listing::Begins));
            for (address, side) in self.kernel.listing(table) {
                self.tell(Event::Listed(table, Listing::Has(address, side)));
            }
            self.tell(Event::Listed(table, Listing::Ends));
        }
        // An address that is not learned may be another process's, and stays in the table.
        let entries = self.engine.ndp().kernel_entries();
        let is_known = |address: &Ipv6Addr| entries.get(*address).is_some();
        self.kernel.proxies.retain(is_known);
        self.kernel.routes.retain(|address, _| is_known(address));
        self.kernel.trust();
        self.settle();
    }

    /// Lets time pass, and handles each deadline on its way.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.saturating_add(time);
        while let Some(due) = self.next_deadline().filter(|due| *due <= end) {
            self.now = due;
            self.time_out();
        }
        self.now = end;
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().get(counter)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.engine.next_deadline().map(|(due, _)| due)
    }

    /// Tells the engine the time, whether or not anything is due.
    pub fn time_out(&mut self) {
        self.engine.handle_timeout(self.now);
        self.settle();
        if let Some((due, reason)) = self.engine.next_deadline() {
            assert!(due > self.now, "a deadline that does not pass: {reason:?}");
        }
        if self.kernel.link(Side::Upstream).is_some() && !self.engine.ndp().groups().is_failing() {
            for (group, (_, since)) in &self.idle {
                let left_by = since.saturating_add(LEAVE_DELAY);
                assert!(left_by > self.now, "{group} is not left");
            }
        }
    }

    /// Carries out all actions, then checks the state.
    pub fn settle(&mut self) {
        self.settle_within(Model::most_actions);
    }

    fn settle_within(&mut self, most: impl Fn(&Model<'t>) -> usize) {
        self.drain(most);
        self.note_idle();
        self.note_told();
        let due = self.next_deadline();
        let was_late = self.due.is_some_and(|due| due < self.now);
        // The answer to a query without a response delay, for example, is due at once. `time_out`
        // handles it.
        let is_late = due.is_some_and(|due| due < self.now);
        assert!(was_late || !is_late, "a new deadline in the past: {due:?}");
        self.due = due;
        self.was_late = due.is_some_and(|due| due <= self.now);
        match self.diligence {
            Diligence::Always => self.check(),
            Diligence::Entries(entries) => {
                self.allowance = self.allowance.saturating_add(entries);
                if self.allowance >= self.entries() {
                    self.allowance = 0;
                    self.check();
                }
            }
        }
    }

    /// The number of entries that a check looks at.
    fn entries(&self) -> usize {
        let ndp = self.engine.ndp();
        let tables = self.kernel.proxies.len() + self.kernel.routes.len();
        // Each is looked at for each source and from each side.
        let streams = 4 * self.streams();
        ndp.neighbors().len() + ndp.groups().len() + tables + streams
    }

    /// How many groups and entries of streams there are.
    fn streams(&self) -> usize {
        let multicast = &self.kernel.multicast;
        let groups = self.engine.mld().streams().members().len();
        groups + multicast.memberships.len() + multicast.count()
    }

    /// The most actions for streams that an event may cause: changes of each group and source.
    fn most_stream_actions(&self) -> usize {
        let proxy = self.engine.mld().streams().proxy();
        let flows = proxy
            .iter()
            .map(|(_, merged)| proxy.flows_of(merged).count());
        4 * (flows.map(|flows| 1 + flows).sum::<usize>() + self.streams())
    }

    /// The most actions that an event may cause: two changes of each group, entry and route, and
    /// one question for each target on each link.
    fn most_actions(&self) -> usize {
        let ndp = self.engine.ndp();
        let entries = ndp.kernel_entries().iter().count();
        let links = 2 + self.engine.config().downstreams.len();
        self.most_stream_actions()
            + FEW
            + 3 * self.entries()
            + 4 * entries
            + links * ndp.targets().len()
    }

    /// Carries out all actions, which must be no more than `most`.
    fn drain(&mut self, most: impl Fn(&Model<'t>) -> usize) {
        let mut buffer = [0; BUFFER_LENGTH];
        let mut again = [0; BUFFER_LENGTH];
        let mut limit = FEW;
        let mut has_failed = false;
        for actions in 0.. {
            let Some(action) = self.engine.poll_action(&mut buffer) else {
                break;
            };
            if actions == FEW {
                limit = most(self);
            }
            assert!(actions < limit || actions < FEW, "the actions never end");
            let same = self.engine.poll_action(&mut again);
            assert_eq!(same, Some(action), "the same action until it is done");
            assert!(again == buffer, "the same octets until it is done");
            let succeeded = self.carry_out(&action, &buffer);
            self.engine.done(self.now, &action, succeeded);
            has_failed |= matches!(action, Action::Mld(_)) && !succeeded;
            let packet = match action {
                Action::Mld(
                    mld::Action::Report { length, .. }
                    | mld::Action::Streams(streams::Action::Query { length, .. }),
                )
                | Action::Ndp(
                    ndp::Action::Ask { length, .. }
                    | ndp::Action::Solicit { length, .. }
                    | ndp::Action::Advertise { length, .. },
                ) => buffer[..length].to_vec(),
                Action::Mld(mld::Action::Streams(
                    streams::Action::Membership(_) | streams::Action::Forward(_),
                ))
                | Action::Ndp(
                    ndp::Action::Join(_) | ndp::Action::Leave(_) | ndp::Action::Kernel(_),
                ) => Vec::new(),
            };
            self.deeds.push(Deed {
                at: self.now,
                action,
                packet,
                succeeded,
            });
        }
        if !has_failed {
            self.check_joins_are_reported();
        }
        self.unreported.clear();
    }

    /// Returns whether the action succeeded.
    fn carry_out(&mut self, action: &Action, buffer: &[u8]) -> bool {
        let fails = (self.fails)(action);
        match *action {
            Action::Mld(mld::Action::Streams(action)) => {
                self.carry_out_stream(&action, buffer, fails);
            }
            Action::Mld(mld::Action::Report { length, group }) => {
                self.check_report(&buffer[..length], group);
            }
            Action::Ndp(ndp::Action::Join(change)) => {
                assert!(change.join && self.kernel.link(Side::Upstream).is_some());
                let group = change.group.group();
                let is_new = !self.kernel.joined.contains(&group);
                assert!(is_new, "{group} is joined twice");
                if !fails {
                    self.kernel.joined.insert(group);
                    self.unreported.insert(group);
                }
            }
            Action::Ndp(ndp::Action::Leave(change)) => {
                assert!(!change.join && self.kernel.link(Side::Upstream).is_some());
                self.check_leave(change.group.group());
                if !fails {
                    self.kernel.joined.remove(&change.group.group());
                    self.unreported.remove(&change.group.group());
                }
            }
            Action::Ndp(ndp::Action::Kernel(change)) => {
                let is_up = self.kernel.link(change.side).is_some();
                assert!(
                    is_up || !change.present,
                    "an addition on no link: {change:?}"
                );
                if !fails {
                    self.kernel.change(&change);
                }
            }
            Action::Ndp(ndp::Action::Ask { length, question }) => {
                self.check_pace();
                self.check_question(&buffer[..length], &question);
            }
            // Without a link nothing can be sent.
            Action::Ndp(
                ndp::Action::Solicit { length: 0, .. } | ndp::Action::Advertise { length: 0, .. },
            ) => return false,
            Action::Ndp(ndp::Action::Solicit {
                length,
                side,
                destination,
                mac,
                target,
            }) => {
                assert_eq!(mac.is_some(), !destination.is_multicast());
                self.check_solicitation(&buffer[..length], side, destination, target);
            }
            Action::Ndp(ndp::Action::Advertise {
                length,
                side,
                target,
                destination,
                mac,
            }) => {
                assert_eq!(mac.is_some(), !destination.is_multicast());
                self.check_advertisement(&buffer[..length], side, destination, target);
                if side == Side::Upstream {
                    let is_there = view::is_confirmed(&self.engine, target);
                    assert!(is_there, "{target} is announced and not there");
                }
            }
        }
        !fails
    }

    fn carry_out_stream(&mut self, action: &streams::Action, buffer: &[u8], fails: bool) {
        assert!(!self.is_ending, "in the end there are only reports");
        match action {
            streams::Action::Query {
                port,
                length,
                destination,
                about,
            } => self.check_stream_query(&buffer[..*length], *port, *destination, about),
            streams::Action::Membership(change) => {
                assert!(self.kernel.link(Side::Upstream).is_some());
                let proxy = self.engine.mld().streams().proxy();
                let sources = proxy.sources_wanted(change.slot).collect();
                let is_join = change.before.is_none();
                let config = self.engine.config().mld_proxy.as_ref();
                let most = config.map_or(0, |config| config.max_groups.into());
                let solicited = self.engine.ndp().groups().len();
                let joined = self.kernel.multicast.memberships.len() + solicited;
                assert!(!is_join || joined < most, "too many groups upstream");
                if !fails {
                    self.kernel.multicast.change_membership(change, sources);
                }
            }
            streams::Action::Forward(change) => {
                if !fails {
                    self.kernel.multicast.change_entry(change);
                }
            }
        }
    }

    /// Questions keep their pace, whichever host they are for.
    fn check_pace(&mut self) {
        if let Some(last) = self.last_question.replace(self.now) {
            let earliest = last.saturating_add(PACE);
            assert!(self.now >= earliest, "questions crowd");
        }
    }

    /// The engine leaves a group once nobody has wanted it for a while. It leaves one at once only
    /// to make room for another.
    fn check_leave(&self, group: Ipv6Addr) {
        let joined = self.kernel.joined.contains(&group);
        assert!(joined, "{group} is left twice");
        let is_full = self.count(Counter::RefusedFull) > 0;
        let since = self.idle.get(&group).map(|(since, _)| *since);
        let is_due = since.is_some_and(|since| since.saturating_add(LEAVE_DELAY) <= self.now);
        assert!(is_due || is_full, "{group} is left too early");
    }

    /// Notes which groups nobody wants from now on, and which somebody wants again.
    fn note_idle(&mut self) {
        let known = self.engine.ndp().neighbors().len();
        let learned = self.count(Counter::Learned);
        let seen = (known, learned, self.count(Counter::Expired));
        let before = std::mem::replace(&mut self.seen, seen);
        if before == seen {
            let joined = &self.kernel.joined;
            self.idle.retain(|group, _| joined.contains(group));
            return;
        }
        let idle = std::mem::take(&mut self.idle);
        let groups = self.engine.ndp().groups().iter();
        for (group, _) in groups.filter(|(_, state)| state.members == 0) {
            let new = (self.now, self.now);
            let (since, mut certain) = *idle.get(&group.group()).unwrap_or(&new);
            if before.1 != seen.1 {
                // A neighbor that came and went at once may have been in the group.
                certain = self.now;
            }
            self.idle.insert(group.group(), (since, certain));
        }
    }
}
