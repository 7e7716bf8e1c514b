"""A memory cgroup, version 1 or 2, with a hard limit and no swap, for one daemon."""

from __future__ import annotations

import os
import time
from pathlib import Path


class MemoryGroup:
    """Made as root; `why_not` says why there is none on this machine."""

    def __init__(self, limit_bytes: int):
        v1 = Path("/sys/fs/cgroup/memory")
        self.version = 1 if (v1 / "memory.limit_in_bytes").exists() else 2
        root = v1 if self.version == 1 else Path("/sys/fs/cgroup")
        self.folder, self.why_not = root / f"plantain-mqtt-{os.getpid()}", ""
        limit, swap = ("memory.limit_in_bytes", "memory.swappiness") if self.version == 1 else ("memory.max", "memory.swap.max")
        try:
            self.folder.mkdir()
            (self.folder / limit).write_text(str(limit_bytes))
        except OSError as error:
            self.why_not = f"{self.folder}: {error}; run as root"
            return
        try:
            (self.folder / swap).write_text("0")
        except OSError:
            pass  # A kernel without swap accounting has no swap that counts.

    def prefix(self) -> list[str]:
        """A command that joins the group and then becomes what follows it."""
        return [] if self.why_not else ["/bin/sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$0" "$@"']

    def limit_hits(self) -> int:
        """How often memory had to be reclaimed or was refused."""
        if self.version == 1:
            return int((self.folder / "memory.failcnt").read_text())
        events = dict(line.split() for line in (self.folder / "memory.events").read_text().splitlines())
        return int(events["max"])

    def peak_bytes(self) -> int:
        """The most memory that was charged, page cache included."""
        return int((self.folder / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")).read_text())

    def close(self) -> None:
        if self.why_not:
            return
        for _ in range(50):  # The kernel needs a moment to let go of a process that has ended.
            try:
                return self.folder.rmdir()
            except OSError:
                time.sleep(0.05)
