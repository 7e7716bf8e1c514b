"""A real mosquitto, a real `plantain serve` and clients that were not written here (paho-mqtt).

Everything runs on 127.0.0.1, on ports that the system hands out, for a bounded time; only processes that were
started here are ended.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jsonschema
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = {path.name.split(".")[0]: json.loads(path.read_text()) for path in (ROOT / "daemon/schemas").glob("*.json")}
PLANTAIN = os.environ.get("PLANTAIN_BIN", str(ROOT / "target/release/plantain"))
SEED = int(os.environ.get("PLANTAIN_SEED", random.SystemRandom().randrange(1 << 32)))


def check(value: object, what: str) -> None:
    """Fails the test with a sentence."""
    if not value:
        raise AssertionError(what)


def matches(payload: bytes, schema: str) -> dict:
    """The payload as JSON, checked against one of the published schemas."""
    value = json.loads(payload)
    jsonschema.validate(value, SCHEMAS[schema])
    return value


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what: str, condition, seconds: float = 30.0):
    """Asks until the condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")


class Process:
    """A process that was started here, with its output in a file."""

    def __init__(self, command: list[str], log: Path, **options):
        self.log = log
        self.process = subprocess.Popen(command, stdout=log.open("ab"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


class Broker:
    """mosquitto on a port of its own; keeps sessions on disk so that it may be killed."""

    def __init__(self, folder: Path, extra: str = "", port: int | None = None):
        self.folder, self.port = folder, port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "mosquitto.conf"
        self.config.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\n"
            + ("" if "allow_anonymous" in extra else "allow_anonymous true\n")
            + ("" if "persistence" in extra else f"persistence true\npersistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n")
            + "max_queued_messages 0\nmax_inflight_messages 0\n"
            + extra
        )
        self.start()

    def start(self) -> None:
        self.process = Process(["mosquitto", "-c", str(self.config)], self.folder / "mosquitto.log")
        wait_for("mosquitto", self._listens, 15)

    def _listens(self) -> bool:
        check(self.process.alive(), f"mosquitto ended: {self.process.text()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.5).close()
            return True
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()


class Daemon:
    """`plantain serve` with a state folder of its own."""

    def __init__(self, folder: Path, broker_port: int, device: str = "bench", flags: list[str] | None = None, env: dict | None = None, scheme="mqtt",
                 program: list[str] | None = None):  # fmt: skip
        self.folder, self.device = folder, device
        folder.mkdir(parents=True, exist_ok=True)
        self.command = [
            *(program or [PLANTAIN]), "serve", "--broker", f"{scheme}://127.0.0.1:{broker_port}", "--device", device,
            "--reconnect-seconds-max", "1", *([] if "--rate-per-minute" in (flags or []) else ["--rate-per-minute", "0"]),
            *([] if "--state-dir" in (flags or []) else ["--state-dir", str(folder / "state")]), *(flags or []),
        ]  # fmt: skip
        self.env = {**os.environ, **(env or {})}
        self.start()

    def start(self) -> None:
        self.process = Process(self.command, self.folder / "daemon.log", env=self.env)

    def connected(self, times: int = 1) -> "Daemon":
        def seen() -> bool:
            check(self.process.alive(), f"the daemon ended:\n{self.process.text()}")
            return self.process.text().count("connected to") >= times

        wait_for("the daemon's connection", seen, 60)
        return self

    def reload(self) -> None:
        """Sends SIGHUP, and waits until the log says that the settings were read again or stay."""
        heard = lambda: self.process.text().count("configuration is read again") + self.process.text().count("configuration stays")
        before = heard()
        self.process.process.send_signal(signal.SIGHUP)
        wait_for("a reload", lambda: heard() > before)

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Client:
    """A paho client that speaks MQTT 5 and keeps what it receives."""

    def __init__(self, port: int, device: str = "bench", name: str | None = None, topics: list[str] | None = None):
        self.device, self.received = device, queue.Queue()
        self.name = name or f"client-{random.randrange(1 << 30):x}"
        self.reply = f"plantain/replies/{self.name}"
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=self.name, protocol=paho.MQTTv5)
        self.client.reconnect_delay_set(0.05, 0.5)
        subscriptions = topics or [f"plantain/{device}/{leaf}" for leaf in ("image", "result", "status", "progress")]
        subscriptions = [*subscriptions, self.reply]
        self.ready = False

        def on_connect(client, _data, _flags, code, _properties):
            if not code.is_failure:
                client.subscribe([(topic, paho.SubscribeOptions(qos=1)) for topic in subscriptions])

        def on_subscribe(*_):
            self.ready = True

        self.client.on_connect = on_connect
        self.client.on_subscribe = on_subscribe
        self.client.on_message = lambda _client, _data, message: self.received.put(message)
        persistent = Properties(PacketTypes.CONNECT)
        persistent.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, keepalive=10, clean_start=False, properties=persistent)
        self.client.loop_start()
        wait_for("the client's subscription", lambda: self.ready, 20)

    def send(self, payload, leaf: str = "prompt", topic: str | None = None, retain: bool = False, wait: bool = True, **properties):
        """Publishes at least once. Keyword arguments are MQTT 5 properties by paho's names."""
        values = Properties(PacketTypes.PUBLISH)
        for key, value in properties.items():
            setattr(values, key, value)
        data = json.dumps(payload) if isinstance(payload, dict) else payload
        info = self.client.publish(topic or f"plantain/{self.device}/{leaf}", data, qos=1, retain=retain, properties=values)
        if wait:
            info.wait_for_publish(30)
        return info

    def messages(self, seconds: float):
        """Messages as they come, until the time is over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                yield self.received.get(timeout=left)
            except queue.Empty:
                return

    def expect(self, leaf: str, seconds: float = 60.0, where=lambda message: True):
        """The next message under `plantain/DEVICE/leaf` (or, for `reply`, the reply topic)."""
        topic = self.reply if leaf == "reply" else f"plantain/{self.device}/{leaf}"
        for message in self.messages(seconds):
            if message.topic == topic and where(message):
                return message
        raise AssertionError(f"nothing came under {topic} within {seconds} s")

    def result(self, seconds: float = 60.0, **fields) -> dict:
        """The next result with these fields, checked against its schema."""

        def fits(message) -> bool:
            value = json.loads(message.payload)
            return all(value.get(key) == want for key, want in fields.items())

        return matches(self.expect("result", seconds, fits).payload, "result")

    def quiet(self, seconds: float, leaf: str) -> None:
        """Fails if something comes."""
        topic = self.reply if leaf == "reply" else f"plantain/{self.device}/{leaf}"
        for message in self.messages(seconds):
            check(message.topic != topic, f"{topic} was not expected: {message.payload[:200]!r}")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Bench:
    """A folder, a broker and a daemon for one test; everything is ended at its end."""

    def __init__(self, flags: list[str] | None = None, broker_extra: str = ""):
        self.temporary = tempfile.TemporaryDirectory(prefix="plantain-mqtt-")
        self.folder = Path(self.temporary.name)
        self.flags, self.broker_extra = flags, broker_extra
        self.clients: list[Client] = []
        self.daemons: list[Daemon] = []

    def __enter__(self) -> "Bench":
        self.broker = Broker(self.folder / "broker", self.broker_extra)
        return self

    def daemon(self, device: str = "bench", flags: list[str] | None = None, port: int | None = None, **options) -> Daemon:
        daemon = Daemon(self.folder / device, port or self.broker.port, device, [*(self.flags or []), *(flags or [])], **options)
        self.daemons.append(daemon)
        return daemon

    def client(self, device: str = "bench", port: int | None = None, **options) -> Client:
        client = Client(port or self.broker.port, device, **options)
        self.clients.append(client)
        return client

    def __exit__(self, kind, error, _trace) -> None:
        for client in self.clients:
            client.close()
        for daemon in self.daemons:
            if kind is not None:
                print(f"--- log of {daemon.device}:\n{daemon.process.text()[-4000:]}", file=sys.stderr)
            if daemon.process.alive():
                daemon.process.process.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.process.process.wait(15)
            except subprocess.TimeoutExpired:
                daemon.process.kill()
        if self.broker.process.alive():
            self.broker.process.terminate()
        self.temporary.cleanup()


def main(tests: dict) -> None:
    """Runs the tests named on the command line, or all; prints the seed of what is random."""
    random.seed(SEED)
    print(f"seed {SEED} (PLANTAIN_SEED={SEED} repeats this run)", flush=True)
    names = sys.argv[1:] or list(tests)
    for name in names:
        start = time.monotonic()
        tests[name]()
        print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
