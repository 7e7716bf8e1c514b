"""Daemons that share one prompt topic: the work spreads, and none is lost when one is killed."""

from __future__ import annotations

import json
import time

from harness import Bench, check, main

PROMPTS = 60


def shared_prompts():
    devices = ["g1", "g2", "g3"]
    with Bench(["--group", "house", "--queue-length", "4"]) as bench:
        daemons = [bench.daemon(device).connected() for device in devices]
        topics = [f"plantain/{device}/result" for device in devices]
        client = bench.client(topics=topics)
        answers: dict[str, set] = {}
        workers: dict[str, int] = dict.fromkeys(devices, 0)

        def listen(seconds: float) -> None:
            for message in client.messages(seconds):
                result = json.loads(message.payload)
                if result["status"] == "done":
                    answers.setdefault(result["id"], set()).add(result["images"][0]["sha256"])
                    workers[message.topic.split("/")[1]] += 1

        for number in range(PROMPTS):
            client.send({"prompt": "a cat", "id": f"g{number}", "client": "fleet", "seed": number}, topic="plantain/house/prompt")
            if number == PROMPTS // 3:
                daemons[0].process.kill()
            if number == 2 * PROMPTS // 3:
                daemons[0].start()
            listen(0.02)
        end = time.monotonic() + 180
        while len(answers) < PROMPTS and time.monotonic() < end:
            listen(1)
        missing = [number for number in range(PROMPTS) if f"g{number}" not in answers]
        check(not missing, f"lost: {missing}")
        check(all(len(hashes) == 1 for hashes in answers.values()), "one prompt, two pictures")
        check(all(workers.values()), f"the work did not spread: {workers}")
        print(f"{PROMPTS} prompts, answers by device: {workers}")


def commands_pass_full_members():
    """A member that holds as many prompts as its receive maximum allows still hears what it is told."""
    with Bench(["--group", "house", "--queue-length", "2"]) as bench:
        bench.daemon("g1").connected()
        client = bench.client("g1")
        for number in range(6):
            prompt = {"prompt": "a cat", "id": f"h{number}", "client": "fleet", "count": 8}
            client.send(prompt, topic="plantain/house/prompt")
        client.send({"style": "cartoon"}, leaf="set")
        set_by = lambda m: json.loads(m.payload).get("defaults", {}).get("style") == "cartoon"
        drawn_before = 0
        for message in client.messages(60):
            if message.topic.endswith("/result"):
                drawn_before += 1
            if message.topic.endswith("/status") and set_by(message):
                break
        else:
            raise AssertionError("a full member hears no command")
        check(drawn_before < 4, f"the command waited for {drawn_before} prompts")


if __name__ == "__main__":
    main({test.__name__: test for test in (shared_prompts, commands_pass_full_members)})
