//! Our tokenizers against Hugging Face's, over the same vocabularies.
//!
//! `tests/data/tokenizers/` holds small ones (made by its `make.py`); `PLANTAIN_TOKENIZERS` may name more
//! `tokenizer.json` files, separated by `:`, for example those of a whole BERT and CLIP.

use std::path::{Path, PathBuf};

use plantain::pipeline::tokenizer::{Tokenizer, build_merges, build_vocabulary};
use plantain::pipeline::{TokenizerKind, TokenizerSpec};
use serde_json::Value;
use tokenizers::{Tokenizer as Oracle, TruncationParams};

/// Ids of one prompt in these tests.
const TOKENS_MAX: u32 = 77;

const PROMPTS: &[&str] = &[
    "",
    "a",
    "a red apple",
    "A  Red\tAPPLE,\nwith a leaf!",
    "don't we'll it's they've I'm he'd you're 'sun 'tis '",
    "a cat; a dog -- (and) [a] {mouse} <|x|> 100% of 3,141.59 $5 & #1 @home 50° ½ ²",
    "Crème brûlée, Ångström, naïve façade, Škoda, Tiếng Việt, Straße, İstanbul, ŉ, ǅ",
    "e\u{301}te\u{301} cafe\u{301} n\u{303}o a\u{328}\u{301} \u{1e9b}\u{323}",
    "日本語の猫 と 犬、リンゴ。红苹果 사과 ไทย हिन्दी עִבְרִית العَرَبِيَّة ελληνικά Привет мир",
    "𠮷野家 𝒜𝓅𝓅𝓁𝑒 ﬁne ﬂow ㎏ Ⅻ ① ㊗",
    "😀 a cat 🐱 and 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 ❤️ 🇩🇪",
    "control\u{7}\u{1b}[0m\u{0}nul\u{7f}\u{85}x\u{200b}y\u{200d}z\u{feff}w\u{fffd}v\u{2028}u\u{a0}t\u{3000}s\u{ad}r",
    "\r\n\t  \u{2003} ",
    "pneumonoultramicroscopicsilicovolcanoconiosis supercalifragilisticexpialidocious antidisestablishmentarianism",
    "snake_case camelCase kebab-case a/b\\c https://example.org/?q=1&r=2#top x^2 `code` ~tilde~ \"quoted\" “curly” ‘single’ …",
    "1234567890 3d 2x4 b2b 0xFF ١٢٣ 一二三",
];

struct Pair {
    oracle: Oracle,
    spec: TokenizerSpec,
    vocabulary: Vec<u8>,
    merges: Option<Vec<u8>>,
}

