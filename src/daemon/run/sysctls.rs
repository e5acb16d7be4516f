//! The sysctls that the kernel needs to answer by proxy entries at once. The daemon sets those that
//! are not right. The last instance that needs them restores them, even if another instance set
//! them, or one that was killed.

use std::fmt;

use heapless::String;
use log::{info, warn};
use nix::errno::Errno;
use protocol::time::{Duration, Instant};

use crate::sys::netlink::siblings::Siblings;
use crate::sys::records::Records;
use crate::sys::sysctl::Setting;

/// How long the kernel may take to create an interface's settings before the log calls that a
/// refusal. The kernel reports an interface, or that it is large enough for IPv6 again, before it
/// creates its settings.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sysctls, and their values before.
#[derive(Default)]
pub struct ProxySettings {
    /// The name and the number of the interface that they were applied to.
    applied: Option<(String<15>, u32)>,
    /// Since when some of the interface's settings have been missing.
    incomplete: Option<Instant>,
    /// The values before, in the order of [`settings`]; `None` for a setting that was right. They
    /// count where nothing could be recorded.
    before: [Option<u32>; COUNT],
    /// The number of the interface that there are records of.
    recorded: u32,
    /// The settings that are not right, as the log has it.
    lacking: [bool; COUNT],
}

impl ProxySettings {
    /// Sets what is not right, once for each number that the interface has. If the kernel refuses,
    /// one line of the log says what that means. Returns false while the kernel has not created all
    /// settings of the interface: call it again soon.
    pub fn apply(&mut self, records: &Records, now: Instant, interface: &str, index: u32) -> bool {
        self.apply_to(&Kernel(records), now, interface, index)
    }

    /// Notes that the interface is gone, or has no IPv6 any more, and its settings with it.
    pub fn interface_is_gone(&mut self) {
        self.applied = None;
    }

    /// Logs once what somebody has changed since, and leaves it changed.
    pub fn look(&mut self, records: &Records) {
        self.look_at(&Kernel(records));
    }

    /// Restores what still has the value that the daemon set, on the upstream as it is now, unless
    /// another instance needs it.
    pub fn restore(
        &mut self,
        records: &Records,
        siblings: &Siblings,
        (interface, index): (&str, Option<u32>),
    ) {
        // No interface has the number 0.
        let index = index.unwrap_or_default();
        let needed = [
            siblings.proxy(None),
            siblings.proxy(Some(index)),
            siblings.proxy(Some(index)),
        ];
        self.restore_to(&Kernel(records), (interface, index), needed);
    }

    fn apply_to(
        &mut self,
        sysctls: &dyn Sysctls,
        now: Instant,
        interface: &str,
        index: u32,
    ) -> bool {
        if !matches!(self.applied, Some((_, applied)) if applied == index) {
            let [of_all, ..] = self.before;
            // The settings of an interface are gone with it.
            self.before = [of_all, None, None];
            // An interface's name always fits.
            let name = String::try_from(interface).unwrap_or_default();
            self.applied = Some((name, index));
            self.incomplete = Some(now);
            if self.recorded != index {
                for setting in settings(interface).iter().skip(1) {
                    sysctls.forget(*setting, self.recorded);
                }
                self.recorded = index;
            }
        }
        let Some(since) = self.incomplete else {
            return true;
        };

        let mut refusals = [None; COUNT];
        let places = self.before.iter_mut().zip(&mut refusals);
        for (setting, (before, refusal)) in settings(interface).into_iter().zip(places) {
            match set(sysctls, setting, index) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    info!("{setting} is {} from now on, was {value}", wanted(setting));
                    *before = Some(value);
                }
                Err(errno) => *refusal = Some(errno),
            }
        }
        // The settings of all interfaces are always there; those of this one may come late.
        let [_, of_interface @ ..] = refusals;
        if of_interface.contains(&Some(Errno::ENOENT)) && now.since(since) < PATIENCE {
            return false;
        }
        self.incomplete = None;
        if refusals.iter().any(Option::is_some) {
            warn!("{}", Refused(interface, refusals));
        }
        self.lacking = refusals.map(|refusal| refusal.is_some());
        true
    }

    fn look_at(&mut self, sysctls: &dyn Sysctls) {
        let Some((interface, _)) = &self.applied else {
            return;
        };
        let is_lacking = |setting| {
            let value = sysctls.read(setting);
            value.is_ok_and(|value| value.min(1) != wanted(setting))
        };
        let lacking = settings(interface).map(is_lacking);
        let mut news = lacking.iter().zip(self.lacking);
        if news.any(|(lacks, lacked)| *lacks && !lacked) {
            warn!("{}", Changed(interface, lacking));
        }
        self.lacking = lacking;
    }

    fn restore_to(
        &mut self,
        sysctls: &dyn Sysctls,
        (interface, index): (&str, u32),
        needed: [bool; COUNT],
    ) {
        let changed = settings(interface).into_iter().zip(&mut self.before);
        for ((setting, before), needed) in changed.zip(needed) {
            if needed {
                continue;
            }
            let own = before.take();
            let before = sysctls.recorded(setting, index).or(own);
            // Otherwise somebody changed it since, or the interface is gone.
            if let Some(before) = before
                && sysctls.read(setting) == Ok(wanted(setting))
            {
                match sysctls.write(setting, before) {
                    Ok(()) => info!("{setting} is {before} again"),
                    Err(errno) => {
                        if own.is_some() {
                            warn!("{setting} cannot be {before} again: {}", errno.desc());
                        }
                        // The record stays: the next instance may be able to restore it.
                        continue;
                    }
                }
            }
            sysctls.forget(setting, index);
        }
    }
}

