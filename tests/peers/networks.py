"""Networks of the real shapes with scaled random weights: `python networks.py NAME OUT.onnx`, for names in NETWORKS.

No trained weights are needed to compare speed and memory: neither depends on their values. Shapes are fixed at one
sample of 64 x 64 latent cells, a picture of 512 x 512.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "fixtures"))
from make_networks import Decoder, Denoiser, PlainAttention, randomise

CELLS, TOKENS, WIDTH = 64, 77, 768


def unet(**shape: object) -> nn.Module:
    """A denoiser whose attention is exported as MatMul and Softmax."""
    net = UNet2DConditionModel(sample_size=CELLS, cross_attention_dim=WIDTH, attention_head_dim=8, **shape)
    net.set_attn_processor(PlainAttention())
    return Denoiser(net)


def sd15() -> nn.Module:
    """The UNet of Stable Diffusion 1.5: 859.5 million parameters."""
    return unet()


def bk_sdm_tiny() -> nn.Module:
    """BK-SDM-Tiny's (Kim et al., arXiv:2305.15798): 323.4 million."""
    return unet(layers_per_block=1, block_out_channels=(320, 640, 1280), mid_block_type=None,
                down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3)


def taesd() -> nn.Module:
    """TAESD's decoder: 1.22 million."""
    autoencoder = AutoencoderTiny()
    autoencoder.encoder = nn.Identity()
    return Decoder(autoencoder)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"taesd": taesd, "bk-sdm-tiny": bk_sdm_tiny, "sd15": sd15}


def export(name: str, path: Path) -> None:
    """One ONNX file with its weights beside it."""
    net = randomise(NETWORKS[name](), 1)
    noise = torch.randn(1, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    inputs = {"latent_sample": noise} if name == "taesd" else {
        "sample": noise, "timestep": torch.tensor([500.0]), "encoder_hidden_states": torch.randn(1, TOKENS, WIDTH)}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".export")
    whole.mkdir(exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(net, tuple(inputs.values()), str(whole / "model.onnx"), input_names=list(inputs), output_names=["out"],
                          dynamo=False, opset_version=17, do_constant_folding=True)
    model = onnx.load(whole / "model.onnx")
    data = path.with_suffix(".data")
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name, size_threshold=1024)
    for file in whole.iterdir():
        file.unlink()
    whole.rmdir()


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]))
