//! Whose control socket may be asked. Anybody can listen on a socket of any name. What the listener
//! says is printed, and believed, so it must be somebody who could do as much without it.

use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{FileStat, stat};
use nix::unistd::geteuid;

use crate::sys::folder::is_roots_alone;
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
