"""Makes bert.json and clip.json: small tokenizers of the two kinds that packs know.

    python tests/data/tokenizers/make.py VOCAB_TXT

VOCAB_TXT is BERT's uncased vocabulary (Apache-2.0; all-MiniLM-L6-v2 has the same). bert.json keeps its single
characters, its commonest words and their pieces. clip.json holds byte pairs learned from those words. Needs the
PyPI packages transformers and tokenizers.
"""

import pathlib
import sys

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer

here = pathlib.Path(__file__).parent
words = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")
words = [word for word in words if word]

special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
characters = [word for word in words if len(word.removeprefix("##")) == 1]
common = [word for word in words[999:] if len(word) > 1 and not word.startswith("[")]
whole = [word for word in common if not word.startswith("##")][:1800]
pieces = [word for word in common if word.startswith("##") and len(word) > 3][:900]
vocabulary = special + characters + whole + pieces
bert = BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)})
bert.backend_tokenizer.no_padding()
bert.backend_tokenizer.save(str(here / "bert.json"), pretty=False)

learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
learner.normalizer = normalizers.Lowercase()
learner.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
learner.train_from_iterator(
    whole + ["don't we'll it's"] * 3,
    trainers.BpeTrainer(
        vocab_size=512 + 1500, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    ),
)
state = __import__("json").loads(learner.to_str())["model"]
merges = [tuple(merge) for merge in state["merges"]]
tokens = alphabet + [character + "</w>" for character in alphabet]
tokens += [token for left, right in merges if (token := left + right) not in tokens]
tokens += ["<|startoftext|>", "<|endoftext|>"]
clip = CLIPTokenizer(vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges=merges)
clip.backend_tokenizer.save(str(here / "clip.json"), pretty=False)
