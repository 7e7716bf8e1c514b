//! What pruning draws: pictures to learn from, texts beside them, and pictures to be judged by.

use std::collections::BTreeSet;

use plantain::pipeline::PipelineSpec;

use crate::chain::Request;
use crate::packing::phrase;

/// What a prompt says around its word; one word alone is the usual case.
const FORMS: [&str; 6] =
    ["{}", "a {colour} {word}", "{}", "{} and {other}", "{}", "{} on a {colour} background"];
/// Colours that any model may know.
const COLOURS: [&str; 7] = ["red", "blue", "green", "yellow", "purple", "black", "white"];
/// With fewer prompts than this none is kept apart, and the same ones are judged by from other noise.
const PROMPTS_APART_MIN: usize = 16;
/// Of more, one in so many is kept apart.
const APART_EVERY: usize = 8;
/// Texts for each word that are encoded but not drawn: a text encoder has few rows a picture.
const TEXTS_PER_WORD: usize = 3;
/// Texts at most.
const TEXTS_MAX: usize = 3000;

/// What is drawn and encoded.
pub struct Requests {
    /// Seeds from 0.
    pub calibration: Vec<Request>,
    /// As they are encoded.
    pub texts: Vec<String>,
    /// None of the prompts and texts above, unless there are too few.
    pub held: Vec<Request>,
}

/// Makes requests from named prompts, or from the model's own words, in all styles.
pub fn requests(spec: &PipelineSpec, prompts: &[String], count: usize, held: usize) -> Requests {
    let request = |style: usize, prompt: &str, seed: usize| {
        let style = spec.styles.get(style % spec.styles.len().max(1));
        Request::new(spec, prompt, style.map(|style| style.name.as_str()), seed as u64)
    };
    // Each time that a prompt comes again it meets another style.
    let turn = |index: usize, all: usize| index + index / all.max(1);
    if !prompts.is_empty() || spec.words.is_empty() {
        let apart = prompts.len() >= PROMPTS_APART_MIN;
        let fits = |i: usize, held: bool| !apart || (i % APART_EVERY == APART_EVERY - 1) == held;
        let some = |held: bool, from: usize, count: usize| -> Vec<Request> {
            let numbered = prompts.iter().enumerate().filter(|(i, _)| fits(*i, held));
            let some: Vec<&String> = numbered.map(|(_, prompt)| prompt).collect();
            let numbers = (from..from + count).filter(|_| !some.is_empty());
            let request = |i: usize| request(turn(i, some.len()), some[i % some.len()], i);
            numbers.map(request).collect()
        };
        let (calibration, held) = (some(false, 0, count), some(true, count, held));
        return Requests { calibration, texts: Vec::new(), held };
    }
    let words = &spec.words;
    let own = |index: usize, word: usize| {
        request(turn(index, words.len()), &sentence(words, word % words.len(), index), index)
    };
    // All words in turn, or, if there are more than pictures, evenly chosen ones.
    let word = |i: usize| if count < words.len() { i * words.len() / count } else { i };
    let calibration: Vec<Request> = (0..count).map(|i| own(i, word(i))).collect();
    let mut known: BTreeSet<String> = calibration.iter().map(|r| r.prompt.clone()).collect();
    let step = (words.len() / held.max(1)).max(1);
    let fresh = (0..16 * held).map(|i| own(count + i, i * step));
    let held: Vec<Request> = fresh.filter(|r| !known.contains(&r.prompt)).take(held).collect();
    known.extend(held.iter().map(|request| request.prompt.clone()));
    let texts = (TEXTS_PER_WORD * words.len()).min(TEXTS_MAX);
    // Numbers that no picture has.
    let texts = (0..texts).map(|i| own(2 * count + 16 * held.len() + i, i).prompt);
    let texts = texts.filter(|text| !known.contains(text)).collect();
    Requests { calibration, texts, held }
}

/// A sentence about a word, or about two; which depends on the number.
fn sentence(words: &[String], word: usize, number: usize) -> String {
    // Fibonacci hashing.
    let hash = |n: usize| ((n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize;
    FORMS[hash(number * 3 + 1) % FORMS.len()]
        .replace("{}", &phrase(&words[word]))
        .replace("{word}", &words[word])
        .replace("{other}", &phrase(&words[hash(number * 7 + 3) % words.len()]))
        .replace("{colour}", COLOURS[hash(number * 5 + 2) % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_differ_and_have_every_form() {
        let words: Vec<String> = (0..50).map(|i| format!("w{i}")).collect();
        let said: Vec<String> = (0..300).map(|index| sentence(&words, index % 50, index)).collect();
        let different: BTreeSet<&String> = said.iter().collect();
        assert!(different.len() > 150, "{}", different.len());
        assert!(said.iter().any(|s| s.contains(" and a w")), "{said:?}");
        assert!(said.iter().any(|s| s.ends_with(" background")));
        assert!(said.iter().all(|s| !s.contains('{')), "{said:?}");
    }
}
