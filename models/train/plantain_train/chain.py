"""Draws with an exported folder in ONNX Runtime: the reference for what a pack should give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from .text import encode


class Chain:
    """Prompt -> picture, as uint8 [H, W, 3]."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Opens every network of the folder."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads

        def session(name: str) -> onnxruntime.InferenceSession:
            return onnxruntime.InferenceSession(str(folder / name / "model.onnx"), options, providers=["CPUExecutionProvider"])

        self.index = json.loads((folder / "model_index.json").read_text())["plantain"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        self.text_encoder, self.unet = session("text_encoder"), session("unet")
        self.vae_decoder, self.refiner = session("vae_decoder"), session("refiner")

    def text(self, prompt: str) -> dict[str, np.ndarray]:
        """The denoiser's inputs that a prompt gives."""
        ids, mask = encode(self.tokenizer, [prompt])
        states = self.text_encoder.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return {"encoder_hidden_states": states, "attention_mask": mask}

    def draw(self, prompt: str, seed: int = 0, noise: np.ndarray | None = None) -> np.ndarray:
        """One picture with the folder's steps and guidance."""
        steps, guidance = self.index["default_steps"], self.index["default_guidance_scale"]
        texts = [self.text(prompt)] if guidance == 1.0 else [self.text(prompt), self.text("")]
        if noise is None:
            noise = np.random.default_rng(seed).standard_normal((1, *self.index["latent_shape"])).astype(np.float32)
        x = noise
        for i in range(steps):
            t, t_next = i / steps, (i + 1) / steps
            clean, *unconditional = (self.unet.run(None, {"sample": x, "timestep": np.array([t], np.float32), **text})[0] for text in texts)
            for other in unconditional:
                clean = other + np.float32(guidance) * (clean - other)
            x = x + np.float32((t_next - t) / (1 - t)) * (clean - x)
        image = self.refiner.run(None, {"sample": self.vae_decoder.run(None, {"latent_sample": x})[0]})[0]
        return to_bytes(image)[0]


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[-1, 1] [B, 3, H, W] -> uint8 [B, H, W, 3]"""
    return np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
