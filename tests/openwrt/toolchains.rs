//! How `cross/build` chooses among the toolchains of a machine.

use std::process::Command;

use crate::router::repository;

crate::tests![
    the_build_prefers_a_standard_library_built_for_size,
    the_build_names_a_missing_toolchain_and_its_remedy,
];

/// The output of `cross/build` when it chooses among toolchains. Each is described by whether it
/// has the source of the standard library, and whether it has a prebuilt one.
fn choose(toolchains: &[(bool, bool)], target: &str) -> String {
    let toolchains: Vec<String> = toolchains
        .iter()
        .map(|(source, prebuilt)| format!("({}, {})", u8::from(*source), u8::from(*prebuilt)))
        .collect();
    let script = format!(
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, 'cross')
from importlib.machinery import SourceFileLoader as Loader
from types import SimpleNamespace as Toolchain
build = Loader('build', 'cross/build').load_module()
found = [Toolchain(number=number, builds_std=source,
        has_std_for=lambda target, prebuilt=prebuilt: prebuilt)
    for number, (source, prebuilt) in enumerate([{}])]
print(build.choose(found, build.find('{target}')).number)",
        toolchains.join(", ")
    );
    let output = Command::new("python3")
        .args(["-W", "ignore", "-c", &script])
        .current_dir(repository("."))
        .output()
        .unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn the_build_prefers_a_standard_library_built_for_size() {
    assert_eq!(choose(&[(false, true), (true, false)], "x86_64"), "1\n");
    assert_eq!(choose(&[(false, false), (false, true)], "x86_64"), "1\n");
}

fn the_build_names_a_missing_toolchain_and_its_remedy() {
    let arm = choose(&[(false, false)], "arm_cortex-a9");
    for expected in [
        "no Rust of this machine can build for armv7-unknown-linux-musleabi; ",
        "\n  rustup component add rust-src ",
        "\n  apt-get install rustc-web cargo-web rust-web-src ",
        "\n  rustup target add armv7-unknown-linux-musleabi ",
    ] {
        assert!(arm.contains(expected), "{expected:?}: {arm}");
    }
    // Nobody prebuilds the standard library for MIPS.
    let mips = choose(&[], "mipsel_24kc");
    assert!(
        mips.contains("rust-src") && !mips.contains("target add"),
        "{mips}"
    );
}
