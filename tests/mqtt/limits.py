"""What an operator forbids, what e-ink clients ask for, previews, sizes by name, and brokers that take little."""

from __future__ import annotations

import base64
import hashlib
import time

from harness import Bench, check, main, matches, wait_for

JPEG = b"\xff\xd8\xff"


def deny_words():
    with Bench() as bench:
        words = bench.folder / "words"
        words.write_text("# not here\ngun\nbig secret\n")
        daemon = bench.daemon(flags=["--deny-words-file", str(words)]).connected()
        client = bench.client()
        for prompt, status in [("a big  SECRET", "refused"), ("a Gun.", "refused"), ("a gunboat", "done")]:
            client.send({"prompt": prompt, "id": prompt})
            result = client.result(status=status)
            check(status == "done" or "does not allow" in result["error"], f"{prompt!r}: {result}")
        words.write_text("apple\n")
        daemon.reload()
        client.send("a red apple")
        check("does not allow" in client.result(status="refused")["error"], "SIGHUP does not read the list again")


def deny_command():
    with Bench(["--deny-seconds-max", "1"]) as bench:
        bench.daemon(flags=["--deny-command", "! grep -qi dragon"]).connected()
        client = bench.client()
        client.send({"prompt": "a Dragon", "id": "bad"})
        result = client.result(id="bad")
        check(result["status"] == "failed" and "does not allow" in result["error"], f"a denied prompt: {result}")
        client.send({"prompt": "a cat", "id": "good"})
        check(client.result(id="good")["status"] == "done", "an allowed prompt is not drawn")
        slow = bench.daemon("slow", ["--deny-command", "exec sleep 60"]).connected()
        client = bench.client("slow")
        client.send({"prompt": "a cat", "id": "late"})
        check(client.result(seconds=20, id="late")["status"] == "failed", "a command that does not answer lets a prompt pass")
        check("took more than 1 s" in slow.process.text(), "a slow command is not named in the log")


def rate_and_quota():
    with Bench() as bench:
        bench.daemon(flags=["--rate-per-minute", "3"]).connected()
        client = bench.client()
        for number in range(4):
            client.send({"prompt": "a cat", "id": f"r{number}", "client": "eager"})
        check("3 prompts" in client.result(status="refused")["error"], "the rate has no bound")
        client.send({"prompt": "a cat", "id": "other", "client": "patient"})
        check(client.result(id="other")["status"] == "done", "one client's rate holds back another")
        bench.daemon("quota", ["--quota-per-day", "5"]).connected()
        client = bench.client("quota")
        client.send({"prompt": "a cat", "id": "q0", "client": "eager", "count": 4})
        client.result(id="q0")
        client.send({"prompt": "a cat", "id": "q1", "client": "eager", "count": 2})
        check("4 of its 5 pictures" in client.result(id="q1")["error"], "the quota has no bound")


