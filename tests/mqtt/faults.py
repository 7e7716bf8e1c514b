"""Faults with a printed seed: killed daemons and brokers, bad connections, duplicates, a full disk, clock jumps.

The promise that is checked: every prompt whose acceptance could be seen is answered, each job is drawn in one way (same
bytes on a repeat), and the queue never passes its bound.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import zlib

from harness import Bench, check, main, wait_for
from proxy import Proxy

JOBS = int(os.environ.get("PLANTAIN_FAULT_JOBS", "40"))
QUEUE = 16


class Ledger:
    """What a client has asked for and heard."""

    def __init__(self, client):
        self.client, self.asked, self.answers, self.waiting_max = client, {}, {}, 0

    def ask(self, number: int, wait: bool = True) -> None:
        prompt = {"prompt": f"a cat {number}", "id": f"f{number}", "client": "ledger", "seed": number}
        self.asked[prompt["id"]] = prompt
        self.client.send(prompt, wait=wait)

    def listen(self, seconds: float) -> None:
        for message in self.client.messages(seconds):
            if message.topic.endswith("/status"):
                status = json.loads(message.payload)
                self.waiting_max = max(self.waiting_max, status.get("queue", {}).get("waiting", 0))
            if not message.topic.endswith("/result"):
                continue
            result = json.loads(message.payload)
            if result["status"] == "done":
                hashes = tuple(image["sha256"] for image in result["images"])
                self.answers.setdefault(result["id"], set()).add((result["job"], hashes))
            elif result["status"] == "refused" and result.get("id"):
                self.answers.setdefault(result["id"], set())

    def missing(self) -> list[str]:
        return [name for name in self.asked if not self.answers.get(name)]

    def settle(self, seconds: float) -> None:
        """Waits for every answer; asks again, as a client does, for what was refused or lost before acceptance."""
        end = time.monotonic() + seconds
        while self.missing() and time.monotonic() < end:
            self.listen(2)
            for name in self.missing()[: QUEUE // 2]:
                self.client.send(self.asked[name], wait=False)
        check(not self.missing(), f"never answered: {self.missing()}")
        for name, answers in self.answers.items():
            check(len(answers) == 1, f"{name} was answered in {len(answers)} ways: {answers}")
        check(self.waiting_max <= QUEUE, f"the queue held {self.waiting_max} of {QUEUE}")


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
        ledger.settle(180)
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
        bench.daemon().connected()
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
        ledger.settle(240)
        print(f"{JOBS} jobs, the broker killed {kills} times")


def bad_connections():
    with Bench(["--queue-length", str(QUEUE), "--keep-alive-seconds", "5"]) as bench:
        proxy = Proxy(bench.broker.port)
        try:
            bench.daemon(port=proxy.port).connected()
            ledger = Ledger(bench.client())
            for number in range(JOBS):
                ledger.ask(number)
                ledger.listen(random.uniform(0, 0.2))
                fault = random.random()
                if fault < 0.1:
                    proxy.cut()
                elif fault < 0.2:
                    proxy.stall(True)
                    ledger.listen(random.uniform(0, 1))
                    proxy.stall(False)
                elif fault < 0.23:
                    proxy.half_open()
            ledger.settle(240)
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
        ledger.settle(120)
        records = (daemon.folder / "state" / "journal").read_text()
        drawn = records.count('"answered"')
        check(drawn == len(ledger.asked), f"{len(ledger.asked)} identities were drawn {drawn} times")


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
    """A journal from the future and one from the past: the clock may jump between starts."""
    with Bench() as bench:
        daemon = bench.daemon().connected()
        ledger = Ledger(bench.client())
        for shift_ms in (10 * 365 * 86_400_000, -10 * 365 * 86_400_000):
            for number in range(4):
                ledger.ask(len(ledger.asked))
            daemon.process.kill()
            journal = daemon.folder / "state" / "journal"
            lines = []
            for line in journal.read_text().splitlines():
                record = json.loads(line.split(" ", 1)[1])
                if record["record"] == "accepted":
                    record["job"]["accepted_ms"] = max(1, record["job"]["accepted_ms"] + shift_ms)
                text = json.dumps(record, separators=(",", ":"))
                lines.append(f"{zlib.crc32(text.encode()):08x} {text}\n")
            journal.write_text("".join(lines))
            daemon.start()
        ledger.settle(120)


TESTS = [accepted_is_never_lost, killed_daemon, killed_broker, bad_connections, duplicates, full_disk, clock_jumps]

if __name__ == "__main__":
    main({test.__name__: test for test in TESTS})
