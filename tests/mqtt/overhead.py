"""What the daemon adds: from a prompt's receipt to the start of drawing, and from the picture to its last byte in the socket.

Run it by hand on a quiet machine: `nice -n -10 python tests/mqtt/overhead.py`. It also tells what this storage takes for one
synced line: the acknowledgement of a prompt and the result of a picture wait for one each, drawing and pictures do not.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

from harness import Bench, check, main, wait_for

PROMPTS = int(os.environ.get("PLANTAIN_OVERHEAD_PROMPTS", "100"))
LIMIT_MS = 5.0


def sync_ms(folder: Path) -> float:
    """The median of appending and syncing a line of 1000 bytes."""
    times = []
    with (folder / "synced").open("ab", buffering=0) as file:
        for _ in range(50):
            start = time.perf_counter()
            file.write(b"x" * 999 + b"\n")
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def overhead():
    # The tests' broker writes all it knows to disk after each message; here it must not add to what is measured.
    with Bench(broker_extra="persistence false\n") as bench:
        bench.daemon().connected()
        client = bench.client()
        starts = []
        for number in range(PROMPTS):
            client.send({"prompt": "a cat", "id": f"o{number}", "client": "overhead"})
            result = client.result(id=f"o{number}")
            starts.append(result["start_ms"])
        newest = {}

        def counted() -> bool:
            for message in client.messages(0.1):
                if message.topic.endswith("/status"):
                    newest.update(json.loads(message.payload))
            return newest.get("counters", {}).get("done") == PROMPTS

        client.send({}, leaf="set")
        wait_for("a status after the last picture", counted, 40)
        publish = newest["overhead_ms"]["publish"]
        start = statistics.median(starts)
        print(f"{PROMPTS} prompts, medians: receipt to start {start:.2f} ms, picture to socket {publish:.2f} ms; "
              f"one synced line takes {sync_ms(bench.folder):.2f} ms here")  # fmt: skip
        check(start < LIMIT_MS and publish < LIMIT_MS, f"{LIMIT_MS} ms are allowed for each")


if __name__ == "__main__":
    main({"overhead": overhead})