/// Opens a `tokenizer.json` with both implementations.
fn open(path: &Path) -> Pair {
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let model = &json["model"];
    let mut tokens: Vec<(&str, u64)> = model["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (token.as_str(), id.as_u64().unwrap()))
        .collect();
    tokens.sort_by_key(|&(_, id)| id);
    assert!(tokens.iter().enumerate().all(|(place, &(_, id))| place as u64 == id));
    let tokens: Vec<&str> = tokens.into_iter().map(|(token, _)| token).collect();
    let id = |token: &str| tokens.iter().position(|t| *t == token).unwrap() as u32;
    let (kind, start, end, pad, unknown) = match model["type"].as_str().unwrap() {
        "WordPiece" => (TokenizerKind::WordPiece, "[CLS]", "[SEP]", "[PAD]", "[UNK]"),
        "BPE" => {
            let end = "<|endoftext|>";
            (TokenizerKind::ClipBpe, "<|startoftext|>", end, end, end)
        }
        other => panic!("{} holds a {other} tokenizer", path.display()),
    };
    let merges = model["merges"].as_array().map(|merges| {
        let merges: Vec<(&str, &str)> = merges
            .iter()
            .map(|merge| match merge {
                Value::String(both) => both.split_once(' ').unwrap(),
                pair => (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
            })
            .collect();
        build_merges(&tokens, &merges).unwrap()
    });
    let spec = TokenizerSpec {
        kind,
        tokens_max: TOKENS_MAX,
        uncased: true,
        start_id: id(start),
        end_id: id(end),
        pad_id: id(pad),
        unknown_id: id(unknown),
        vocabulary: "tokenizer.vocabulary".to_owned(),
        merges: merges.as_ref().map(|_| "tokenizer.merges".to_owned()),
    };
    let mut oracle = Oracle::from_file(path).unwrap();
    let cut = TruncationParams { max_length: TOKENS_MAX as usize, ..Default::default() };
    oracle.with_truncation(Some(cut)).unwrap().with_padding(None);
    Pair { oracle, spec, vocabulary: build_vocabulary(&tokens), merges }
}

impl Pair {
    fn compare(&self, tokenizer: &Tokenizer, prompt: &str) {
        let expected = self.oracle.encode(prompt, true).unwrap();
        let mut ids = [-1; TOKENS_MAX as usize];
        let count = tokenizer.encode(prompt, &mut ids).unwrap();
        let used: Vec<u32> = ids[..count.used as usize].iter().map(|&id| id as u32).collect();
        assert_eq!(used, expected.get_ids(), "{:?}: {prompt:?}", self.spec.kind);
        assert!(ids[count.used as usize..].iter().all(|&id| id == self.spec.pad_id as i32));
        assert_eq!(count.whole > count.used, !expected.get_overflowing().is_empty(), "{prompt:?}");
    }
}

fn paths() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tokenizers");
    let mut paths = vec![folder.join("bert.json"), folder.join("clip.json")];
    if let Some(more) = std::env::var_os("PLANTAIN_TOKENIZERS") {
        paths.extend(std::env::split_paths(&more));
    }
    paths
}

#[test]
fn known_prompts_give_the_same_ids() {
    for path in paths() {
        let pair = open(&path);
        let tokenizer =
            Tokenizer::new(&pair.spec, &pair.vocabulary, pair.merges.as_deref()).unwrap();
        for prompt in PROMPTS {
            pair.compare(&tokenizer, prompt);
        }
        for count in [99, 100, 101, 1000] {
            pair.compare(&tokenizer, &"x".repeat(count));
            pair.compare(&tokenizer, &"é".repeat(count));
            pair.compare(&tokenizer, &"猫".repeat(count));
            pair.compare(&tokenizer, &"ab ".repeat(count));
        }
    }
}

#[test]
fn shuffled_words_and_characters_give_the_same_ids() {
    let characters: Vec<char> = PROMPTS.iter().flat_map(|prompt| prompt.chars()).collect();
    for path in paths() {
        let pair = open(&path);
        let tokenizer =
            Tokenizer::new(&pair.spec, &pair.vocabulary, pair.merges.as_deref()).unwrap();
        let words: Vec<&str> = PROMPTS.iter().flat_map(|prompt| prompt.split(' ')).collect();
        // A linear congruential generator (Knuth's MMIX numbers) keeps the prompts the same for ever.
        let mut state = 0x7072_6f6d_7074_u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..4000 {
            let mut prompt = String::new();
            for _ in 0..next(24) {
                match next(3) {
                    0 => prompt.push(characters[next(characters.len())]),
                    1 => prompt.push_str(words[next(words.len())]),
                    _ => prompt.push(' '),
                }
            }
            pair.compare(&tokenizer, &prompt);
        }
    }
}

#[test]
fn text_cannot_name_special_tokens() {
    for path in paths() {
        let pair = open(&path);
        let tokenizer =
            Tokenizer::new(&pair.spec, &pair.vocabulary, pair.merges.as_deref()).unwrap();
        let mut ids = [-1; TOKENS_MAX as usize];
        let count =
            tokenizer.encode("[CLS] [SEP] <|startoftext|> <|endoftext|>", &mut ids).unwrap();
        let inner = &ids[1..count.used as usize - 1];
        for special in [pair.spec.start_id, pair.spec.end_id] {
            assert!(!inner.contains(&(special as i32)), "{}: {inner:?}", path.display());
        }
    }
}
