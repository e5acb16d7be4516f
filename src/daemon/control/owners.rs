//! Whose control socket may be asked. Anybody can listen on a socket of any name. What the listener
//! says is printed, and believed, so it must be somebody who could do as much without it.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{FileStat, stat};
use nix::unistd::geteuid;
use std::os::fd::AsFd;

use crate::sys::records::{FOLDER, FOLDER_OF_FOLDER};

/// The users whose sockets may be asked: root, the caller, and in [`FOLDER`] the user to whom root
/// gave that folder. A daemon that a service manager starts as a user listens as that user.
#[derive(Clone, Copy)]
pub struct Owners {
    caller: u32,
    of_folder: Option<u32>,
}

impl Owners {
    /// The owners of sockets in a folder. `None` stands for one that cannot be looked at.
    pub fn in_folder(folder: Option<FileStat>) -> Self {
        let place = |status: &FileStat| (status.st_dev, status.st_ino);
        let is_own = |folder: &FileStat| {
            // Root alone could put the folder there, or a link to it.
            is_roots_alone(FOLDER_OF_FOLDER)
                && stat(FOLDER).is_ok_and(|own| place(&own) == place(folder))
        };
        Owners {
            caller: geteuid().as_raw(),
            of_folder: folder.filter(is_own).map(|folder| folder.st_uid),
        }
    }

    pub fn contains(self, user: u32) -> bool {
        user == 0 || user == self.caller || self.of_folder == Some(user)
    }

    /// Checks who listens at the other end of a connection: who called listen(2), whoever that
    /// process became later. Fails with the user.
    pub fn check(self, stream: impl AsFd) -> Result<(), Foreign> {
        // Linux tells this of every connected Unix socket.
        let user = getsockopt(&stream, PeerCredentials).map_or(u32::MAX, |peer| peer.uid());
        match self.contains(user) {
            true => Ok(()),
            false => Err(Foreign(user)),
        }
    }
}

/// A user whose sockets may not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign(pub u32);

/// Whether nobody but root can rename the folder, anything in it, or the folders above it. In a
/// folder with the sticky bit, as OpenWrt's `/var` has it, others can rename only what is theirs.
pub fn is_roots_alone(folder: &str) -> bool {
    let ends = folder.match_indices('/').map(|(place, _)| place.max(1));
    folder.starts_with('/')
        && ends.chain([folder.len()]).all(|end| {
            let sticky = if end < folder.len() { libc::S_ISVTX } else { 0 };
            folder.get(..end).map(stat).is_some_and(|status| {
                status.is_ok_and(|status| {
                    let others_write = status.st_mode & 0o022 != 0;
                    status.st_uid == 0 && (!others_write || status.st_mode & sticky != 0)
                })
            })
        })
}