const COUNT: usize = 3;

fn settings(interface: &str) -> [Setting<'_>; COUNT] {
    [
        Setting::AllProxyNdp,
        Setting::ProxyNdp(interface),
        Setting::ProxyDelay(interface),
    ]
}

fn wanted(setting: Setting<'_>) -> u32 {
    match setting {
        Setting::AllProxyNdp | Setting::ProxyNdp(_) => 1,
        Setting::ProxyDelay(_) => 0,
    }
}

/// Sets a setting that is not right. Returns its value before, or `None` if it was right.
fn set(sysctls: &dyn Sysctls, setting: Setting<'_>, index: u32) -> nix::Result<Option<u32>> {
    let value = sysctls.read(setting)?;
    let wanted = wanted(setting);
    // Any number but 0 counts as 1.
    if value.min(1) == wanted {
        return Ok(None);
    }
    sysctls.record(setting, index, value);
    let written = sysctls.write(setting, wanted);
    if written.is_err() {
        sysctls.forget(setting, index);
    }
    written.map(|()| Some(value))
}

/// Where the settings and their records are.
trait Sysctls {
    fn read(&self, setting: Setting<'_>) -> nix::Result<u32>;
    fn write(&self, setting: Setting<'_>, value: u32) -> nix::Result<()>;
    /// Records the value before, where the next process finds it.
    fn record(&self, setting: Setting<'_>, index: u32, value: u32);
    fn recorded(&self, setting: Setting<'_>, index: u32) -> Option<u32>;
    fn forget(&self, setting: Setting<'_>, index: u32);
}

struct Kernel<'r>(&'r Records);

impl Sysctls for Kernel<'_> {
    fn read(&self, setting: Setting<'_>) -> nix::Result<u32> {
        setting.read()
    }

    fn write(&self, setting: Setting<'_>, value: u32) -> nix::Result<()> {
        setting.write(value)
    }

    fn record(&self, setting: Setting<'_>, index: u32, value: u32) {
        self.0.write(setting.key(index), value);
    }

    fn recorded(&self, setting: Setting<'_>, index: u32) -> Option<u32> {
        self.0.read(setting.key(index))
    }

    fn forget(&self, setting: Setting<'_>, index: u32) {
        self.0.remove(setting.key(index));
    }
}

/// The settings of an interface that the kernel refused, at least one, with the consequence.
struct Refused<'n>(&'n str, [Option<Errno>; COUNT]);

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused(interface, refusals) = self;
        let mut reason = None;
        for (setting, refusal) in settings(interface).into_iter().zip(refusals) {
            if refusal.is_some() {
                let separator = if reason.is_none() { "" } else { ", " };
                write!(f, "{separator}{setting}")?;
                reason = reason.or(*refusal);
            }
        }
        let reason = reason.map_or("", Errno::desc);
        let consequence = consequence(refusals.map(|refusal| refusal.is_some()));
        write!(f, " cannot be set ({reason}): {consequence}")
    }
}

