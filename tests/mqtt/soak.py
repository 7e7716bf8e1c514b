"""A soak: prompts for a while; resident memory flat within 2 MB, no file handle leaked, overheads at the median."""

from __future__ import annotations

import json
import os
import time

from harness import Bench, check, main

SECONDS = float(os.environ.get("PLANTAIN_SOAK_SECONDS", "60"))


def soak():
    with Bench(["--answers-max", "32", "--status-seconds", "5"]) as bench:
        daemon = bench.daemon().connected()
        client = bench.client()
        number, status, samples = 0, None, []
        start = time.monotonic()
        warm = max(5.0, SECONDS / 6)
        while (passed := time.monotonic() - start) < SECONDS:
            client.send({"prompt": f"a cat {number % 50}", "id": f"s{number}", "client": "soak"})
            client.result(id=f"s{number}")
            number += 1
            if passed > warm:
                samples.append((daemon.rss_bytes(), daemon.open_files()))
        status = json.loads(client.expect("status", 15).payload)
        third = max(1, len(samples) // 3)
        grown = max(rss for rss, _ in samples[-third:]) - max(rss for rss, _ in samples[:third])
        check(grown <= 2 << 20, f"resident memory grew by {grown} bytes over {number} prompts")
        files = samples[-1][1] - samples[0][1]
        check(files <= 1, f"{files} file handles were leaked over {number} prompts")
        overhead = status["overhead_ms"]
        print(f"{number} prompts in {SECONDS:.0f} s, memory {grown / 1024:+.0f} KiB, files {files:+d}, overhead at the median {overhead} ms")


if __name__ == "__main__":
    main({"soak": soak})
