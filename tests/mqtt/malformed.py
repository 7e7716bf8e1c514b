"""Thousands of malformed messages: the daemon lives, every one is answered or counted, memory stays flat."""

from __future__ import annotations

import json
import os
import random
import time

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
        return (b'{"prompt":' + b"[" * random.randrange(1, 20000))[:30000]
    if kind == 4:
        wrong = random.choice([1, None, True, [], {}, -5, 1e99, "x" * 3000])
        key = random.choice(["prompt", "steps", "count", "seed", "size", "format", "priority", "guidance"])
        value = wrong if key != "prompt" or wrong != "x" * 3000 else 5
        value = {"style": "no"} if value in (1, True) and key in ("steps", "count", "seed", "priority", "guidance") else value
        value = 0.5 if value is None and key != "prompt" else value
        return json.dumps({"prompt": "a", key: value, "zzz": 0}).encode()
    if kind == 5:
        return json.dumps({"prompt": "a cat", f"key{random.randrange(1000)}": random.random()}).encode()
    if kind == 6:
        return b" " * random.randrange(1, 30000)
    return b"x" * random.randrange(2001, 30000)


def malformed():
    with Bench() as bench:
        daemon = bench.daemon().connected()
        client = bench.client(topics=["plantain/bench/status"])
        counted = lambda: sum(last["counters"][key] for key in ("refused", "ignored")) if last else 0
        last, before = None, 0

        def newest() -> None:
            nonlocal last
            for message in client.messages(0.05):
                last = json.loads(message.payload)

        for number in range(MESSAGES):
            client.send(garbage(), leaf=random.choice(["prompt"] * 8 + ["cancel", "set"]), wait=number % 100 == 99)
            if number == MESSAGES // 4:
                time.sleep(0.5)
                before = daemon.rss_bytes()
        client.send("current", leaf="cancel")

        def all_counted() -> bool:
            client.send("current", leaf="cancel")
            newest()
            return counted() + last_unknown(daemon) >= MESSAGES

        wait_for("an answer or a count for every message", all_counted, 120)
        grown = daemon.rss_bytes() - before
        check(grown < 2 << 20, f"resident memory grew by {grown} bytes")
        check(daemon.process.text().count("connected to") == 1, "a malformed message ended the connection")
        client.close()
        clean = bench.client()
        clean.send({"prompt": "a cat", "id": "after"})
        check(clean.result(id="after")["status"] == "done", "after all that it does not draw")
        print(f"{MESSAGES} malformed messages, resident memory {grown / 1024:+.0f} KiB")


def last_unknown(daemon) -> int:
    """Cancel requests that named no job: logged, and no refusal."""
    return daemon.process.text().count("to cancel")


if __name__ == "__main__":
    main({"malformed": malformed})
