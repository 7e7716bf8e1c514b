"""Captions: the sentences that people type, in the form "{prompt}, {style}"."""

from __future__ import annotations

import random

from .concepts import STYLE_WORDS, Concept

PLURAL_OR_MASS = {"bread", "bacon", "corn", "broccoli", "garlic", "popcorn", "sushi", "spaghetti", "pasta", "soup", "ramen", "salad", "milk",
                  "wine", "beer", "coffee", "chocolate", "candy", "cheese", "honey", "soda", "fire", "lightning", "rain", "snow", "poop",
                  "soap", "sunshine", "medicine", "fruit", "mail", "thumbs up", "thumbs down", "tennis", "bowling", "luggage", "yarn", "confetti",
                  "rugby", "badminton", "ice hockey", "hockey", "ping pong", "table tennis", "golf", "swimming", "surfing", "skiing",
                  "snowboarding", "meditation", "yoga", "coral", "wheat", "lettuce", "ginger", "meat", "beef", "butter", "salt", "rice", "curry",
                  "canned food", "chinese food", "pudding", "custard", "green tea", "tea", "champagne", "whiskey", "whisky", "juice", "wood",
                  "underwear", "sheet music", "film", "dna", "toilet paper", "nail polish", "fog", "mist", "wind", "stew", "falafel", "cereal",
                  "porridge", "santa claus", "dracula", "mount fuji", "statue of liberty", "chess", "cash", "money", "lavender", "grain",
                  "bamboo", "blood", "smoking", "recycling", "dynamite", "christmas", "karate", "judo", "lacrosse", "firewood",
                  "zzz", "cheers", "toast", "peace", "infinity", "poison", "applause"}
PLACE_PHRASES = {"small": ("small {}", "tiny {}"), "left": ("{} on the left",), "right": ("{} on the right",),
                 "top": ("{} at the top",), "bottom": ("{} at the bottom",), "whole": ("big {}", "large {}")}


def with_article(phrase: str, noun: str) -> str:
    """ "apple" -> "an apple", "glasses" -> "glasses": `noun` decides whether, the first letter of `phrase` which."""
    plural = noun.endswith("s") and not noun.endswith(("ss", "bus", "cactus", "octopus", "hibiscus", "walrus", "lotus", "minibus", "virus", "compass", "santa claus", "us"))
    if plural or noun in PLURAL_OR_MASS:
        return phrase
    vowel = phrase[0] in "aeio" or (phrase[0] == "u" and not phrase.startswith(("uni", "ufo", "use")))
    return f"{'an' if vowel else 'a'} {phrase}"


def name(concept: Concept, rng: random.Random) -> str:
    """One of the concept's names, mostly its word."""
    return concept.word if not concept.synonyms or rng.random() < 0.6 else rng.choice(concept.synonyms)


def style_suffix(style: str, rng: random.Random) -> str:
    """ ", flat" or another spelling. There is always one: plantain appends its default style to a prompt without."""
    usual, other = STYLE_WORDS[style]
    return f", {usual if rng.random() < 0.8 else other}"


def plain(concept: Concept, style: str, rng: random.Random) -> str:
    """The concept alone on white."""
    word = name(concept, rng)
    phrase = with_article(word, word) if rng.random() < 0.5 else word
    if rng.random() < 0.08:
        phrase += " on a white background"
    return phrase + style_suffix(style, rng)


def background(concept: Concept, style: str, colour: str, rng: random.Random) -> str:
    """The concept on a coloured ground."""
    word = name(concept, rng)
    phrase = with_article(word, word) if rng.random() < 0.5 else word
    return f"{phrase} on {with_article(colour, colour)} background" + style_suffix(style, rng)


def coloured(concept: Concept, style: str, colour: str, ground: str | None, rng: random.Random) -> str:
    """The concept in another colour, perhaps on a coloured ground."""
    noun = concept.noun
    phrase = f"{colour} {noun}"
    if rng.random() < 0.6:
        phrase = with_article(phrase, noun)
    if ground:
        phrase += f" on {with_article(ground, ground)} background"
    return phrase + style_suffix(style, rng)


def placed(concept: Concept, style: str, place: str, rng: random.Random) -> str:
    """The concept smaller, or off the middle."""
    phrase = rng.choice(PLACE_PHRASES[place]).format(concept.word)
    return (with_article(phrase, concept.word) if rng.random() < 0.6 else phrase) + style_suffix(style, rng)


def pair(left: Concept, right: Concept, style: str, rng: random.Random) -> str:
    """Two concepts side by side."""
    a, b = left.word, right.word
    if rng.random() < 0.7:
        a, b = with_article(a, a), with_article(b, b)
    joined = f"{a} and {b}" if rng.random() < 0.85 else f"{a} next to {b}"
    return joined + style_suffix(style, rng)
