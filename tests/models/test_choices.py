"""Which tokens are the prompt's and which a choice's: lm-evaluation-harness's rule, and what it leaves open."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from models.choices import EncodedPrompt, encode_prompt
from models.guard import RenderedPrompt
from models.tokenizer import ChatTokenizer
from models.types import BadRequest

CONTROL = ("<s>", "<|end|>", "<|img|>")
# In this order: `bc` grows together before `ab` does, and blanks before what follows them.
MERGES = [("b", "c"), ("a", "b"), ("Ġ", "A"), ("Ġ", "Ġ"), ("y", "e"), ("ye", "s"), ("Ġ", "yes")]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer(written(tmp_path_factory.mktemp("tokenizer")), "<|img|>")


def written(folder: Path, *, bos: bool = False) -> Path:
    """Write a tokenizer of bytes with a few merges, `<s>` first if wanted."""
    words = [*CONTROL, *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    tokenizer = Tokenizer(BPE(vocab={word: place for place, word in enumerate(words)}, merges=MERGES))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL])
    if bos:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def words(text: ChatTokenizer, ids: list[int] | np.ndarray) -> list[str]:
    """Return tokens as they stand in the vocabulary."""
    return [str(text._tokenizer.id_to_token(int(i))) for i in ids]


def split(text: ChatTokenizer, prompt: str, *choices: str) -> tuple[list[str], list[list[str]]]:
    encoded = encode_prompt(text, RenderedPrompt((prompt,)), choices)
    return words(text, encoded.ids), [words(text, ids) for ids in encoded.choices]


def test_a_choice_has_the_tokens_behind_the_prompts_own(text: ChatTokenizer) -> None:
    prompt, choices = split(text, "?:", " A", " B", " yes", "yes")
    assert prompt == ["?", ":"]
    assert choices == [["ĠA"], ["Ġ", "B"], ["Ġyes"], ["yes"]]


def test_blanks_at_the_prompts_end_belong_to_every_choice(text: ChatTokenizer) -> None:
    assert split(text, "?: ", "A", " A", "\tA") == (["?", ":"], [["ĠA"], ["Ġ", "ĠA"], ["Ġ", "ĉ", "A"]])
    assert split(text, "?\n\n", "A") == (["?"], [["Ċ", "Ċ", "A"]])


def test_without_choices_a_prompt_keeps_its_blanks(text: ChatTokenizer) -> None:
    encoded = encode_prompt(text, RenderedPrompt(("?: ",)), ())
    assert words(text, encoded.ids) == ["?", ":", "Ġ"] and encoded.choices == ()


def test_a_choice_that_grows_into_the_prompt_is_tokenised_by_itself(text: ChatTokenizer) -> None:
    assert words(text, text.tokens(RenderedPrompt(("abc",)))) == ["a", "bc"]
    assert split(text, "ab", "c", "x") == (["ab"], [["c"], ["x"]])


def test_a_choice_that_would_vanish_in_the_prompts_tokens_is_tokenised_by_itself(text: ChatTokenizer) -> None:
    assert split(text, "b", "c") == (["b"], [["c"]])


@pytest.mark.parametrize("control", CONTROL)
def test_control_tokens_in_a_choice_are_plain_characters(text: ChatTokenizer, control: str) -> None:
    prompt, [choice, other] = split(text, "<s>?", control, f" A{control}")
    assert prompt == ["<s>", "?"]
    assert "".join(choice) == control and other[0] == "ĠA" and "".join(other[1:]) == control
    assert not {*choice, *other} & {*CONTROL}


@pytest.mark.parametrize("cut", range(1, len("<|img|>")))
def test_no_control_token_grows_over_the_seam(text: ChatTokenizer, cut: int) -> None:
    prompt, [choice] = split(text, "?" + "<|img|>"[:cut], "<|img|>"[cut:])
    assert "".join([*prompt, *choice]) == "?<|img|>" and not {*prompt, *choice} & {*CONTROL}


def test_data_in_the_prompt_stays_data(text: ChatTokenizer) -> None:
    guarded = encode_prompt(text, RenderedPrompt(("?", "<|img|>", ": ")), ["A"])
    assert "".join(words(text, guarded.ids)) == "?<|img|>:" and text.token_id("<|img|>") not in guarded.ids
    assert words(text, guarded.choices[0]) == ["ĠA"]


def test_what_belongs_before_a_prompt_is_the_prompts(tmp_path: Path) -> None:
    text = ChatTokenizer(written(tmp_path, bos=True), "<|img|>")
    encoded = encode_prompt(text, RenderedPrompt(("?",)), [" A"])
    assert words(text, encoded.ids) == ["<s>", "?"] and words(text, encoded.choices[0]) == ["ĠA"]
    told = encode_prompt(text, RenderedPrompt(("?",)), [" A"], bos=0)
    assert isinstance(told, EncodedPrompt) and told.ids == encoded.ids
    blank = encode_prompt(text, RenderedPrompt((" ",)), ["A"], bos=0)
    assert words(text, blank.ids) == ["<s>"] and words(text, blank.choices[0]) == ["ĠA"]


def test_ids_of_choices_are_int32(text: ChatTokenizer) -> None:
    assert [ids.dtype for ids in encode_prompt(text, RenderedPrompt(("?",)), [" A"]).choices] == [np.int32]


def test_a_choice_without_text_is_refused(text: ChatTokenizer) -> None:
    with pytest.raises(BadRequest, match="choice 1 is '', expected a text that may follow the prompt"):
        split(text, "?", " A", "")
    with pytest.raises(BadRequest, match="choice 0 is None, expected a text"):
        split(text, "?", None)


def test_choices_behind_no_prompt_are_refused(text: ChatTokenizer) -> None:
    with pytest.raises(BadRequest, match="the prompt is empty"):
        split(text, "  ", "A")
