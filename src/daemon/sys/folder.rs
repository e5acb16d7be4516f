//! Reads the names in a folder, and tells who can change what is in it.

use std::os::fd::BorrowedFd;

use nix::sys::stat::stat;

use super::ffi;

/// Calls `ends` with each name in an open folder, `.` and `..` among them, until it returns true. A
/// name holds any octets but `/` and zero. A folder that cannot be read counts as empty. The
/// C library's way would bring its heap into the file.
pub fn for_each_name(folder: BorrowedFd<'_>, ends: &mut dyn FnMut(&[u8]) -> bool) {
    let mut entries = [0; 4096];
    while let Ok(length @ 1..) = ffi::read_folder(folder, &mut entries) {
        let mut rest = &entries[..length];
        // struct linux_dirent64: two numbers of 8 octets, the entry's length in 2, its type in 1,
        // then the name with zeros behind it.
        while let Some(&[low, high]) = rest.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..length).unwrap_or_default();
            let name = name.split(|octet| *octet == 0).next().unwrap_or_default();
            if ends(name) {
                return;
            }
            rest = rest.get(length.max(1)..).unwrap_or_default();
        }
    }
}

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
