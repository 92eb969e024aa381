"""A run may have texts cut into words as the original authors' tokenizer cuts them; else they are cut as ever."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import regex
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from models import Request, load_processor
from models.types import Processor
from tests.models.reference import picture, user
from tests.pictures import encoded
from training.emu3 import files as emu3

# As the authors' published file has it, tokenization_emu3.py.
THEIRS = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DECOMPOSED = unicodedata.normalize("NFD", "Grün é")
# Words that both cut alike, and words that they do not.
ALIKE = ("What is it?", "it's  red", "a red circle ", "")
UNLIKE = ("2020", "(red)", "a-red", "it'S it'RE", DECOMPOSED, "Why?\n\n \n red")
OTHERS = (
    "\n\n  red\r\n\tred \n",
    "赤い 円、2020年!",
    "a\u00a0b ½ ² 𝟙",
    "🙂🙂red",
    "'LL 'd'x",
    "\u212b K\u0301",
    "red.\n\nred",
)
SPANNING = (("(", "red"), ("-", "red"), ("'", "S"), ("?", "Ċ"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emu3")
    emu3.write_files(folder, ["What is it? red 2020 Grün é" for _ in range(9)], num_codes=8)
    taught = teach(json.loads((folder / "tokenizer.json").read_text()))
    (folder / "tokenizer.json").write_text(json.dumps(taught))
    return folder


def teach(content: dict[str, Any]) -> dict[str, Any]:
    """Put tokens that reach from a sign into a word in the last ones' place: of the file's words none has such."""
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    ids = [vocabulary.pop("".join(merges.pop())) for _ in SPANNING]
    merges += [list(pair) for pair in SPANNING]
    vocabulary |= {"".join(pair): id_ for pair, id_ in zip(SPANNING, ids, strict=True)}
    return content


def processor(folder: Path, tokenizer: Any) -> Processor:
    return load_processor(str(folder), tokenizer=tokenizer)


def ids_of(folder: Path, tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = processor(folder, tokenizer).prepare(Request(prompt=text)).token_ids.tolist()
    return ids[1:]


def as_theirs(folder: Path, text: str) -> list[int]:
    """Cut a text with another library, and let the tokenizer see one word at a time."""
    bare = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bare.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    words = THEIRS.findall(unicodedata.normalize("NFC", text))
    return [i for word in words for i in bare.encode(word).ids]


@pytest.mark.parametrize("text", [*ALIKE, *UNLIKE, *OTHERS], ids=repr)
def test_the_authors_tokenizer_cuts_words_by_their_rule(folder: Path, text: str) -> None:
    assert ids_of(folder, "baai", text) == as_theirs(folder, text)


@pytest.mark.parametrize("text", [*ALIKE, *UNLIKE, *OTHERS], ids=repr)
def test_the_checkpoints_tokenizer_is_taken_as_it_is(folder: Path, text: str) -> None:
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    assert ids_of(folder, "checkpoint", text) == expected


@pytest.mark.parametrize("text", [*ALIKE, *UNLIKE], ids=repr)
def test_some_words_become_other_tokens(folder: Path, text: str) -> None:
    assert (ids_of(folder, "checkpoint", text) == ids_of(folder, "baai", text)) == (text in ALIKE)


def test_characters_are_composed_as_the_authors_compose_them(folder: Path) -> None:
    composed = unicodedata.normalize("NFC", DECOMPOSED)
    assert composed != DECOMPOSED
    assert ids_of(folder, "baai", DECOMPOSED) == ids_of(folder, "baai", composed)
    assert ids_of(folder, "checkpoint", DECOMPOSED) != ids_of(folder, "checkpoint", composed)


def test_control_tokens_are_what_they_are_to_both(folder: Path) -> None:
    known = json.loads((folder / "config.json").read_text())["vocabulary_map"]
    images = [encoded(picture(48, 48))]
    for words in ("Is it 2020?", f"Is {emu3.IMAGE_START} a-red?"):
        asked = Request(messages=user(words, 1), images=images)
        own, theirs = (processor(folder, name).prepare(asked) for name in ("checkpoint", "baai"))
        assert own.token_ids.tolist() != theirs.token_ids.tolist()
        for token in (*emu3.SPECIAL, *map(emu3.visual_token, range(8))):
            assert (own.token_ids == known[token]).sum() == (theirs.token_ids == known[token]).sum()
        assert (own.prompt, own.layout, own.image_tokens) == (theirs.prompt, theirs.layout, theirs.image_tokens)
    drawn = processor(folder, "baai").prepare(Request(prompt="(red) 2020", grid=(12, 34))).token_ids.tolist()
    size = [known[emu3.IMAGE_START], *(known[sign] for sign in "12*34"), known[emu3.IMAGE_TOKEN]]
    assert drawn == [known[emu3.BEGIN], *as_theirs(folder, "(red) 2020"), *size]
