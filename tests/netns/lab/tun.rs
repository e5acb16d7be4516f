//! A link without Ethernet.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::Read;
use std::os::fd::AsFd;

use super::Namespace;

/// The far end of a TUN device: reads the IPv6 packets that are sent out of it. Dropping it removes
/// the device.
pub struct Tun(File);

impl Tun {
    /// Creates the device. Fails where the system has none.
    pub fn create(namespace: &Namespace, name: &str) -> io::Result<Self> {
        namespace.within(|| {
            let file = File::options()
                .read(true)
                .write(true)
                .open("/dev/net/tun")?;
            attach(&file, name)?;
            Ok(Tun(file))
        })
    }

    /// The next packet, from its IP header on, if one comes within `deadline`.
    pub fn receive(&mut self, deadline: Duration) -> Option<Vec<u8>> {
        let mut descriptors = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(deadline).expect("a short deadline");
        if poll(&mut descriptors, timeout).expect("the device can be polled") == 0 {
            return None;
        }
        let mut packet = vec![0; 65536];
        let length = self.0.read(&mut packet).expect("a packet");
        packet.truncate(length);
        Some(packet)
    }
}

#[expect(unsafe_code, reason = "nothing but an ioctl creates a TUN device")]
fn attach(file: &File, name: &str) -> io::Result<()> {
    // struct ifreq: a name of 16 octets, the flags, and room for the largest member of the union.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the kernel reads and writes one struct ifreq, which has at most 40 octets.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