/// The settings of an interface that somebody changed, at least one, with the consequence.
struct Changed<'n>(&'n str, [bool; COUNT]);

impl fmt::Display for Changed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changed(interface, lacking) = self;
        let settings = settings(interface).into_iter().zip(lacking);
        for (place, (setting, _)) in settings.filter(|(_, lacks)| **lacks).enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{setting}")?;
        }
        write!(
            f,
            " was changed by somebody, and stays: {}",
            consequence(*lacking)
        )
    }
}

/// What works while these settings are not right.
fn consequence(lacking: [bool; COUNT]) -> &'static str {
    match lacking {
        [true, true, _] => {
            "the kernel does not answer for hosts until the first is 1; their groups are joined \
             all the same"
        }
        [true, false, false] => {
            "the kernel does not answer unicast solicitations until it is 1; it answers multicast \
             ones"
        }
        [true, false, true] => {
            "the kernel does not answer unicast solicitations until the first is 1; it answers \
             multicast ones, up to 0.8 s late"
        }
        [false, true, false] => "that of all interfaces is set, which is enough",
        [false, _, true] => "the kernel answers for hosts, but up to 0.8 s late",
        [false, false, false] => "",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const NOBODY: [bool; COUNT] = [false; COUNT];
    const NOW: Instant = Instant::from_secs(1);

    type Values = RefCell<Vec<(std::string::String, u32)>>;

    /// Settings by name, whether they can be written, and what is recorded.
    struct Fake(Values, bool, Values);

    impl Fake {
        fn new(of_all: u32, of_wan: u32, delay: u32) -> Self {
            let values = settings("wan").into_iter().zip([of_all, of_wan, delay]);
            let values = values.map(|(setting, value)| (setting.to_string(), value));
            Fake(RefCell::new(values.collect()), true, Values::default())
        }

        fn values(&self) -> Vec<u32> {
            self.0.borrow().iter().map(|(_, value)| *value).collect()
        }
    }

    impl Sysctls for Fake {
        fn read(&self, setting: Setting<'_>) -> nix::Result<u32> {
            let values = self.0.borrow();
            let mut values = values.iter();
            let found = values.find(|(name, _)| *name == setting.to_string());
            found.map(|(_, value)| *value).ok_or(Errno::ENOENT)
        }

        fn write(&self, setting: Setting<'_>, value: u32) -> nix::Result<()> {
            if !self.1 {
                return Err(Errno::EROFS);
            }
            let mut values = self.0.borrow_mut();
            let mut values = values.iter_mut();
            let found = values.find(|(name, _)| *name == setting.to_string());
            found.ok_or(Errno::ENOENT)?.1 = value;
            Ok(())
        }

        fn record(&self, setting: Setting<'_>, index: u32, value: u32) {
            self.forget(setting, index);
            let name = format!("{setting} {}", setting.key(index).index);
            self.2.borrow_mut().push((name, value));
        }

        fn recorded(&self, setting: Setting<'_>, index: u32) -> Option<u32> {
            let name = format!("{setting} {}", setting.key(index).index);
            let records = self.2.borrow();
            let mut records = records.iter();
            records
                .find(|(other, _)| *other == name)
                .map(|(_, value)| *value)
        }

        fn forget(&self, setting: Setting<'_>, index: u32) {
            let name = format!("{setting} {}", setting.key(index).index);
            self.2.borrow_mut().retain(|(other, _)| *other != name);
        }
    }

    #[test]
    fn what_was_changed_is_put_back_and_nothing_else() {
        let sysctls = Fake::new(0, 2, 80);
        let mut applied = ProxySettings::default();
        applied.apply_to(&sysctls, NOW, "wan", 3);
        assert_eq!(sysctls.values(), [1, 2, 0]);
        applied.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [0, 2, 80]);
        *sysctls.0.borrow_mut() = Fake::new(1, 0, 0).0.into_inner();
        applied.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [1, 0, 0], "only once");
    }

    #[test]
    fn what_a_process_changed_that_was_killed_is_put_back_by_the_next() {
        let sysctls = Fake::new(0, 0, 80);
        ProxySettings::default().apply_to(&sysctls, NOW, "wan", 3);
        let mut next = ProxySettings::default();
        next.apply_to(&sysctls, NOW, "wan", 3);
        assert_eq!(next.before, [None; COUNT], "it changed nothing");
        next.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [0, 0, 80]);
        assert!(sysctls.2.borrow().is_empty());
        // An instance that needs none of the settings restores them too, but not on another
        // interface.
        ProxySettings::default().apply_to(&sysctls, NOW, "wan", 3);
        ProxySettings::default().restore_to(&sysctls, ("wan", 4), NOBODY);
        assert_eq!(sysctls.values(), [0, 1, 0]);
    }

    #[test]
    fn what_another_instance_needs_is_put_back_by_that_one() {
        let sysctls = Fake::new(0, 0, 80);
        let [mut first, mut second] = [(); 2].map(|()| ProxySettings::default());
        first.apply_to(&sysctls, NOW, "wan", 3);
        second.apply_to(&sysctls, NOW, "wan", 3);
        first.restore_to(&sysctls, ("wan", 3), [true; COUNT]);
        assert_eq!(sysctls.values(), [1, 1, 0]);
        second.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [0, 0, 80]);
    }

    #[test]
    fn an_older_record_counts_no_more_once_somebody_changed_the_setting() {
        let sysctls = Fake::new(0, 0, 80);
        ProxySettings::default().apply_to(&sysctls, NOW, "wan", 3);
        sysctls.write(Setting::ProxyDelay("wan"), 20).unwrap();
        let mut next = ProxySettings::default();
        next.apply_to(&sysctls, NOW, "wan", 3);
        next.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [0, 0, 20]);
    }

    #[test]
    fn an_interface_that_comes_and_goes_leaves_no_records_behind() {
        let sysctls = Fake::new(0, 0, 80);
        let mut applied = ProxySettings::default();
        for index in 3..50 {
            for (setting, value) in settings("wan").into_iter().zip([1, 0, 80]).skip(1) {
                sysctls.write(setting, value).unwrap();
            }
            applied.apply_to(&sysctls, NOW, "wan", index);
            applied.interface_is_gone();
            assert_eq!(sysctls.2.borrow().len(), COUNT);
        }
    }

    #[test]
    fn what_somebody_changes_meanwhile_is_noticed_once() {
        let sysctls = Fake::new(0, 0, 80);
        let mut applied = ProxySettings::default();
        applied.apply_to(&sysctls, NOW, "wan", 3);
        applied.look_at(&sysctls);
        assert_eq!(applied.lacking, [false; COUNT]);
        sysctls.write(Setting::AllProxyNdp, 0).unwrap();
        applied.look_at(&sysctls);
        assert_eq!(applied.lacking, [true, false, false]);
        assert_eq!(sysctls.values(), [0, 1, 0], "it is not fought over");
        assert_eq!(
            Changed("wan", applied.lacking).to_string(),
            "net.ipv6.conf.all.proxy_ndp was changed by somebody, and stays: \
             the kernel does not answer unicast solicitations until it is 1; it answers multicast \
             ones"
        );
    }

    #[test]
    fn what_somebody_else_changed_since_stays() {
        let sysctls = Fake::new(0, 0, 80);
        let mut applied = ProxySettings::default();
        applied.apply_to(&sysctls, NOW, "wan", 3);
        sysctls.write(Setting::ProxyDelay("wan"), 20).unwrap();
        applied.apply_to(&sysctls, NOW, "wan", 3);
        assert_eq!(sysctls.values(), [1, 1, 20], "it is not fought over");
        applied.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [0, 0, 20]);
    }

    #[test]
    fn an_interface_that_is_created_anew_has_nothing_put_back_from_before() {
        let sysctls = Fake::new(0, 0, 80);
        let mut applied = ProxySettings::default();
        applied.apply_to(&sysctls, NOW, "wan", 3);
        // Another program set the new interface's first.
        let anew = Fake::new(1, 1, 0);
        applied.apply_to(&anew, NOW, "wan", 7);
        applied.restore_to(&anew, ("wan", 3), NOBODY);
        assert_eq!(anew.values(), [0, 1, 0]);
    }

    #[test]
    fn an_interface_that_loses_its_settings_gets_them_again() {
        let sysctls = Fake::new(0, 0, 80);
        let mut applied = ProxySettings::default();
        applied.apply_to(&sysctls, NOW, "wan", 3);
        applied.interface_is_gone();
        let anew = Fake::new(1, 0, 80);
        applied.apply_to(&anew, NOW, "wan", 3);
        assert_eq!(anew.values(), [1, 1, 0]);
        applied.interface_is_gone();
        applied.restore_to(&anew, ("wan", 3), NOBODY);
        assert_eq!(anew.values(), [0, 0, 80]);
    }

    #[test]
    fn settings_that_the_kernel_creates_late_are_set_and_put_back() {
        let sysctls = Fake::new(0, 0, 80);
        let late = sysctls.0.borrow_mut().split_off(1);
        let mut applied = ProxySettings::default();
        assert!(!applied.apply_to(&sysctls, NOW, "wan", 3));
        assert_eq!(sysctls.values(), [1]);
        sysctls.0.borrow_mut().push(late[0].clone());
        assert!(!applied.apply_to(&sysctls, NOW, "wan", 3));
        sysctls.0.borrow_mut().push(late[1].clone());
        assert!(applied.apply_to(&sysctls, NOW, "wan", 3));
        assert_eq!(sysctls.values(), [1, 1, 0]);
        applied.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [0, 0, 80]);
    }

    #[test]
    fn settings_that_the_kernel_never_creates_are_waited_for_no_longer_than_the_patience() {
        let sysctls = Fake::new(0, 0, 80);
        sysctls.0.borrow_mut().truncate(1);
        let mut applied = ProxySettings::default();
        let at = |seconds| NOW.saturating_add(Duration::from_secs(seconds));
        assert!(!applied.apply_to(&sysctls, at(0), "wan", 3));
        assert!(!applied.apply_to(&sysctls, at(9), "wan", 3));
        assert!(applied.apply_to(&sysctls, at(10), "wan", 3));
        applied.interface_is_gone();
        assert!(!applied.apply_to(&sysctls, at(20), "wan", 3), "anew");
    }

    #[test]
    fn an_interface_that_is_gone_is_no_trouble() {
        let sysctls = Fake::new(0, 0, 80);
        let mut applied = ProxySettings::default();
        applied.apply_to(&sysctls, NOW, "wan", 3);
        sysctls.0.borrow_mut().truncate(1);
        applied.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [0]);
    }

    #[test]
    fn what_cannot_be_set_is_not_put_back() {
        let mut sysctls = Fake::new(0, 1, 80);
        sysctls.1 = false;
        let mut applied = ProxySettings::default();
        applied.apply_to(&sysctls, NOW, "wan", 3);
        assert_eq!(applied.before, [None; COUNT]);
        sysctls.1 = true;
        applied.restore_to(&sysctls, ("wan", 3), NOBODY);
        assert_eq!(sysctls.values(), [0, 1, 80]);
    }

    #[test]
    fn a_refusal_says_what_is_missing_and_what_works() {
        let line = |refused: [bool; COUNT]| {
            let refusals = refused.map(|refused| refused.then_some(Errno::EROFS));
            Refused("wan", refusals).to_string()
        };
        assert_eq!(
            line([true, true, true]),
            "net.ipv6.conf.all.proxy_ndp, net.ipv6.conf.wan.proxy_ndp, \
             net.ipv6.neigh.wan.proxy_delay cannot be set \
             (Read-only file system): the kernel does not answer for hosts until the first is 1; \
             their groups are joined all the same"
        );
        assert_eq!(
            line([true, false, false]),
            "net.ipv6.conf.all.proxy_ndp cannot be set (Read-only file system): \
             the kernel does not answer unicast solicitations until it is 1; it answers multicast \
             ones"
        );
        assert_eq!(
            line([false, true, false]),
            "net.ipv6.conf.wan.proxy_ndp cannot be set (Read-only file system): that of all \
             interfaces is set, which is enough"
        );
        assert_eq!(
            line([false, false, true]),
            "net.ipv6.neigh.wan.proxy_delay cannot be set (Read-only file system): \
             the kernel answers for hosts, but up to 0.8 s late"
        );
    }
}
