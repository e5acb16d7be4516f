//! The sysctls of IPv6 that decide how the kernel answers for neighbors in their place. `CAP_NET_ADMIN` is enough to write them, whoever
//! the user. No heap: they are read and written while the daemon runs.

use std::fmt::{self, Write as _};

use heapless::String;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use super::decimal;
use super::records::Key;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<'n> {
    /// On every interface the kernel answers solicitations for what it has proxy entries for there, where this is not 0.
    AllProxyNdp,
    /// The same on one interface, but for unicast solicitations.
    ProxyNdp(&'n str),
    /// How late at most multicast solicitations are answered on an interface, in hundredths of a second.
    ProxyDelay(&'n str),
}

impl<'n> Setting<'n> {
    /// # Errors
    /// `ENOENT` where there is no such interface, or no IPv6 on it; `EINVAL` where the value is no number from 0.
    pub fn read(&self) -> nix::Result<u32> {
        let file = open(self.path().as_str(), OFlag::O_CLOEXEC, Mode::empty())?;
        let mut digits = [0; 16];
        let length = read(&file, &mut digits)?;
        let digits = digits.get(..length).unwrap_or_default();
        decimal(digits.trim_ascii()).ok_or(Errno::EINVAL)
    }

    /// # Errors
    /// As [`read`](Self::read); `EROFS` where `/proc/sys` is mounted so, `EACCES` without the capability.
    pub fn write(&self, value: u32) -> nix::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = open(self.path().as_str(), flags, Mode::empty())?;
        // No number is longer.
        let mut digits = String::<10>::new();
        let _ = write!(digits, "{value}");
        write(&file, digits.as_bytes()).map(drop)
    }

    /// By which it is [recorded](super::records), on an interface of this number.
    pub fn key(&self, index: u32) -> Key<'n> {
        let (_, interface, name) = self.parts();
        let index = match self {
            Setting::AllProxyNdp => 0,
            Setting::ProxyNdp(_) | Setting::ProxyDelay(_) => index,
        };
        Key {
            index,
            interface,
            name,
        }
    }

    /// What is behind `/proc/sys/net/ipv6/`.
    fn parts(&self) -> (&'static str, &'n str, &'static str) {
        match *self {
            Setting::AllProxyNdp => ("conf", "all", "proxy_ndp"),
            Setting::ProxyNdp(interface) => ("conf", interface, "proxy_ndp"),
            Setting::ProxyDelay(interface) => ("neigh", interface, "proxy_delay"),
        }
    }

    fn path(&self) -> String<64> {
        let mut path = String::new();
        let (table, interface, name) = self.parts();
        for part in ["/proc/sys/net/ipv6/", table, "/", interface, "/", name] {
            // The longest name of an interface leaves room.
            let _ = path.push_str(part);
        }
        path
    }
}

/// As sysctl(8) names them, where a dot in an interface's name is a slash.
impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, interface, name) = self.parts();
        f.write_str("net.ipv6.")?;
        f.write_str(table)?;
        f.write_str(".")?;
        for (place, part) in interface.split('.').enumerate() {
            f.write_str(if place == 0 { "" } else { "/" })?;
            f.write_str(part)?;
        }
        f.write_str(".")?;
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_named_as_sysctl_does_and_has_its_file() {
        for (setting, name, path) in [
            (
                Setting::AllProxyNdp,
                "net.ipv6.conf.all.proxy_ndp",
                "/proc/sys/net/ipv6/conf/all/proxy_ndp",
            ),
            (
                Setting::ProxyNdp("eth0.2"),
                "net.ipv6.conf.eth0/2.proxy_ndp",
                "/proc/sys/net/ipv6/conf/eth0.2/proxy_ndp",
            ),
            (
                Setting::ProxyDelay("fifteen-letters"),
                "net.ipv6.neigh.fifteen-letters.proxy_delay",
                "/proc/sys/net/ipv6/neigh/fifteen-letters/proxy_delay",
            ),
        ] {
            assert_eq!(setting.to_string(), name);
            assert_eq!(setting.path().as_str(), path);
        }
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_settings() {
        let setting = Setting::ProxyNdp("not-there");
        assert_eq!(setting.read(), Err(Errno::ENOENT));
        assert_eq!(setting.write(1), Err(Errno::ENOENT));
    }
}
