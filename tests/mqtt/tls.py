"""TLS with client certificates, and what is refused: a wrong authority, no certificate, a wrong password."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness import Bench, Daemon, check, main, wait_for


def certificates(folder: Path) -> None:
    """An authority, a server and a client certificate, and a second authority that nobody trusts."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)

    for authority in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=plantain test {authority}",
                "-keyout", f"{folder}/{authority}.key", "-out", f"{folder}/{authority}.pem")  # fmt: skip
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        extension = folder / f"{name}.ext"
        extension.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr")
        openssl("x509", "-req", "-in", f"{folder}/{name}.csr", "-CA", f"{folder}/{authority}.pem", "-CAkey", f"{folder}/{authority}.key",
                "-CAcreateserial", "-days", "2", "-extfile", str(extension), "-out", f"{folder}/{name}.pem")  # fmt: skip


def says(daemon: Daemon, part: str) -> None:
    wait_for(f"a log line with {part!r}", lambda: part in daemon.process.text(), 20)
    check("connected to" not in daemon.process.text(), "it connected all the same")


def client_certificates():
    with Bench() as bench:
        folder = bench.folder
        certificates(folder)
        tls = (
            f"\nlistener {(port := bench.broker.port + 1)} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/server.pem\n"
            f"keyfile {folder}/server.key\nrequire_certificate true\n"
        )
        bench.broker.kill()
        bench.broker.config.write_text(bench.broker.config.read_text() + tls)
        bench.broker.start()

        def daemon(device: str, authority: str, name: str | None) -> Daemon:
            flags = ["--ca-file", f"{folder}/{authority}.pem"]
            if name:
                flags += ["--client-cert", f"{folder}/{name}.pem", "--client-key", f"{folder}/{name}.key"]
            return bench.daemon(device, flags, port=port, scheme="mqtts")

        daemon("good", "ca", "client").connected()
        client = bench.client("good")
        client.send("a red apple")
        check(client.result()["status"] == "done", "no picture over TLS")
        says(daemon("foreign", "other", "client"), "TLS failed")
        says(daemon("stranger", "ca", "stranger"), "check client_cert")
        says(daemon("nobody", "ca", None), "check client_cert")
        missing = subprocess.run([*daemon("gone", "ca", "client").command, "--ca-file", f"{folder}/none.pem", "--check"], capture_output=True, text=True, timeout=30)
        check(missing.returncode != 0, "a missing authority file is accepted")


def passwords():
    with Bench() as bench:
        passwords = bench.folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "pi", "right"], check=True, timeout=30)
        bench.broker.kill()
        text = bench.broker.config.read_text().replace("allow_anonymous true\n", "")
        bench.broker.config.write_text(f"{text}\nallow_anonymous false\npassword_file {passwords}\n")
        bench.broker.start()
        secret = bench.folder / "secret"
        secret.write_text("right\n")
        bench.daemon("file", ["--username", "pi", "--password-file", str(secret)]).connected()
        bench.daemon("env", ["--username", "pi"], env={"PLANTAIN_PASSWORD": "right"}).connected()
        wrong = bench.daemon("wrong", ["--username", "pi"], env={"PLANTAIN_PASSWORD": "wrong"})
        says(wrong, "refused this user name and password")
        printed = subprocess.run([*wrong.command, "--print-config"], capture_output=True, text=True, timeout=30, env=wrong.env)
        check("wrong" not in printed.stdout.replace("device = \"wrong\"", "").replace("/wrong/", ""), "--print-config shows the password")


if __name__ == "__main__":
    main({test.__name__: test for test in (client_certificates, passwords)})
