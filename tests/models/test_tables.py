"""The tables with a row for each token: tied ones, grown ones, and tokens that have no row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models import Family, Request, ask, check_weights, load_model, load_processor
from models.engine import Engine, run_all
from models.engine import Sequence as Answering
from models.token_ids import refuse_unknown_tokens
from models.types import BadRequest, CheckpointError, ModelInput, Sampling
from models.weight_files import WeightsError
from tests.models import mllama_reference, reference, test_emu3
from tests.models.mllama_ours import generated, logits_of, rows_with_left_context
from tests.models.mllama_sizes import SIZES
from tests.tiny import FAMILIES, save_tensors

ARIA = reference.Size(reference.TEXT, reference.VISION, {25: 4, 100: 8}, canvas=140, shortest=28)
MLLAMA = SIZES["released_in_small"]
EMU3 = test_emu3.SIZES["grouped_heads"]
WRITE: dict[Family, Callable[[Path], Any]] = {
    "aria": lambda folder: reference.write_reference(folder, ARIA),
    "mllama": lambda folder: mllama_reference.write_reference(folder, MLLAMA),
    "emu3": lambda folder: test_emu3.write_reference(folder, EMU3),
}
IDS = [3, 5, 8, 13, 21, 34, 55]


@torch.inference_mode()
def scores(model: Any) -> Tensor:
    """Return our scores (T, V) after every token of a text."""
    out: Tensor = model.logits(model.decode(model.embed(torch.tensor([IDS]))))[0]
    return out


@torch.inference_mode()
def reference_scores(model: Any) -> Tensor:
    out: Tensor = model(torch.tensor([IDS])).logits[0]
    return out


def answer(model: Any, num_tokens: int) -> list[int]:
    sequence = Answering("", ModelInput("", np.array(IDS, np.int32)), Sampling(max_new_tokens=num_tokens))
    run_all(Engine(model, slots=1, max_length=len(IDS) + num_tokens), [sequence])
    assert sequence.error is None
    return sequence.token_ids


def say(folder: Path, section: str | None = None, **fields: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    part = config if section is None else config[section]
    part |= fields
    path.write_text(json.dumps(config))


def tables(folder: Path) -> tuple[dict[str, Tensor], str, str]:
    """Return the tensors of a folder, and the names of its embeddings and its head."""
    tensors = load_file(folder / "model.safetensors")
    [read] = [name for name in tensors if name.endswith("embed_tokens.weight")]
    return tensors, read, read.replace("model.embed_tokens", "lm_head")


@pytest.mark.parametrize("section", [None, "text_config"])
@pytest.mark.parametrize("lost", ["head", "embeddings"])
def test_of_tied_tables_one_is_enough(family: Family, tmp_path: Path, section: str | None, lost: str) -> None:
    model = WRITE[family](tmp_path)
    tensors, read, head = tables(tmp_path)
    kept, gone = (read, head) if lost == "head" else (head, read)
    tensors.pop(gone)
    if family == "mllama":  # of 128 embeddings and 120 rows of the head; the reference no longer ties them itself
        tensors[kept] = tensors[kept][:120].clone()
    save_tensors(tmp_path, tensors)
    shared = torch.nn.Parameter(tensors[kept])
    model.get_input_embeddings().weight = model.lm_head.weight = shared
    with pytest.raises(WeightsError, match=rf"nothing or too little for {gone}"):
        check_weights(str(tmp_path))
    say(tmp_path, section, tie_word_embeddings=True)
    ours = load_model(str(tmp_path), device="cpu")
    torch.testing.assert_close(scores(ours), reference_scores(model), atol=1e-4, rtol=1e-4)
    ids = torch.tensor([IDS])
    assert answer(ours, 12) == reference.greedy(model, {"input_ids": ids, "attention_mask": ids * 0 + 1}, 12)[0]


def test_what_the_reference_saves_of_tied_tables_is_the_same_model(tmp_path: Path) -> None:
    model = WRITE["aria"](tmp_path)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    tensors, _, head = tables(tmp_path)
    assert head not in tensors
    torch.testing.assert_close(
        scores(load_model(str(tmp_path), device="cpu")), reference_scores(model), atol=1e-4, rtol=1e-4
    )


def test_a_head_that_is_not_stored_is_missed_where_nothing_says_that_it_is_tied(tmp_path: Path) -> None:
    WRITE["aria"](tmp_path)
    tensors, _, head = tables(tmp_path)
    tensors.pop(head)
    save_tensors(tmp_path, tensors)
    with pytest.raises(WeightsError, match=r"lm_head\.weight is not stored, and config\.json does not say `tie_word"):
        load_model(str(tmp_path), device="cpu")


def test_two_stored_tables_are_two_whatever_config_json_says(tmp_path: Path) -> None:
    model = WRITE["aria"](tmp_path)
    say(tmp_path, tie_word_embeddings=True)
    again = type(model).from_pretrained(tmp_path, attn_implementation="eager", experts_implementation="eager")
    expected = reference_scores(again)
    torch.testing.assert_close(expected, reference_scores(model))
    torch.testing.assert_close(scores(load_model(str(tmp_path), device="cpu")), expected, atol=1e-4, rtol=1e-4)


def test_tied_tables_share_their_memory_on_one_device_and_are_two_on_several(tmp_path: Path) -> None:
    WRITE["aria"](tmp_path)
    tensors, _, head = tables(tmp_path)
    tensors.pop(head)
    save_tensors(tmp_path, tensors)
    say(tmp_path, tie_word_embeddings=True)
    model = load_model(str(tmp_path), device="cpu", dtype="float16").decoder
    assert model.lm_head.plain_weight().data_ptr() == model.model.embed_tokens.weight.data_ptr()
    spread = load_model(str(tmp_path), device=["cpu", "meta"], dtype="float16").decoder
    assert [spread.model.embed_tokens.weight.device.type, spread.lm_head.weight.device.type] == ["cpu", "meta"]


@pytest.mark.parametrize("rows", [1, 8])
def test_a_mllama_whose_head_was_grown_as_its_document_shows_writes_images_too(tmp_path: Path, rows: int) -> None:
    """The reference saves such a model and cannot load it again: what it computes in memory is what is meant."""
    model = WRITE["mllama"](tmp_path)
    grown = model._get_resized_lm_head(model.get_output_embeddings(), new_num_tokens=120 + rows)
    with torch.no_grad():
        grown.weight[MLLAMA.image] = 1.3 * grown.weight[7]  # or no text would have the image's token
    model.set_output_embeddings(grown)
    model.save_pretrained(tmp_path)
    say(tmp_path, "vision_config", intermediate_layers_indices=MLLAMA.vision["intermediate_layers_indices"])
    ours = load_model(str(tmp_path), device="cpu")
    texts = rows_with_left_context(MLLAMA)[3:5]
    for row in texts:
        with torch.inference_mode():
            expected = model(**mllama_reference.batch([row], MLLAMA)).logits[0]
        assert expected.shape[-1] == 120 + rows
        torch.testing.assert_close(logits_of(ours, row, MLLAMA), expected, atol=1e-4, rtol=1e-4)
    answers = generated(ours, texts, MLLAMA, 40)
    assert answers == [mllama_reference.greedy(model, mllama_reference.batch([row], MLLAMA), 40)[0] for row in texts]
    assert any(MLLAMA.image in one for one in answers)


@pytest.mark.parametrize("rows", [3, 16])
def test_resized_tables_are_the_same_model(family: Family, tmp_path: Path, rows: int) -> None:
    """Of Mllama both then have one number of rows, and the reference, which expects 8 more, cannot load it again."""
    model = WRITE[family](tmp_path)
    before = model.config.text_config.vocab_size
    model.resize_token_embeddings(before + rows, mean_resizing=False)
    model.save_pretrained(tmp_path)
    tensors, read, head = tables(tmp_path)
    assert len(tensors[read]) == len(tensors[head]) == before + rows
    expected = reference_scores(model)
    assert check_weights(str(tmp_path)).num_tokens == before + rows
    torch.testing.assert_close(scores(load_model(str(tmp_path), device="cpu")), expected, atol=1e-4, rtol=1e-4)
    say(tmp_path, "text_config", vocab_size=before)  # as where only the weights were grown
    torch.testing.assert_close(scores(load_model(str(tmp_path), device="cpu")), expected, atol=1e-4, rtol=1e-4)


def test_rows_that_cannot_be_are_refused(tmp_path: Path) -> None:
    WRITE["aria"](tmp_path)
    tensors, read, head = tables(tmp_path)
    for name, table, told in (
        (
            head,
            torch.zeros(121, 48),
            r"lm_head\.weight has 121 rows and .*embed_tokens\.weight 120, expected one",
        ),
        (head, torch.zeros(119, 48), r"lm_head\.weight is \(119, 48\) on disk but \(120, 48\) here"),
        (read, torch.zeros(119, 48), r"embed_tokens\.weight is \(119, 48\) on disk but \(120, 48\) here"),
        (read, torch.zeros(130, 47), r"embed_tokens\.weight is \(130, 47\) on disk but \(120, 48\) here"),
    ):
        save_tensors(tmp_path, tensors | {name: table})
        with pytest.raises(WeightsError, match=told):
            check_weights(str(tmp_path))


@pytest.fixture(scope="module")
def tiny(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[family](tmp_path_factory.mktemp(family))


def add_token(folder: Path, id_: int) -> None:
    """Give a tokenizer a token that the weights do not know."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["model"]["vocab"]["<new>"] = id_
    content["added_tokens"].append({"id": id_, "content": "<new>", "special": True, **flags})
    path.write_text(json.dumps(content), encoding="utf-8")


