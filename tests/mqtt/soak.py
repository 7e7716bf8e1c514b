"""A soak: prompts for a while; resident memory flat within 2 MB, no file handle leaked, the budget kept as a hard limit.

A minute by default; `PLANTAIN_SOAK_SECONDS=3600 python tests/mqtt/soak.py` is the hour.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from cgroup import MemoryGroup
from harness import PLANTAIN, ROOT, Bench, check, main

SECONDS = float(os.environ.get("PLANTAIN_SOAK_SECONDS", "60"))
PAUSE_SECONDS = 0.2
BUDGET_MIB = 64
BUNDLED = ROOT / "models/packs/plantain-icons.safetensors"


def copies(folder: Path) -> list[Path]:
    """Binary and pack as they are installed, in files of their own: their page cache is charged to who reads them first."""
    binary, pack = folder / "plantain", folder / "pack.safetensors"
    shutil.copy(PLANTAIN, binary)
    subprocess.run(["strip", "-s", str(binary)], check=True, timeout=60)
    shutil.copy(os.environ.get("PLANTAIN_PACK", BUNDLED), pack)
    for file in (binary, pack):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return [binary, pack]


def soak():
    group = MemoryGroup(BUDGET_MIB << 20)
    if group.why_not:
        print(f"without a memory cgroup: {group.why_not}")
    try:
        in_group(group)
    finally:
        group.close()


def in_group(group: MemoryGroup) -> None:
    with Bench(["--answers-max", "32", "--status-seconds", "5", "--budget", f"{BUDGET_MIB}M"]) as bench:
        binary, pack = copies(bench.folder)
        daemon = bench.daemon(flags=["--pack", str(pack)], program=[*group.prefix(), str(binary)]).connected()
        client = bench.client()
        number, samples = 0, []
        start = said = time.monotonic()
        warm = max(5.0, SECONDS / 6)
        while (passed := time.monotonic() - start) < SECONDS:
            client.send({"prompt": f"a cat {number % 50}", "id": f"s{number}", "client": "soak"})
            client.result(id=f"s{number}")
            number += 1
            time.sleep(PAUSE_SECONDS)
            if passed > warm:
                samples.append((daemon.rss_bytes(), daemon.open_files()))
            if time.monotonic() - said > 300:
                said = time.monotonic()
                print(f"{passed:.0f} s, {number} prompts, {daemon.rss_bytes()} bytes, {daemon.open_files()} files", flush=True)
        status = json.loads(client.expect("status", 15).payload)
        third = max(1, len(samples) // 3)
        grown = max(rss for rss, _ in samples[-third:]) - max(rss for rss, _ in samples[:third])
        files = samples[-1][1] - samples[0][1]
        kept = "no cgroup"
        if not group.why_not:
            hits, peak = group.limit_hits(), group.peak_bytes()
            kept = f"{peak} bytes charged at most of {BUDGET_MIB << 20}, the limit hit {hits} times"
        print(f"{number} prompts in {SECONDS:.0f} s, memory {grown / 1024:+.0f} KiB, files {files:+d}, {kept}, "
              f"overhead at the median {status['overhead_ms']} ms")  # fmt: skip
        check(grown <= 2 << 20, f"resident memory grew by {grown} bytes over {number} prompts")
        check(files <= 1, f"{files} file handles were leaked over {number} prompts")
        check(group.why_not or hits == 0, f"the budget was not enough: {kept}")


if __name__ == "__main__":
    main({"soak": soak})
