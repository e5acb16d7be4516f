//! The size of the file for each router, beside that of the NDP proxies in Debian.

use std::fs;
use std::process::Command;

use crate::lab::find_tool;

pub fn section() -> String {
    let built = Command::new("cross/build")
        .arg("all")
        .output()
        .expect("python3");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let table = String::from_utf8_lossy(&built.stdout);
    let sizes = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, size, budget) = (words.next()?, words.next()?, words.next()?);
        let is_size = size.chars().all(|c| c.is_ascii_digit() || c == ',');
        is_size.then(|| format!("| {name} | {size} | {budget} |\n"))
    });
    let peers = ["ndppd", "npd6"].into_iter().filter_map(|name| {
        let size = fs::metadata(find_tool(name)?).ok()?.len();
        Some(format!(
            "| {name} of Debian, x86-64, without the libraries it needs | {size} | |\n"
        ))
    });
    format!(
        "## Size\n\n\
         `cross/build all`: one static file for each kind of router, with everything it needs, in \
         octets. The budget is what `cross/build` fails above.\n\n\
         | | octets | budget |\n|---|---|---|\n{}{}\n",
        sizes.collect::<String>(),
        peers.collect::<String>()
    )
}
