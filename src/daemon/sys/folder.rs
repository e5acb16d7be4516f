//! Reads the names in a folder. The C library's way would bring its heap into the file.

use std::os::fd::BorrowedFd;

use super::ffi;

/// Calls `ends` with each name in an open folder, `.` and `..` among them, until it returns true. A
/// name holds any octets but `/` and zero. A folder that cannot be read counts as empty.
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
