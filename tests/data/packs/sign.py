"""Makes two minisign public keys, signs each pack of a folder with the first, and forgets the secret keys.

The format is minisign's (https://jedisct1.github.io/minisign/), prehashed; the signing is OpenSSL's Ed25519.
"""

import base64
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile


def generate(folder, name):
    key = pathlib.Path(folder, name)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout[-32:]
    return key, public


def sign(folder, key, message):
    file = pathlib.Path(folder, "message")
    file.write_bytes(message)
    command = ["openssl", "pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", file]
    return subprocess.run(command, check=True, capture_output=True).stdout


def main(target):
    with tempfile.TemporaryDirectory() as folder:
        for name in ["other", "key"]:
            key, public = generate(folder, name)
            number = os.urandom(8)
            text = base64.b64encode(b"Ed" + number + public).decode()
            comment = f"untrusted comment: minisign public key of a test ({name})"
            pathlib.Path(target, f"{name}.pub").write_text(f"{comment}\n{text}\n")
        for pack in pathlib.Path(target).glob("*.safetensors"):
            signature = sign(folder, key, hashlib.blake2b(pack.read_bytes()).digest())
            comment = f"file:{pack.name} prehashed"
            whole = sign(folder, key, signature + comment.encode())
            lines = [
                "untrusted comment: signature of a test",
                base64.b64encode(b"ED" + number + signature).decode(),
                f"trusted comment: {comment}",
                base64.b64encode(whole).decode(),
            ]
            pathlib.Path(f"{pack}.minisig").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
