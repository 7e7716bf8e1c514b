"""`python -m unittest` in this folder: what must hold before hours of training are spent. Needs the npm packages; no GPU, no weights."""

from __future__ import annotations

import random
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from plantain_train import (
    captions,
    concepts,
    flow,
    shallow,
    show,
    store,
    text,
    translate,
)
from plantain_train.chain import Chain
from plantain_train.export import Card, export
from plantain_train.grow import grow
from plantain_train.latent import PatchBasis
from plantain_train.net import Generator, Refiner
from plantain_train.pool import dominant_hue, premultiplied, shifted
from plantain_train.prune import narrower, pruned
from plantain_train.render import code, slug


def random_basis() -> PatchBasis:
    """An orthogonal basis with falling variances."""
    vectors, _ = torch.linalg.qr(torch.randn(192, 192, generator=torch.Generator().manual_seed(1)))
    return PatchBasis(torch.linspace(-0.2, 0.2, 192), vectors, torch.linspace(4, 0.1, 192))


def awake(net: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, so that no zero layer hides a mistake."""
    generator = torch.Generator().manual_seed(2)
    for p in net.parameters():
        p.data = p.data + 0.05 * torch.randn(p.shape, generator=generator)
    return net.eval()


class Words(unittest.TestCase):
    """Captions and hold-outs."""

    def test_articles(self) -> None:
        for phrase, noun, expected in [("apple", "apple", "an apple"), ("red apple", "apple", "a red apple"), ("glasses", "glasses", "glasses"),
                                       ("bus", "bus", "a bus"), ("orange cat", "cat", "an orange cat"), ("unicorn", "unicorn", "a unicorn"),
                                       ("umbrella", "umbrella", "an umbrella"), ("octopus", "octopus", "an octopus"), ("grapes", "grapes", "grapes"),
                                       ("blue bread", "bread", "blue bread"), ("compass", "compass", "a compass")]:
            self.assertEqual(captions.with_article(phrase, noun), expected)

    def test_list_is_sound(self) -> None:
        listed = concepts.load()
        self.assertEqual(len({c.word for c in listed}), len(listed))
        self.assertEqual(len({c.code for c in listed}), len(listed))
        self.assertGreaterEqual(len(listed), 750)
        self.assertEqual(len(show.fifty()), 50)
        self.assertTrue(all(style is None or style in concepts.STYLE_WORDS for _, style in show.fifty()))

    def test_hold_outs_are_fixed_and_few(self) -> None:
        pairs = [(c, s) for c in concepts.load() for s in concepts.styles()]
        held = sum(concepts.held_pair(c, s) for c, s in pairs) / len(pairs)
        self.assertTrue(0.03 < held < 0.08, held)
        never = sum(concepts.never_asked(c, s) for c, s in pairs) / len(pairs)
        self.assertTrue(0.1 < never / held < 0.2, "about one hold-out in seven gets no translation either")
        guitar = next(c for c in concepts.load() if c.word == "guitar")
        self.assertTrue(concepts.held_pair(guitar, "mono"), "the warm start never saw it, so it stays unseen")
        self.assertFalse(concepts.held_pair(guitar, "3d"))

    def test_captions_carry_their_meaning(self) -> None:
        rng, apple = random.Random(0), concepts.load(3)[2]
        for _ in range(30):
            self.assertIn("blue apple", captions.coloured(apple, "flat", "blue", None, rng))
            self.assertIn("on an orange background", captions.background(apple, "3d", "orange", rng))

    def test_codes_and_names(self) -> None:
        self.assertEqual(code("2764-FE0F"), "2764")
        self.assertEqual(slug("Jack-O’-Lantern"), "jack-o-lantern")


class Pictures(unittest.TestCase):
    """Image arithmetic."""

    def test_hue_shift_moves_the_dominant_hue(self) -> None:
        picture = np.zeros((128, 128, 4), np.uint8)
        picture[32:96, 32:96] = (200, 40, 40, 255)
        hue, near, cover = dominant_hue(shifted(picture, 120))
        self.assertLess(abs(hue - 120), 5)
        self.assertGreater(min(near, cover), 0.95)

    def test_premultiplied_average(self) -> None:
        picture = np.zeros((128, 128, 4), np.uint8)
        picture[:, :64] = (100, 200, 50, 255)
        small = premultiplied(picture, 64)
        self.assertEqual(small[0, 0].tolist(), [100, 200, 50, 255])
        self.assertEqual(small[0, 63].tolist(), [0, 0, 0, 0])

    def test_basis_projects(self) -> None:
        basis, latent = random_basis(), torch.randn(2, 48, 8, 8)
        self.assertLess((basis.encode(basis(latent)) - latent).abs().max().item(), 1e-4)

    def test_translation_pairs_move_alike(self) -> None:
        generator = torch.Generator().manual_seed(4)
        pictures = torch.rand(64, 1, 3, 64, 64, generator=generator).repeat(1, 2, 1, 1, 1) * 2 - 1
        turned = translate.recoloured(translate.moved(pictures, generator), generator)
        self.assertTrue(torch.equal(turned[:, 0], turned[:, 1]), "source and target of a sample move alike")
        self.assertGreater((turned - pictures).abs().amax((1, 2, 3, 4)).gt(0.1).float().mean().item(), 0.5)
        grey = torch.full((4, 1, 3, 64, 64), 0.25)
        self.assertTrue(torch.allclose(translate.recoloured(grey, generator), grey, atol=1e-5), "grey stays grey")

    def test_a_hidden_source_leaves_no_trace(self) -> None:
        basis, there = random_basis(), torch.tensor([[True, False, True, False, False]])
        pictures = torch.rand(1, 5, 3, 64, 64)
        other = pictures.clone()
        other[0, 1] = 0
        shown = translate.sources(basis, pictures, there)
        self.assertEqual(list(shown.shape), [1, 5 * 49, 8, 8])
        self.assertTrue(torch.equal(shown, translate.sources(basis, other, there)))


class Networks(unittest.TestCase):
    """The networks and their export."""

    def test_padding_changes_nothing(self) -> None:
        net, sample, states = awake(Generator(depth=1)), torch.randn(1, 48, 8, 8), torch.randn(1, 20, 384)
        mask = torch.zeros(1, 20)
        mask[:, :7] = 1
        with torch.no_grad():
            short = net(sample, torch.tensor([0.3]), states[:, :7], mask[:, :7])
            long = net(sample, torch.tensor([0.3]), states, mask)
        self.assertLess((short - long).abs().max().item(), 1e-4)

    def test_one_step_is_the_prediction(self) -> None:
        net, states, mask, start = awake(Generator(depth=1)), torch.randn(2, 5, 384), torch.ones(2, 5), flow.noise(2, 0)
        with torch.no_grad():
            direct = net(start, torch.zeros(2), states, mask)
        self.assertTrue(torch.allclose(flow.sample(net, states, mask, start, 1), direct, atol=1e-5))

    def test_grown_checkpoint_draws_the_same(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "a.pt"), Path(folder, "b.pt")
            net = awake(Generator(depth=1))
            optimiser = torch.optim.AdamW([{"params": [p for p in net.parameters() if p.ndim >= 2]},
                                           {"params": [p for p in net.parameters() if p.ndim < 2]}])
            for p in net.parameters():
                p.grad = p.detach().clone()
            before = net.latent_out.weight.detach().clone()
            optimiser.step()
            torch.save({"net": net.state_dict(), "ema": net.state_dict(), "config": net.config, "steps": 1, "images": 64, "seconds": 1.0}, source)
            torch.save(optimiser.state_dict(), Path(folder, "a.optimiser0"))
            grow(source, target, 3)
            grown = torch.load(target, weights_only=True)
            deeper = Generator(**grown["config"])
            deeper.load_state_dict(grown["ema"])
            given = (torch.randn(1, 48, 8, 8), torch.zeros(1), torch.randn(1, 4, 384), torch.ones(1, 4))
            with torch.no_grad():
                self.assertTrue(torch.allclose(net.eval()(*given), deeper.eval()(*given), atol=1e-5))
            wide = [n for n, p in deeper.named_parameters() if p.ndim >= 2]
            state = torch.load(Path(folder, "b.optimiser0"), weights_only=True)["state"]
            moment = state[wide.index("latent_out.weight")]["exp_avg"]
            self.assertTrue(torch.allclose(moment, 0.1 * before, atol=1e-6))

    def test_stored_matrices_come_back(self) -> None:
        value = torch.randn(70, 40, 3, 3) * torch.logspace(-3, 1, 70)[:, None, None, None]
        stored = store.pack("x", value)
        back = store.unpack(stored["x.packed"], stored["x.scale"], list(value.shape))
        error = ((back - value) ** 2).mean((1, 2, 3)) / (value ** 2).mean((1, 2, 3))
        self.assertLess(error.max().item(), 1e-6)
        self.assertEqual(list(store.pack("y", torch.ones(8))), ["y"])

    def test_pruning_takes_what_is_not_missed(self) -> None:
        net = awake(Generator(depth=3))
        silent = net.middle[1]
        with torch.no_grad():
            for layer in (silent.self_attention.out, silent.cross_attention.out, silent.ff_out):
                layer.weight.zero_()
                layer.bias.zero_()
            for block in (net.enter_attention, *net.middle, net.leave_attention):
                block.ff_out.weight[:, ::2] = 0
        inputs = (torch.randn(2, 48, 8, 8), torch.zeros(2), torch.randn(2, 4, 384), torch.ones(2, 4))
        with torch.no_grad():
            wanted = net(*inputs)
            small = pruned(net, inputs, 0.5, 1)
            self.assertTrue(torch.allclose(small(*inputs), wanted, atol=1e-4))
        self.assertEqual([len(small.middle), small.middle[0].ff_in.out_features, small.config["depth"]], [2, 512, 2])

    def test_narrowing_takes_what_is_silent(self) -> None:
        net, images = awake(Refiner()), torch.rand(2, 3, 16, 16)
        with torch.no_grad():
            for layer in (net.stem, net.phase_in, *(conv for block in net.blocks for conv in (block.conv1, block.conv2))):
                layer.weight[1::2] = 0
                if layer.bias is not None:
                    layer.bias[1::2] = 0
            small = narrower(net, images, 32)
            self.assertTrue(torch.allclose(small(images), net(images), atol=1e-4))
        self.assertEqual(small.config, {"width": 32, "blocks": 3})

    def test_a_layer_that_does_nothing_goes(self) -> None:
        keep = text.pruned_vocabulary(text.model_folder(), concepts.phrases())
        encoder = text.TextEncoder(text.model_folder(), keep)
        whole = [text.EncoderLayer(384, 64) for _ in range(3)]
        with torch.no_grad():
            for silent in (whole[1].out, whole[1].ff_out):
                silent.weight.zero_()
                silent.bias.zero_()
        encoder.body = text.EncoderLayers(whole)
        ids, mask = (torch.from_numpy(a) for a in text.encode(text.shipped_tokenizer(text.model_folder(), keep), ["a red apple, flat", "a cat"]))
        found = shallow.best_layers(encoder, 2, ids, mask)
        self.assertEqual([whole.index(layer) for layer in found.layers], [0, 2])

    def test_every_network_comes_back_from_the_file(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            others = {"refiner.": work / "refiner.pt", "enlarger.": work / "enlarger.pt", "encoder.": work / "encoder.pt"}
            parts = {work / "model.pt": Generator(depth=1), others["refiner."]: Refiner(16, 2),
                     others["encoder."]: text.EncoderLayers([text.EncoderLayer(384, 64)])}
            for path, net in parts.items():
                torch.save({"ema": net.state_dict(), "config": net.config, "images": 7}, path)
            vectors, variances = torch.linalg.qr(torch.randn(192, 192))[0], torch.linspace(4, 0.1, 192)
            np.savez(work / "basis.npz", mu=np.zeros(192), V=vectors.numpy(), w=variances.numpy())
            with mock.patch.multiple(store, WORK=work, BASIS=work / "basis.npz", OTHERS=others):
                store.keep(work / "model.pt", work / "kept.safetensors", "a note")
                others["enlarger."].write_bytes(b"of another model")
                restored = store.restore(work / "kept.safetensors")
            self.assertFalse(others["enlarger."].exists())
            for path, net in [(restored, parts[work / "model.pt"]), *((p, n) for p, n in parts.items() if p in others.values())]:
                saved = torch.load(path, weights_only=True)
                self.assertEqual(saved["config"], net.config)
                for name, value in net.state_dict().items():
                    self.assertLess((saved["ema"][name] - value).abs().max().item(), 2e-3, name)

    def test_export_agrees_with_torch(self) -> None:
        generator, refiner, basis = awake(Generator(depth=1)), awake(Refiner()), random_basis()
        keep = text.pruned_vocabulary(text.model_folder(), concepts.phrases())
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "onnx")
            export(out, generator, refiner, basis, keep, Card("test", ["cat"], {"flat": "flat"}, "flat"))
            chain = Chain(out)
            ids, mask = text.encode(chain.tokenizer, ["a red apple, flat"])
            full = text.full_tokenizer(text.model_folder()).encode("a red apple, flat").ids
            self.assertEqual([keep[i] for i in ids[0, :mask.sum()]], full)
            states = chain.text_encoder.run(None, {"input_ids": ids, "attention_mask": mask})[0]
            start = flow.noise(1, 3)
            given = {"sample": start.numpy(), "timestep": np.zeros(1, np.float32), "encoder_hidden_states": states, "attention_mask": mask}
            latent = chain.unet.run(None, given)[0]
            with torch.no_grad():
                expected = generator(start, torch.zeros(1), torch.from_numpy(states), torch.from_numpy(mask))
                picture = refiner(basis(expected))
            self.assertLess(np.abs(latent - expected.numpy()).max(), 1e-3 * float(expected.abs().max()))
            small = chain.vae_decoder.run(None, {"latent_sample": expected.numpy()})[0]
            whole = chain.refiner.run(None, {"sample": small})[0]
            self.assertLess(np.abs(whole - picture.numpy()).max(), 1e-3 * float(picture.abs().max()))
            for line in (out / "OPS.txt").read_text().splitlines():
                if line.startswith("  ops "):
                    for exotic in ("Where", "IsNaN", "Shape", "Expand", "Slice", "Loop", "If"):
                        self.assertNotIn(f" {exotic} ", line)


if __name__ == "__main__":
    unittest.main()
