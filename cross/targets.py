"""The targets of the cross builds: one row for each kind of CPU."""

from dataclasses import dataclass
from pathlib import Path
import sys

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "target" / "cross"


@dataclass(frozen=True)
class Target:
    architecture: str  # OpenWrt's name for the architecture of a package
    triple: str  # Rust's name of the target
    linker: str  # zig's name of the target
    budget: int  # the most octets of the file
    # The page size of the kernels, if the linker would assume a larger one and pad the file.
    page: int | None
    also: tuple[str, ...]  # other architectures whose CPUs run the same file
    routers: str  # the routers with such a CPU

    @property
    def file(self) -> Path:
        """The path of the static file."""
        return OUTPUT / self.architecture / "mldproxy"


# Each budget is a little above the size of the file. A quarter of the file is the MLD proxy, with
# what is told of it; a ninth is the NDP proxy, and a twelfth what `check` does. By comparison, Debian's ndppd for x86-64 has 162 kB,
# and needs the C++ library of 2.2 MB.
# fmt: off
TARGETS = (
    Target("mipsel_24kc", "mipsel-unknown-linux-musl", "mipsel-linux-musleabi", 506_000, None,
           ("mipsel_24kc_24kf", "mipsel_74kc"), "MT7621, MT7628 (ramips)"),
    Target("mips_24kc", "mips-unknown-linux-musl", "mips-linux-musleabi", 506_000, None,
           ("mips_4kec",), "ath79, lantiq; big-endian"),
    Target("arm_cortex-a7_neon-vfpv4", "armv7-unknown-linux-musleabihf", "arm-linux-musleabihf",
           446_000, 4096,
           ("arm_cortex-a15_neon-vfpv4", "arm_cortex-a5_vfpv4", "arm_cortex-a7",
            "arm_cortex-a7_vfpv4", "arm_cortex-a8_vfpv3", "arm_cortex-a9_neon",
            "arm_cortex-a9_vfpv3-d16"), "IPQ40xx, Cortex-A7"),
    Target("arm_cortex-a9", "armv7-unknown-linux-musleabi", "arm-linux-musleabi", 450_000, 4096,
           (), "bcm53xx, no floating point"),
    Target("aarch64_cortex-a53", "aarch64-unknown-linux-musl", "aarch64-linux-musl", 373_000, None,
           ("aarch64_cortex-a72", "aarch64_cortex-a76", "aarch64_generic"),
           "MT7622, MT798x, IPQ807x, Raspberry Pi"),
    Target("x86_64", "x86_64-unknown-linux-musl", "x86_64-linux-musl", 400_000, None,
           (), "PCs, virtual machines"),
    Target("riscv64_generic", "riscv64gc-unknown-linux-musl", "riscv64-linux-musl", 394_000, None,
           ("riscv64_riscv64",), "StarFive, D1"),
)
# fmt: on


def find(name: str) -> Target:
    """The target whose file an architecture runs. Ends the program if there is none."""
    for target in TARGETS:
        if name == target.architecture or name in target.also:
            return target
    names = "\n".join(f"  {target.architecture:26}{target.routers}" for target in TARGETS)
    sys.exit(f"no target {name!r}; there are\n{names}")
