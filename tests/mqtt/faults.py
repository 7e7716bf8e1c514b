"""Faults with a printed seed: killed daemons and brokers, bad connections, duplicates, a full disk, clock jumps.

What is checked: every prompt that the broker took is answered without being asked again (but for those that were refused
for a full queue, and those that a killed broker forgot), each job is answered in one way, byte for byte, and journalled as
answered once, and the queue never passes its bound. `PLANTAIN_FAULT_JOBS=200 python tests/mqtt/faults.py` is the long run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

from harness import Bench, check, main, wait_for
from proxy import Proxy

JOBS = int(os.environ.get("PLANTAIN_FAULT_JOBS", "40"))
QUEUE = 16


class Ledger:
    """What a client has asked for and heard."""

    def __init__(self, client):
        self.client, self.asked, self.answers, self.waiting_max = client, {}, {}, 0
        self.refused: set[str] = set()

    def ask(self, number: int, wait: bool = True, **properties) -> None:
        prompt = {"prompt": f"a cat {number}", "id": f"f{number}", "client": "ledger", "seed": number}
        self.asked[prompt["id"]] = prompt
        self.client.send(prompt, wait=wait, **properties)

    def listen(self, seconds: float) -> None:
        for message in self.client.messages(seconds):
            if message.topic.endswith("/status"):
                status = json.loads(message.payload)
                self.waiting_max = max(self.waiting_max, status.get("queue", {}).get("waiting", 0))
            if not message.topic.endswith("/result"):
                continue
            result = json.loads(message.payload)
            if result["status"] == "refused":
                check("queue is full" in result["error"], f"refused for another reason: {result}")
                self.refused.add(result["id"])
            else:
                check(result["status"] == "done", f"ended otherwise: {result}")
                self.answers.setdefault(result["id"], set()).add(message.payload)

    def missing(self) -> list[str]:
        return [name for name in self.asked if not self.answers.get(name)]

    def settle(self, daemon, seconds: float, forgetful_broker: bool = False) -> None:
        """Waits for every answer; asks again, as a client does, for what was refused, or lost by the broker."""
        end = time.monotonic() + seconds
        while self.missing() and time.monotonic() < end:
            self.listen(2)
            again = [name for name in self.missing() if forgetful_broker or name in self.refused]
            for name in again[: QUEUE // 2]:
                self.client.send(self.asked[name], wait=False)
        self.listen(1)
        check(not self.missing(), f"never answered: {self.missing()}")
        for name, answers in self.answers.items():
            check(len(answers) == 1, f"{name} was answered in {len(answers)} ways: {answers}")
        check(self.waiting_max <= QUEUE, f"the queue held {self.waiting_max} of {QUEUE}")
        drawn = Counter(record["job"] for record in journal(daemon) if record["record"] == "answered")
        check(max(drawn.values()) == 1, f"drawn more than once: {drawn.most_common(3)}")
        check(len(drawn) == len(self.asked), f"{len(self.asked)} prompts became {len(drawn)} answers")


def journal(daemon) -> list[dict]:
    """Its records."""
    lines = (daemon.folder / "state" / "journal").read_text().splitlines()
    return [json.loads(line.split(" ", 1)[1]) for line in lines]


def killed_daemon():
    with Bench(["--queue-length", str(QUEUE)]) as bench:
        daemon = bench.daemon().connected()
        ledger = Ledger(bench.client())
        starts = 1
        for number in range(JOBS):
            ledger.ask(number)
            ledger.listen(random.uniform(0, 0.3))
            if random.random() < 0.25:
                daemon.process.kill()
                time.sleep(random.uniform(0, 0.2))
                daemon.start()
                starts += 1
        ledger.settle(daemon, 180)
        print(f"{JOBS} jobs, the daemon killed {starts - 1} times")


def accepted_is_never_lost():
    """Kills the daemon once a prompt is acknowledged; nobody asks again."""
    with Bench(["--queue-length", str(QUEUE)]) as bench:
        daemon = bench.daemon().connected()
        ledger = Ledger(bench.client())
        for number in range(QUEUE):
            ledger.ask(number)
        journal = daemon.folder / "state" / "journal"
        wait_for("all acceptances", lambda: journal.read_text().count('"accepted"') >= QUEUE, 30)
        daemon.process.kill()
        daemon.start()
        ledger.listen(0.1)
        end = time.monotonic() + 120
        while ledger.missing() and time.monotonic() < end:
            ledger.listen(1)
        check(not ledger.missing(), f"accepted and lost: {ledger.missing()}")


def killed_broker():
    with Bench(["--queue-length", str(QUEUE)]) as bench:
        daemon = bench.daemon().connected()
        ledger = Ledger(bench.client())
        kills = 0
        for number in range(JOBS):
            ledger.ask(number, wait=False)
            ledger.listen(random.uniform(0, 0.3))
            if random.random() < 0.15:
                bench.broker.kill()
                kills += 1
                time.sleep(random.uniform(0, 0.3))
                bench.broker.start()
        ledger.settle(daemon, 240, forgetful_broker=True)
        print(f"{JOBS} jobs, the broker killed {kills} times")


def bad_connections():
    with Bench(["--queue-length", str(QUEUE), "--keep-alive-seconds", "5"]) as bench:
        proxy = Proxy(bench.broker.port)
        try:
            daemon = bench.daemon(port=proxy.port).connected()
            ledger = Ledger(bench.client())
            faults = Counter()
            for number in range(JOBS):
                ledger.ask(number)
                ledger.listen(random.uniform(0, 0.2))
                fault = random.random()
                if fault < 0.1:
                    proxy.cut()
                    faults["cut"] += 1
                elif fault < 0.2:
                    proxy.stall(True)
                    ledger.listen(random.uniform(0, 1))
                    proxy.stall(False)
                    faults["stalled"] += 1
                elif fault < 0.23:
                    proxy.half_open()
                    faults["half-opened"] += 1
            ledger.settle(daemon, 240)
            print(f"{JOBS} jobs, connections: {dict(faults)}")
        finally:
            proxy.close()


def duplicates():
    with Bench() as bench:
        daemon = bench.daemon().connected()
        ledger = Ledger(bench.client())
        for number in range(JOBS // 4):
            for _ in range(3):
                ledger.ask(number, wait=False)
            ledger.listen(0.1)
        ledger.settle(daemon, 120)
        print(f"{3 * len(ledger.asked)} messages, {len(ledger.asked)} drawn")


def full_disk():
    """The state folder on a file system of 1 MiB that is filled to the last byte."""
    with Bench() as bench:
        state = bench.folder / "disk"
        state.mkdir()
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(state)], capture_output=True, timeout=10)
        if mount.returncode != 0:
            print("skipped: a small file system needs root")
            return
        try:
            full_disk_of(bench, state)
        finally:
            for daemon in bench.daemons:
                daemon.process.terminate()
            subprocess.run(["umount", str(state)], check=True, timeout=10)


def full_disk_of(bench, state) -> None:
    daemon = bench.daemon(flags=["--state-dir", str(state / "state")]).connected()
    client = bench.client()
    client.send({"prompt": "a cat", "id": "before"})
    client.result(id="before")
    filler = state / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(512)):
                pass
        except OSError:
            pass
    number = 0
    while True:  # The journal's last page may have room for a few more lines.
        client.send({"prompt": "a cat " * 200, "id": f"full{number}"})
        result = client.result(id=f"full{number}")
        if result["status"] == "refused":
            break
        number += 1
        check(number < 20, "a full disk refuses nothing")
    check("journal" in result["error"], f"a full disk is not named: {result}")
    filler.unlink()
    client.send({"prompt": "a cat", "id": "after"})
    check(client.result(id="after")["status"] == "done", "it does not go on once there is room")
    check(daemon.process.alive(), "a full disk ends the daemon")


def clock_jumps():
    """The system's clock is set while the daemon runs, and while it is away with prompts on their way."""
    with Bench(["--queue-length", str(QUEUE), "--log-format", "json"]) as bench:
        library, shift = bench.folder / "clock.so", bench.folder / "shift"
        source = Path(__file__).with_name("clock.c")
        built = subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], capture_output=True, text=True, timeout=60)
        if built.returncode != 0:
            print(f"skipped: a clock that jumps needs a C compiler: {built.stderr}")
            return
        shift.write_text("0")
        daemon = bench.daemon(env={"LD_PRELOAD": str(library), "PLANTAIN_CLOCK": str(shift)}).connected()
        ledger = Ledger(bench.client())
        seen = set()
        for days in (3650, -3650, 0, random.randrange(-20000, 20000)):
            # Expiry counts from receipt: neither jump makes a prompt late, or one that is late young.
            for _ in range(3):
                ledger.ask(len(ledger.asked), MessageExpiryInterval=600)
            shift.write_text(str(days * 86_400))
            ledger.settle(daemon, 60)
            for _ in range(3):
                ledger.ask(len(ledger.asked))
            daemon.process.kill()
            shift.write_text(str(-days * 86_400))
            daemon.start()
            ledger.settle(daemon, 60)
            seen |= {json.loads(line)["time_ms"] // 31_536_000_000 for line in daemon.process.text().splitlines()}
        check(len(seen) >= 3, f"the daemon's clock did not jump: its years are {seen}")
        print(f"{len(ledger.asked)} jobs while the clock was set to {len(seen)} different years")


TESTS = [accepted_is_never_lost, killed_daemon, killed_broker, bad_connections, duplicates, full_disk, clock_jumps]

if __name__ == "__main__":
    main({test.__name__: test for test in TESTS})