def refuse(folder: Path) -> None:
    refuse_unknown_tokens(folder, load_processor(str(folder)), check_weights(str(folder)).num_tokens)


def test_a_token_that_the_weights_do_not_know_is_the_error_of_the_request_that_has_it(tiny: Path) -> None:
    refuse(tiny)
    rows = check_weights(str(tiny)).num_tokens
    add_token(tiny, rows)
    refuse(tiny)  # no prompt has it but that of whoever writes it
    told = rf"request 1 \('b'\): the prompt has the token id {rows}, but the checkpoint's embedding table has {rows} "
    with pytest.raises(BadRequest, match=told):
        ask(str(tiny), [Request(prompt="yes"), Request(key="b", prompt="yes <new>")], device="cpu")
    # In a message it is text.
    message = {"role": "user", "content": [{"type": "text", "text": "yes <new>"}]}
    assert ask(str(tiny), [Request(messages=[message], sampling=Sampling(max_new_tokens=1))], device="cpu")


def test_a_token_of_the_template_that_the_weights_do_not_know_is_found_before_anything_starts(
    family: Family, tmp_path: Path
) -> None:
    folder = FAMILIES[family](tmp_path)
    rows = check_weights(str(folder)).num_tokens
    add_token(folder, rows)
    for name in ("chat_template.json", "chat_template.jinja", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        content = path.read_text(encoding="utf-8")
        if name.endswith("json"):
            loaded = json.loads(content)
            if "chat_template" in loaded:
                path.write_text(json.dumps(loaded | {"chat_template": "<new>" + loaded["chat_template"]}))
        else:
            path.write_text("<new>" + content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"prompts have the token '<new>' \(id {rows}\), but the embedding"):
        refuse(folder)


def test_a_tokenizer_of_another_model_is_found_before_anything_starts(family: Family, tmp_path: Path) -> None:
    folder = FAMILIES[family](tmp_path)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocab = content["model"]["vocab"]
    known = {one["content"] for one in content["added_tokens"]}
    word = max((token for token in vocab if token not in known), key=len)
    vocab[word] = check_weights(str(folder)).num_tokens + 2
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf" have the token .* \(id {vocab[word]}\), but the embedding table"):
        refuse(folder)


def test_a_checkpoint_whose_answers_could_not_end_is_refused(family: Family, tmp_path: Path) -> None:
    folder = FAMILIES[family](tmp_path)
    rows = check_weights(str(folder)).num_tokens
    say(folder, eos_token_id=[rows, rows + 1])
    processor = load_processor(str(folder))
    processor.stop_ids = frozenset({rows, rows + 1})  # without the family's own end of a turn, as of a base model
    with pytest.raises(CheckpointError, match=rf"no answer would end: the ids that end one are {rows}, {rows + 1}, of"):
        refuse_unknown_tokens(folder, processor, rows)
