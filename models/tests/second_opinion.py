"""ONNX Runtime's second opinion: `second_opinion.py PACK ONNX_DIR` runs each network on the pack's golden inputs and compares its golden outputs."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors import safe_open

FOLDERS = {"text_encoder": "text_encoder", "denoiser": "unet", "decoder": "vae_decoder", "refiner": "refiner"}
TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


def main() -> None:
    """Prints the cosine of every network's outputs, as JSON."""
    pack, folder = Path(sys.argv[1]), Path(sys.argv[2])
    cosines = {}
    with safe_open(pack, "np") as tensors:
        metadata = tensors.metadata()
        shapes = json.loads(metadata["plantain.tensors"])

        def read(name: str) -> np.ndarray:
            values, shape = tensors.get_tensor(name), shapes[name].get("shape")
            values = values if shape is None else values.ravel()[:int(np.prod(shape))].reshape(shape)
            return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values

        for golden in json.loads(metadata["plantain.golden"]):
            path = folder / FOLDERS[golden["network"]] / "model.onnx"
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            inputs = {i.name: read(golden["inputs"][i.name]).astype(TYPES[i.type]) for i in session.get_inputs()}
            # The pack names its outputs by the node that makes them; there is one of each network.
            for name, output in zip(golden["outputs"].values(), session.run(None, inputs), strict=True):
                ours, theirs = (x.astype(np.float64).ravel() for x in (read(name), output))
                cosines[golden["network"]] = float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
    print(json.dumps(cosines))


if __name__ == "__main__":
    main()
