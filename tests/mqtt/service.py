"""The daemon as a service: what it tells systemd, signals, settings, logs, metrics."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

from harness import PLANTAIN, ROOT, Bench, check, free_port, main, matches, wait_for


class Manager:
    """The socket that systemd listens on."""

    def __init__(self, folder: Path):
        self.path = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.said: list[tuple[float, str]] = []

    def environment(self) -> dict:
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": "120000000"}

    def listen(self, seconds: float) -> list[str]:
        """What is said from now on."""
        end, before = time.monotonic() + seconds, len(self.said)
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                text = self.socket.recv(4096).decode()
            except TimeoutError:
                break
            self.said += [(time.monotonic(), line) for line in text.splitlines()]
        return [line for _, line in self.said[before:]]

    def heard(self, line: str, seconds: float = 20) -> None:
        wait_for(line, lambda: line in self.listen(0.1), seconds)


def notify():
    """Ready when it is, the watchdog fed while it idles or draws and not while the drawer hangs, reload and stop told."""
    with Bench() as bench:
        manager = Manager(bench.folder)
        flags = ["--deny-command", "grep -q hang && exec sleep 5; exit 0", "--deny-seconds-max", "30"]
        daemon = bench.daemon(flags=flags, env=manager.environment())
        manager.heard("READY=1")
        check("WATCHDOG=1" in manager.listen(2.5), "an idle daemon does not feed the watchdog")
        client = bench.client()
        client.send({"prompt": "a cat", "id": "work", "count": 8})
        check("WATCHDOG=1" in manager.listen(2.5), "a drawing daemon does not feed the watchdog")
        client.result(id="work")
        client.send({"prompt": "hang", "id": "hang"})
        time.sleep(1.5)
        manager.listen(0.2)
        fed = manager.listen(2.5).count("WATCHDOG=1")
        check(fed == 0, "a drawer that hangs is hidden from the watchdog")
        client.result(id="hang")
        check("WATCHDOG=1" in manager.listen(2.5), "the watchdog is not fed again")
        daemon.process.process.send_signal(signal.SIGHUP)
        manager.heard("RELOADING=1")
        daemon.process.process.send_signal(signal.SIGTERM)
        manager.heard("STOPPING=1")
        check(daemon.process.process.wait(15) == 0, "SIGTERM does not end it with 0")


def stop_requeues():
    """SIGTERM while one is drawn and others wait: all are answered after the next start."""
    with Bench() as bench:
        daemon = bench.daemon().connected()
        client = bench.client()
        names = [f"t{number}" for number in range(4)]
        for name in names:
            client.send({"prompt": "a cat", "id": name, "count": 8})
        start = time.monotonic()
        check(daemon.process.terminate() == 0, "SIGTERM does not end it with 0")
        check(time.monotonic() - start < 10, "SIGTERM takes longer than systemd's patience")
        check("wait for the next start" in daemon.process.text(), "the log does not say that jobs wait")
        daemon.start()
        left = set(names)
        for message in client.messages(90):
            if message.topic.endswith("/result"):
                result = json.loads(message.payload)
                check(result["status"] == "done", f"a stopped job ended as {result}")
                left.discard(result["id"])
            if not left:
                break
        check(not left, f"never drawn after the restart: {left}")


def reload():
    with Bench() as bench:
        config = bench.folder / "plantain.toml"
        config.write_text("steps_max = 2\n")
        daemon = bench.daemon(flags=["--config", str(config)]).connected()
        client = bench.client()
        client.send({"prompt": "a cat", "steps": 3})
        check("steps is 3 but 1 to 2" in client.result(status="refused")["error"], "the file's limit does not hold")
        config.write_text("steps_max = 3\n")
        daemon.reload()
        client.send({"prompt": "a cat", "id": "three", "steps": 3})
        check(client.result(id="three")["steps"] == 3, "SIGHUP does not read the limit again")
        config.write_text("stepsmax = 4\n")
        daemon.reload()
        check("stepsmax" in daemon.process.text(), "a wrong key is not named at reload")
        client.send({"prompt": "a cat", "id": "still", "steps": 3})
        check(client.result(id="still")["status"] == "done", "a wrong file ends the daemon")


def settings():
    run = lambda *words: subprocess.run([PLANTAIN, "serve", *words], capture_output=True, text=True, timeout=60)
    printed = run("--print-config", "--device", "kitchen").stdout
    values = tomllib.loads(printed)
    check(values["device"] == "kitchen" and len(values) > 40, f"--print-config: {printed[:200]}")
    flags = run("--help").stdout
    for key in values:
        check(f"--{key.replace('_', '-')} " in flags, f"{key} is no flag")
        check(re.search(rf"\n# .+\n{key} = ", printed), f"{key} has no comment")
    with Bench() as bench:
        file = bench.folder / "all.toml"
        file.write_text(printed)
        state = ["--state-dir", str(bench.folder / "state")]
        usable = run("--check", "--config", str(file), *state)
        check(usable.returncode == 0 and "usable" in usable.stdout, f"--check refuses what --print-config prints: {usable.stderr}")
        check(not (bench.folder / "state").exists(), "--check leaves a state folder behind")
        for words, part in [
            (["--queue-length", "0"], "queue_length"),
            (["--size", "huge"], "size"),
            (["--palette", "pink"], "palette"),
            (["--keep-alive-seconds", "1"], "keep_alive_seconds"),
            (["--deny-words-file", "/no/such/file"], "deny_words_file"),
            (["--board", "no-such-board"], "no-such-board"),
            (["--style", "baroque"], "baroque"),
            (["--broker", "mqtts://127.0.0.1", "--ca-file", "/no/such/file"], "ca_file"),
        ]:
            wrong = run("--check", *words, *state)
            check(wrong.returncode != 0 and part in wrong.stderr, f"{words}: {wrong.stderr}")
        profile = bench.folder / "mine.toml"
        text = (ROOT / "boards/profiles/rpi-zero2w.toml").read_text()
        profile.write_text(text.replace('name = "rpi-zero2w"', 'name = "mine"').replace('budget = "128M"', 'budget = "48M"'))
        unit = run("--print-unit", "--board", str(profile)).stdout
        check(f"MemoryMax={48 << 20}\n" in unit and "WatchdogSec=" in unit, "--print-unit does not limit memory to the board's budget")
        bench.daemon("mine", ["--board", str(profile)]).connected()
        status = matches(bench.client("mine").expect("status").payload, "status")
        check((status["board"], status["memory"]["budget_bytes"]) == ("mine", 48 << 20), f"the board's defaults do not hold: {status}")


def logs():
    """JSON lines; prompts stay out of the log unless the operator wants them in."""
    with Bench() as bench:
        for device, flags, is_told in [("quiet", [], False), ("open", ["--log-prompts", "true"], True)]:
            daemon = bench.daemon(device, ["--log-format", "json", "--log-level", "trace", *flags]).connected()
            client = bench.client(device)
            client.send({"prompt": "a red apple with a zebra", "id": "x"})
            client.result(id="x")
            text = daemon.process.text()
            lines = [json.loads(line) for line in text.splitlines()]
            check(all({"time_ms", "level", "target", "message"} <= set(line) for line in lines), "a log line lacks a key")
            check(("zebra" in text) == is_told, f"{device}: the prompt is in the log: {'zebra' in text}")


def metrics():
    port = free_port()
    with Bench(["--metrics-port", str(port)]) as bench:
        bench.daemon().connected()
        client = bench.client()
        client.send({"prompt": "a cat", "id": "m"})
        client.result(id="m")

        def text() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                check(answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"), "not Prometheus' format")
                return answer.read().decode()

        wait_for("the counter", lambda: "\nplantain_done_total 1\n" in text(), 10)
        for line in text().splitlines():
            check(re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+ -?[0-9.]+", line), f"not Prometheus' format: {line}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/etc/passwd", timeout=5)
            check(False, "another path is answered")
        except urllib.error.HTTPError as error:
            check(error.code == 404, f"another path is answered with {error.code}")


TESTS = [notify, stop_requeues, reload, settings, logs, metrics]

if __name__ == "__main__":
    main({test.__name__: test for test in TESTS})
