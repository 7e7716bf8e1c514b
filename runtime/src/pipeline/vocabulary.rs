//! Closed vocabularies: telling a user that a model does not know what was asked for.
//!
//! A pack may list the words that its model learned. A prompt that holds none of them still makes a picture, but with
//! a warning that names the closest words: by meaning, where the pack holds a table of the words' text states, else
//! by spelling.

use crate::pack::Pack;

/// The tensor of word states, f32 or f16 `[words, channels]`: for each word of the pipeline, the mean of its tokens'
/// text states (the special tokens among them), scaled to length 1.
pub const WORD_STATES: &str = "pipeline.word_states";

/// Words that are named.
const CLOSEST: usize = 3;

/// Whether a prompt holds a known word, in the singular or with an s.
pub fn knows_a_word(words: &[String], prompt: &str) -> bool {
    let prompt = format!(" {} ", plain(prompt));
    words.iter().map(|word| plain(word)).any(|word| {
        ["", "s", "es"].iter().any(|ending| prompt.contains(&format!(" {word}{ending} ")))
    })
}

/// The words whose states are closest to a text's: `[tokens, channels]`, of which the first `used` count.
///
/// `None` if the pack has no table that fits.
pub fn closest_by_meaning(
    pack: &Pack,
    words: &[String],
    states: &[f32],
    tokens: usize,
    used: usize,
) -> Option<Vec<String>> {
    let channels = states.len().checked_div(tokens)?;
    let table = pack.tensor(WORD_STATES).ok()?;
    if table.shape() != [words.len(), channels] || table.verify().is_err() {
        return None;
    }
    let mean: Vec<f32> = (0..channels)
        .map(|c| states.chunks_exact(channels).take(used).map(|token| token[c]).sum())
        .collect();
    let dot = |row: &mut dyn Iterator<Item = f32>| row.zip(&mean).map(|(a, b)| a * b).sum::<f32>();
    let scores: Vec<f32> = if let Ok(table) = table.as_f32() {
        table.chunks_exact(channels).map(|row| dot(&mut row.iter().copied())).collect()
    } else {
        let table = table.as_f16().ok()?;
        table.chunks_exact(channels).map(|row| dot(&mut row.iter().map(|v| v.to_f32()))).collect()
    };
    Some(first(words, |index| -scores[index]))
}

/// The words that are spelt most like one of the prompt's.
pub fn closest_by_spelling(words: &[String], prompt: &str) -> Vec<String> {
    let prompt = plain(prompt);
    let scores: Vec<f32> = words
        .iter()
        .map(|word| {
            let word = plain(word);
            let length = word.chars().count().max(1) as f32;
            let distance = prompt.split(' ').map(|part| edits(part, &word)).min().unwrap_or(0);
            distance as f32 / length
        })
        .collect();
    first(words, |index| scores[index])
}

fn first(words: &[String], score: impl Fn(usize) -> f32) -> Vec<String> {
    let mut order: Vec<usize> = (0..words.len()).collect();
    order.sort_by(|&a, &b| score(a).total_cmp(&score(b)).then(a.cmp(&b)));
    order.into_iter().take(CLOSEST).map(|index| words[index].clone()).collect()
}

/// Lower case, one blank between runs of letters and digits.
fn plain(text: &str) -> String {
    let lower = text.to_lowercase();
    let parts = lower.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// Insertions, deletions and replacements between two words (Levenshtein 1965).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::pack::PackBuilder;

    fn words() -> Vec<String> {
        ["cat", "hot beverage", "apple", "guitar", "box"].map(str::to_owned).to_vec()
    }

    #[test]
    fn known_words_are_found_whole_and_in_the_plural() {
        for prompt in ["A CAT!", "two apples, flat", "a hot  beverage", "hot beverages", "boxes"] {
            assert!(knows_a_word(&words(), prompt), "{prompt}");
        }
        for prompt in ["catalogue", "a hot stove", "pineapple", ""] {
            assert!(!knows_a_word(&words(), prompt), "{prompt}");
        }
    }

    #[test]
    fn spelling_finds_the_word_that_was_meant() {
        assert_eq!(closest_by_spelling(&words(), "a red aple")[0], "apple");
        assert_eq!(closest_by_spelling(&words(), "gitarre")[0], "guitar");
        assert_eq!(closest_by_spelling(&[], "x"), Vec::<String>::new());
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn meaning_goes_by_the_packs_table() {
        let graph: Graph = serde_json::from_value(serde_json::json!({
            "name": "n", "values": [{"name": "x", "shape": [1, 4], "dtype": "f32"},
            {"name": "y", "shape": [1, 4], "dtype": "f32"}],
            "nodes": [{"name": "a", "op": "unary", "function": "relu", "inputs": [0], "output": 1}],
            "inputs": [0], "outputs": [1]
        }))
        .unwrap();
        let words: Vec<String> = ["cat", "dog"].map(str::to_owned).to_vec();
        let pack = PackBuilder::lone(graph)
            .f32(WORD_STATES, &[2, 2], &[1.0, 0.0, 0.0, 1.0])
            .open()
            .unwrap();
        let states = [0.1, 0.5, 0.2, 0.6, 9.0, 0.0];
        let closest = closest_by_meaning(&pack, &words, &states, 3, 2);
        assert_eq!(closest, Some(vec!["dog".to_owned(), "cat".to_owned()]));
        assert_eq!(closest_by_meaning(&pack, &words[..1], &states, 3, 2), None);
    }
}