def eink():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()

        def picture(**keys) -> tuple[dict, bytes, str]:
            client.send({"prompt": "a cat", "id": str(keys), "seed": 4, **keys})
            image = client.expect("image")
            result = client.result(id=str(keys))
            check(result["images"][0]["sha256"] == hashlib.sha256(image.payload).hexdigest(), "another picture than the result says")
            return result, image.payload, image.properties.ContentType

        result, raw, kind = picture(format="raw1")
        width, height = result["size"]
        check(len(raw) == (width + 7) // 8 * height and kind == "application/vnd.plantain.raw1", f"raw1: {len(raw)} bytes of {kind}")
        white = sum(byte.bit_count() for byte in raw) / (8 * len(raw))
        check(0.05 < white < 0.95, f"raw1 is white to {white:.2f}")
        _, plain, _ = picture(format="raw1", dither="none")
        check(plain != raw, "dithering changes nothing")
        result, raw, kind = picture(format="raw7")
        check(len(raw) == (width + 1) // 2 * height and kind == "application/vnd.plantain.raw7", f"raw7: {len(raw)} bytes of {kind}")
        check(max(max(byte >> 4, byte & 15) for byte in raw) < 7, "raw7 has an eighth colour")
        _, png, _ = picture(palette="bw")
        # IHDR: bit depth and colour type 3, which is a palette.
        check(png[24:26] in (b"\x01\x03", b"\x02\x03", b"\x04\x03", b"\x08\x03"), "a palette gives no indexed PNG")
        client.send({"prompt": "a cat", "palette": "pink"})
        check("palette" in client.result(status="refused")["error"], "a wrong palette is drawn")
        bench.daemon("frame", ["--format", "raw1", "--dither", "ordered"]).connected()
        frame = bench.client("frame")
        frame.send("a cat")
        check(len(frame.expect("image").payload) == (width + 7) // 8 * height, "the configured encoding is not used")


def sizes():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()
        for size in ("default", "small", "large", "portrait", "landscape"):
            client.send({"prompt": "a cat", "id": size, "size": size})
            result = client.result(id=size)
            check(result["status"] == "done" and min(result["size"]) >= 8, f"{size}: {result}")
        client.send({"prompt": "a cat", "size": "huge"})
        check("portrait" in client.result(status="refused")["error"], "an unknown size is drawn")


def previews():
    with Bench() as bench:
        bench.daemon().connected()
        client = bench.client()

        def steps(**keys) -> tuple[list[dict], str]:
            client.send({"prompt": "a cat", "id": str(keys), "seed": 4, "steps": 3, **keys})
            seen = [matches(client.expect("progress").payload, "progress") for _ in range(3)]
            return seen, client.result(id=str(keys))["images"][0]["sha256"]

        plain, picture = steps()
        check([step["step"] for step in plain] == [1, 2, 3], f"steps: {plain}")
        check(not any("preview" in step for step in plain), "a preview that nobody asked for")
        shown, same = steps(preview=True)
        check([step["step"] for step in shown] == [1, 2, 3], f"steps with previews: {[step['step'] for step in shown]}")
        check(["preview" in step for step in shown] == [True, True, False], "previews are not those of all steps but the last")
        check(all(base64.b64decode(step["preview"]).startswith(JPEG) for step in shown[:2]), "a preview is no JPEG")
        check(picture == same, "a preview changes the picture")


def step_cache():
    """What the operator chose to estimate is said in the result, and what cannot be ends the start."""
    with Bench() as bench:
        bench.daemon(flags=["--step-cache", "3"]).connected()
        client = bench.client()
        client.send({"prompt": "a cat", "seed": 4, "steps": 8})
        result = client.result()
        check((result["steps"], result["step_cache"], result["denoiser_samples"]) == (8, 3, 5), f"8 steps, every third: {result}")
        refused = bench.daemon("other", ["--step-cache", "1"]).process
        wait_for("a daemon with a step cache of 1 to end", lambda: not refused.alive())
        check("the step cache is 1 but must be 2 to 16" in refused.text(), f"no reason: {refused.text()}")


def small_broker():
    """Pictures that the broker does not take are encoded smaller, then refused with a reason; the connection stays."""
    for limit, lands in [(6000, True), (1500, False), (600, False)]:
        with Bench(broker_extra=f"max_packet_size {limit}\n") as bench:
            daemon = bench.daemon().connected()
            client = bench.client()
            client.send({"prompt": "a red apple", "id": "big"})
            image = client.expect("image") if lands else None
            result = client.result(id="big")
            if image:
                check(result["status"] == "done" and result["images"][0]["format"] == "jpeg", f"{limit}: {result}")
                check(image.payload.startswith(JPEG) and len(image.payload) < limit, "no smaller picture came")
            else:
                check(result["status"] == "failed" and "broker takes" in result["error"], f"{limit}: {result}")
            client.send({"prompt": "a red apple", "id": "next"})
            client.result(id="next")
            time.sleep(0.5)
            check(daemon.process.text().count("connected to") == 1, f"{limit}: a picture that is too large ends the connection")


TESTS = [deny_words, deny_command, rate_and_quota, eink, sizes, previews, step_cache, small_broker]

if __name__ == "__main__":
    main({test.__name__: test for test in TESTS})
