"""Every topic, plain and JSON prompts, request and response, refusals, repeats, cancel, set, expiry, retained prompts."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path

import jinja2

from harness import ROOT, Bench, check, main, matches, wait_for

PNG = b"\x89PNG\r\n\x1a\n"


def plain_prompt():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()
        matches(client.expect("status", where=lambda m: json.loads(m.payload)["state"] == "idle").payload, "status")
        client.send("a red apple")
        progress = matches(client.expect("progress").payload, "progress")
        image = client.expect("image")
        check(image.payload.startswith(PNG), "the picture is no PNG")
        check(image.properties.ContentType == "image/png", "the content type is not image/png")
        result = client.result(status="done")
        check(result["job"] == progress["job"], "progress and result name different jobs")
        check(result["images"][0]["sha256"] == hashlib.sha256(image.payload).hexdigest(), "the picture's hash is another")
        check(result["seconds"]["total"] > 0 and result["tokens"] > 0, "the result does not say what it cost")
        late = bench.client()
        check(late.expect("image").retain, "a late subscriber does not get the newest picture")


def json_prompt():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()
        prompt = {"prompt": "a cat", "id": "one", "client": "me", "seed": 7, "count": 2, "format": "jpeg", "style": "flat"}
        client.send(prompt)
        result = client.result(id="one")
        check([image["seed"] for image in result["images"]] == [7, 8], "count does not count seeds up")
        check(result["style"] == "flat" and result["format"] == "jpeg", "style or format is not what was asked for")
        again = {**prompt, "id": "two"}
        client.send(again)
        other = client.result(id="two")
        hashes = [[image["sha256"] for image in r["images"]] for r in (result, other)]
        check(hashes[0] == hashes[1], "same prompt and seed, other bytes")


def repeated_prompt():
    with Bench() as bench:
        daemon = bench.daemon().connected()
        client = bench.client()
        prompt = {"prompt": "a dog", "id": "r1", "client": "me"}
        client.send(prompt)
        first = client.result(id="r1")
        client.send(prompt)
        check(client.result(id="r1") == first, "a repeated prompt is answered otherwise")
        daemon.process.kill()
        daemon.start()
        daemon.connected(2)
        client.send(prompt)
        check(client.result(id="r1") == first, "after a restart a repeated prompt is answered otherwise")


def request_response():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()
        client.send("a house", ResponseTopic=client.reply, CorrelationData=b"\x01\xff42")
        image = client.expect("reply")
        check(image.payload.startswith(PNG) and image.properties.CorrelationData == b"\x01\xff42", "the reply is no picture, or another's")
        result = client.expect("reply")
        check(result.properties.CorrelationData == b"\x01\xff42", "the correlation data is lost")
        check(matches(result.payload, "result")["status"] == "done", "the reply is not done")
        client.send("a house", ResponseTopic="$SYS/evil")
        check("response topic" in client.result(status="refused")["error"], "a response topic outside the prefixes is used")


def refusals():
    with Bench(["--prompt-bytes-max", "100", "--queue-length", "2"]) as bench:
        bench.daemon().connected()
        client = bench.client()
        for payload, part in [
            ('{"prompt": "a", "colour": "red"}', "colour"),
            ("x" * 101, "101 bytes"),
            ("", "empty"),
            (b"\xff\xfe", "UTF-8"),
            ('{"prompt": "a", "steps": 0}', "steps is 0"),
            ('{"prompt": "a", "count": 99}', "count is 99"),
            ('{"prompt": "a", "size": "1x99999999"}', "pixels"),
            ('{"prompt": "a", "style": "no such style"}', "no such style"),
            ('{"prompt": ', "not a prompt"),
        ]:
            client.send(payload)
            check(part in client.result(status="refused")["error"], f"{payload!r} is not refused with {part!r}")
        for number in range(12):
            client.send({"prompt": "a tree", "id": f"q{number}", "count": 8}, wait=False)
        check("2 of 2 places" in client.result(status="refused")["error"], "a full queue refuses without its numbers")


def cancel():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()
        for number in range(3):
            client.send({"prompt": "a boat", "id": f"c{number}", "count": 8})
        client.send({"id": "c2"}, leaf="cancel")
        check(client.result(id="c2")["status"] == "cancelled", "a waiting job is not cancelled")
        client.send("no such job", leaf="cancel")
        check("no job" in client.result(status="refused")["error"], "a job that is not there is cancelled")
        client.send("current", leaf="cancel")
        seen = {client.result(id=name)["status"] for name in ("c0",)}
        check(seen <= {"cancelled", "done"}, f"the current job ended as {seen}")
        for number in range(3, 7):
            client.send({"prompt": "a boat", "id": f"c{number}", "count": 8})
        client.send("all", leaf="cancel")
        check(client.result(id="c6")["status"] == "cancelled", "the last of all is not cancelled")


def priorities():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()
        for name, priority in [("p0", 0), ("p1", 0), ("p2", 9)]:
            client.send({"prompt": "a sun", "id": name, "count": 8, "priority": priority})
        order = [client.result()["id"] for _ in range(3)]
        check(order.index("p2") < order.index("p1"), f"priorities do not order the queue: {order}")


def set_defaults():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()
        client.send({"style": "cartoon"}, leaf="set")
        status = client.expect("status", where=lambda m: json.loads(m.payload).get("defaults", {}).get("style") == "cartoon")
        matches(status.payload, "status")
        client.send("a dog")
        check(client.result(status="done")["style"] == "cartoon", "the set style is not used")


def expired_prompt():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()
        for number in range(4):
            client.send({"prompt": "a whale", "id": f"w{number}", "count": 8})
        client.send({"prompt": "late", "id": "late"}, MessageExpiryInterval=0)
        result = client.result(id="late")
        check(result["status"] in ("expired", "done"), f"an expired prompt ends as {result['status']}")


def retained_prompt():
    with Bench() as bench:
        client = bench.client()
        client.send("a red apple", retain=True)
        daemon = bench.daemon().connected()
        wait_for("the log line", lambda: "retained prompt is ignored" in daemon.process.text(), 10)
        client.quiet(1.5, "result")


def will_and_restart():
    with Bench() as bench:
        daemon = bench.daemon().connected()
        client = bench.client()
        offline = lambda m: json.loads(m.payload)["state"] == "offline"
        daemon.process.kill()
        matches(client.expect("status", where=offline).payload, "status")
        daemon.start()
        daemon.connected(2)
        client.expect("status", where=lambda m: json.loads(m.payload)["state"] == "idle")
        check(daemon.process.terminate() == 0, "SIGTERM does not end it with 0")
        client.expect("status", where=offline)


def home_assistant():
    with Bench() as bench:
        bench.daemon().connected()
        topic = "homeassistant/device/plantain_bench/config"
        client = bench.client(topics=[topic])
        message = next(client.messages(10))
        payload = json.loads(message.payload)
        check(message.topic == topic, "discovery is not announced")
        check(next(bench.client(topics=[topic]).messages(10)).retain, "the announcement is not retained")
        check(all(key in payload for key in ("dev", "o", "cmps")), "discovery lacks dev, o or cmps")
        client.send("online", topic="homeassistant/status")
        check(next(client.messages(10)).topic == topic, "discovery is not announced again")
        templates(bench, payload)


def templates(bench, discovery: dict) -> None:
    """Renders Home Assistant's templates, which are Jinja's, with what the daemon publishes, and sends what they make."""
    render = lambda template, **values: jinja2.Template(template).render(**values)
    parts = discovery["cmps"]
    client = bench.client()
    status = json.loads(client.expect("status").payload)
    client.send({"prompt": "a cat", "id": "ha"})
    result = client.result(id="ha")
    offline = {"version": 1, "state": "offline"}
    seen = {name: render(part["val_tpl"], value_json=result if part["stat_t"].endswith("/result") else status)
            for name, part in parts.items() if "val_tpl" in part}  # fmt: skip
    check(seen["style"] == "default" and seen["steps"] == "0" and seen["state"] == "idle", f"templates show {seen}")
    check(float(seen["seconds"]) > 0 and seen["queue"] == "0" and int(seen["memory"]) > 1 << 20, f"templates show {seen}")
    for part in parts.values():
        render(part.get("val_tpl", ""), value_json=offline)
    check([render(discovery["avty_tpl"], value_json=value) for value in (status, offline)] == ["online", "offline"], "availability")
    check(set(parts["style"]["options"]) == {"default", "none", *status["model"]["styles"]}, "the select lacks a style")
    for name, value, wanted in [("style", "cartoon", "cartoon"), ("style", "default", None), ("steps", "2", 2), ("guidance", "1.5", 1.5)]:
        command = render(parts[name]["cmd_tpl"], value=value)
        client.send(command, topic=parts[name]["cmd_t"])
        client.expect("status", 10, lambda m: json.loads(m.payload).get("defaults", {}).get(name) == wanted)
    client.send("a red apple", topic=parts["prompt"]["cmd_t"])
    check(client.result(status="done")["steps"] == 2, "the text entity's prompt is not drawn with the defaults")
    for button in ("cancel", "cancel_all"):
        client.send(parts[button]["payload_press"], topic=parts[button]["cmd_t"])
    client.quiet(1, "result")


def one_instance():
    with Bench() as bench:
        daemon = bench.daemon().connected()
        second = subprocess.run(daemon.command, capture_output=True, text=True, timeout=30)
        check(second.returncode != 0 and "another daemon uses" in second.stderr, f"a second daemon starts: {second.stderr}")


def mosquitto_clients():
    with Bench() as bench:
        bench.daemon().connected()
        target = ["-h", "127.0.0.1", "-p", str(bench.broker.port), "-V", "mqttv5"]
        listener = subprocess.Popen(
            ["mosquitto_sub", *target, "-t", "plantain/bench/result", "-C", "1", "-W", "60"], stdout=subprocess.PIPE
        )
        time.sleep(0.5)
        subprocess.run(["mosquitto_pub", *target, "-t", "plantain/bench/prompt", "-q", "1", "-m", "a banana"], check=True, timeout=30)
        output, _ = listener.communicate(timeout=70)
        check(matches(output, "result")["status"] == "done", "mosquitto_sub saw no result")


def npm_client():
    """npm's mqtt, where it is installed: `npm install --prefix target/npm mqtt@5`."""
    modules = ROOT / "target/npm/node_modules"
    if shutil.which("node") is None or not (modules / "mqtt").is_dir():
        print("skipped: node or its mqtt is not here; `npm install --prefix target/npm mqtt@5` installs it")
        return
    with Bench() as bench:
        bench.daemon().connected()
        script = Path(__file__).with_name("npm_client.cjs")
        ended = subprocess.run(["node", str(script), str(modules), str(bench.broker.port)], capture_output=True, text=True, timeout=60)
        check(ended.returncode == 0, f"npm's client: {ended.stderr}")
        heard = json.loads(ended.stdout)
        result = matches(json.dumps(heard["result"]), "result")
        check(result["status"] == "done" and result["images"][0]["sha256"] == heard["hash"], f"npm's client heard {heard}")


TESTS = [
    plain_prompt, json_prompt, repeated_prompt, request_response, refusals, cancel, priorities, set_defaults,
    expired_prompt, retained_prompt, will_and_restart, home_assistant, one_instance, mosquitto_clients, npm_client,
]  # fmt: skip

if __name__ == "__main__":
    main({test.__name__: test for test in TESTS})
