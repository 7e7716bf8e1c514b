//! `tokenizer/`: which algorithm, which ids, which tables.

use std::path::Path;

use plantain::pipeline::tokenizer::{build_merges, build_vocabulary};
use plantain::pipeline::{TokenizerKind, TokenizerSpec};
use serde_json::Value;

use super::{RecipeError, read_json, read_text};

const VOCABULARY: &str = "tokenizer/vocabulary";
const MERGES: &str = "tokenizer/merges";

/// A tokenizer with the bytes of its tables.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerTables {
    /// How it works.
    pub spec: TokenizerSpec,
    /// The tensor that `spec.vocabulary` names.
    pub vocabulary: Vec<u8>,
    /// The tensor that `spec.merges` names.
    pub merges: Option<Vec<u8>>,
}

/// Reads a tokenizer: WordPiece from `vocab.txt` or `tokenizer.json`, CLIP's byte pairs from `vocab.json`
/// and `merges.txt` or `tokenizer.json`. `tokens_max` is what the text encoder takes.
///
/// # Errors
/// [`RecipeError`] if the files are missing or describe another tokenizer.
pub fn read_tokenizer(folder: &Path, tokens_max: u32) -> Result<TokenizerTables, RecipeError> {
    let folder = folder.join("tokenizer");
    let config_path = folder.join("tokenizer_config.json");
    let config = match config_path.is_file() {
        true => read_json(&config_path, "export the tokenizer again")?,
        false => Value::Null,
    };
    let json_path = folder.join("tokenizer.json");
    let json = match json_path.is_file() {
        true => Some(read_json(&json_path, "export the tokenizer again")?),
        false => None,
    };
    let model = json.as_ref().and_then(|json| json.get("model"));
    let kind = model.and_then(|model| model.get("type")).and_then(Value::as_str);
    let source = Source { folder: &folder, config: &config, json: json.as_ref(), tokens_max };
    if folder.join("merges.txt").is_file() || kind == Some("BPE") {
        source.byte_pairs()
    } else if folder.join("vocab.txt").is_file() || kind == Some("WordPiece") {
        source.word_piece()
    } else {
        Err(RecipeError::Missing {
            path: folder.join("vocab.txt"),
            advice: "plantain reads WordPiece (vocab.txt) and CLIP's byte pairs (vocab.json, merges.txt)",
        })
    }
}

struct Source<'a> {
    folder: &'a Path,
    config: &'a Value,
    json: Option<&'a Value>,
    tokens_max: u32,
}

