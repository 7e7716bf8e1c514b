"""Thousands of malformed messages: the daemon lives, every one is answered or counted, memory stays flat."""

from __future__ import annotations

import json
import os
import random

from harness import Bench, check, main, wait_for

MESSAGES = int(os.environ.get("PLANTAIN_MALFORMED", "10000"))


def garbage() -> bytes:
    """One message that is no prompt."""
    good = json.dumps({"prompt": "a cat", "id": "x", "seed": 1, "steps": 1, "size": [128, 128]})
    kind = random.randrange(8)
    if kind == 0:
        return bytes([0xFF]) + random.randbytes(random.randrange(200))
    if kind == 1:
        return b""
    if kind == 2:
        return good[: random.randrange(1, len(good) - 1)].encode()
    if kind == 3:
        return b'{"prompt":' + b"[" * random.randrange(1, 20000)
    if kind == 4:
        key = random.choice(["prompt", "steps", "count", "seed", "size", "format", "priority", "guidance"])
        return json.dumps({"prompt": "a", key: {"wrong": ["type"]}}).encode()
    if kind == 5:
        return json.dumps({"prompt": "a cat", f"key{random.randrange(1000)}": random.random()}).encode()
    if kind == 6:
        return b" " * random.randrange(1, 30000)
    return b"x" * random.randrange(2001, 30000)


def malformed():
    with Bench(broker_extra="persistence false\n") as bench:
        daemon = bench.daemon().connected()
        client = bench.client(topics=["plantain/bench/status"])
        counted = lambda: sum(last["counters"][key] for key in ("refused", "ignored")) if last else 0
        last, samples = None, []

        def newest() -> None:
            nonlocal last
            for message in client.messages(0.05):
                last = json.loads(message.payload)

        for number in range(MESSAGES):
            client.send(garbage(), leaf=random.choice(["prompt"] * 8 + ["cancel", "set"]), wait=number % 100 == 99)
            if (number + 1) % (MESSAGES // 8) == 0:
                samples.append(daemon.rss_bytes())
        client.send("current", leaf="cancel")

        def all_counted() -> bool:
            client.send("current", leaf="cancel")
            newest()
            return counted() >= MESSAGES

        wait_for("an answer or a count for every message", all_counted, 120)
        grown = max(samples[4:]) - max(samples[:4])
        check(grown < 2 << 20, f"resident memory grew by {grown} bytes: {samples}")
        check(daemon.process.text().count("connected to") == 1, "a malformed message ended the connection")
        client.close()
        clean = bench.client()
        clean.send({"prompt": "a cat", "id": "after"})
        check(clean.result(id="after")["status"] == "done", "after all that it does not draw")
        print(f"{MESSAGES} malformed messages, resident memory {grown / 1024:+.0f} KiB")


if __name__ == "__main__":
    main({"malformed": malformed})
