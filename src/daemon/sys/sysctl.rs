//! The sysctls of IPv6 that decide how the kernel answers by proxy entries. `CAP_NET_ADMIN` is
//! enough to write them, for any user. This uses no heap, since it happens while the daemon runs.

use std::fmt::{self, Write as _};

use heapless::String;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};
use protocol::escaped::Escaped;

use super::decimal;
use super::records::Key;

/// A setting of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<'n> {
    /// If it is not 0, the kernel answers solicitations for its proxy entries, on every interface.
    AllProxyNdp,
    /// If it is not 0, the kernel answers multicast solicitations for the proxy entries of this
    /// interface.
    ProxyNdp(&'n str),
    /// The longest delay before the kernel answers a multicast solicitation on this interface, in
    /// hundredths of a second.
    ProxyDelay(&'n str),
}

impl<'n> Setting<'n> {
    /// # Errors
    /// `ENOENT` if there is no such interface, or no IPv6 on it; `EINVAL` if the value is not a
    /// number from 0 up.
    pub fn read(&self) -> nix::Result<u32> {
        let file = open(self.path().as_str(), OFlag::O_CLOEXEC, Mode::empty())?;
        let mut digits = [0; 16];
        let length = read(&file, &mut digits)?;
        let digits = digits.get(..length).unwrap_or_default();
        decimal(digits.trim_ascii()).ok_or(Errno::EINVAL)
    }

    /// # Errors
    /// As [`read`](Self::read); `EROFS` if `/proc/sys` is mounted read-only, `EACCES` without the
    /// capability.
    pub fn write(&self, value: u32) -> nix::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = open(self.path().as_str(), flags, Mode::empty())?;
        // Every number fits.
        let mut digits = String::<10>::new();
        let _ = write!(digits, "{value}");
        write(&file, digits.as_bytes()).map(drop)
    }

    /// The name of its [record](super::records), on an interface with this number.
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

    /// The parts of its path behind `/proc/sys/net/ipv6/`.
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
            // The longest name of an interface fits.
            let _ = path.push_str(part);
        }
        path
    }
}

/// Writes it as sysctl(8) does, with a slash for a dot in an interface's name.
impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, interface, name) = self.parts();
        f.write_str("net.ipv6.")?;
        f.write_str(table)?;
        f.write_str(".")?;
        for (place, part) in interface.split('.').enumerate() {
            f.write_str(if place == 0 { "" } else { "/" })?;
            Escaped(part).fmt(f)?;
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