impl Source<'_> {
    fn malformed(&self, file: &str, problem: String) -> RecipeError {
        RecipeError::Malformed { path: self.folder.join(file), problem }
    }

    /// Tokens by id: from a map of token to id.
    fn by_id(&self, file: &str, map: &Value) -> Result<Vec<String>, RecipeError> {
        let map = map
            .as_object()
            .ok_or_else(|| self.malformed(file, "its vocabulary is not an object".to_owned()))?;
        let mut tokens = vec![None; map.len()];
        for (token, id) in map {
            let slot = id.as_u64().and_then(|id| tokens.get_mut(id as usize)).ok_or_else(|| {
                let last = map.len().saturating_sub(1);
                self.malformed(
                    file,
                    format!("token {token:?} has id {id}; ids run from 0 to {last}"),
                )
            })?;
            *slot = Some(token.clone());
        }
        tokens
            .into_iter()
            .enumerate()
            .map(|(id, token)| {
                token.ok_or_else(|| self.malformed(file, format!("no token has id {id}")))
            })
            .collect()
    }

    /// The id of a special token: by its name in `tokenizer_config.json`, else `otherwise`.
    fn special(&self, tokens: &[String], key: &str, otherwise: &str) -> Result<u32, RecipeError> {
        let named = match self.config.get(key) {
            Some(Value::String(name)) => Some(name.as_str()),
            Some(Value::Object(entry)) => entry.get("content").and_then(Value::as_str),
            _ => None,
        };
        let name = named.unwrap_or(otherwise);
        let added = self.json.and_then(|json| json.get("added_tokens")).and_then(Value::as_array);
        let added = added.into_iter().flatten().find_map(|token| {
            let id = u32::try_from(token.get("id")?.as_u64()?).ok()?;
            (token.get("content")?.as_str()? == name).then_some(id)
        });
        added
            .or_else(|| tokens.iter().position(|token| token == name).map(|id| id as u32))
            .ok_or_else(|| {
                self.malformed(
                    "tokenizer_config.json",
                    format!("{key} is {name:?}, which the vocabulary lacks"),
                )
            })
    }

    fn word_piece(&self) -> Result<TokenizerTables, RecipeError> {
        let path = self.folder.join("vocab.txt");
        let tokens: Vec<String> = if path.is_file() {
            read_text(&path, "export the tokenizer again")?.lines().map(str::to_owned).collect()
        } else {
            let vocabulary = self.json.and_then(|json| json.get("model")?.get("vocab"));
            self.by_id("tokenizer.json", vocabulary.unwrap_or(&Value::Null))?
        };
        let normalizer = self.json.and_then(|json| json.get("normalizer"));
        let uncased = self
            .config
            .get("do_lower_case")
            .or_else(|| normalizer.and_then(|normalizer| normalizer.get("lowercase")))
            .and_then(Value::as_bool)
            .unwrap_or(true);
        let pieces: Vec<&str> = tokens.iter().map(String::as_str).collect();
        Ok(TokenizerTables {
            spec: TokenizerSpec {
                kind: TokenizerKind::WordPiece,
                tokens_max: self.tokens_max,
                uncased,
                start_id: self.special(&tokens, "cls_token", "[CLS]")?,
                end_id: self.special(&tokens, "sep_token", "[SEP]")?,
                pad_id: self.special(&tokens, "pad_token", "[PAD]")?,
                unknown_id: self.special(&tokens, "unk_token", "[UNK]")?,
                vocabulary: VOCABULARY.to_owned(),
                merges: None,
            },
            vocabulary: build_vocabulary(&pieces),
            merges: None,
        })
    }

    fn byte_pairs(&self) -> Result<TokenizerTables, RecipeError> {
        let vocabulary_path = self.folder.join("vocab.json");
        let tokens = if vocabulary_path.is_file() {
            let map = read_json(&vocabulary_path, "export the tokenizer again")?;
            self.by_id("vocab.json", &map)?
        } else {
            let vocabulary = self.json.and_then(|json| json.get("model")?.get("vocab"));
            self.by_id("tokenizer.json", vocabulary.unwrap_or(&Value::Null))?
        };
        let merges_path = self.folder.join("merges.txt");
        let lines: Vec<(String, String)> = if merges_path.is_file() {
            read_text(&merges_path, "export the tokenizer again")?
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with("#version"))
                .map(|line| {
                    let (left, right) = line.split_once(' ').ok_or_else(|| {
                        self.malformed("merges.txt", format!("{line:?} is not two tokens"))
                    })?;
                    Ok((left.to_owned(), right.to_owned()))
                })
                .collect::<Result<_, RecipeError>>()?
        } else {
            let merges = self.json.and_then(|json| json.get("model")?.get("merges")?.as_array());
            let pair = |entry: &Value| match entry {
                Value::String(line) => {
                    line.split_once(' ').map(|(l, r)| (l.to_owned(), r.to_owned()))
                }
                Value::Array(pair) => {
                    Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()))
                }
                _ => None,
            };
            merges
                .into_iter()
                .flatten()
                .map(|entry| {
                    pair(entry).ok_or_else(|| {
                        self.malformed(
                            "tokenizer.json",
                            format!("the merge {entry} is not two tokens"),
                        )
                    })
                })
                .collect::<Result<_, RecipeError>>()?
        };
        let pieces: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let pairs: Vec<(&str, &str)> =
            lines.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
        let merges = build_merges(&pieces, &pairs)
            .map_err(|error| self.malformed("merges.txt", error.to_string()))?;
        let end = "<|endoftext|>";
        Ok(TokenizerTables {
            spec: TokenizerSpec {
                kind: TokenizerKind::ClipBpe,
                tokens_max: self.tokens_max,
                uncased: true,
                start_id: self.special(&tokens, "bos_token", "<|startoftext|>")?,
                end_id: self.special(&tokens, "eos_token", end)?,
                pad_id: self.special(&tokens, "pad_token", end)?,
                unknown_id: self.special(&tokens, "unk_token", end)?,
                vocabulary: VOCABULARY.to_owned(),
                merges: Some(MERGES.to_owned()),
            },
            vocabulary: build_vocabulary(&pieces),
            merges: Some(merges),
        })
    }
}
