"""What every family promises: company, order and restarts change no answer, and the room stands on its own.

A new family joins by an entry in FAMILIES of tests/tiny.py, without which a test fails.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from models import MODEL_TYPES, Answer, Family, Request, Sampling, ask, load_model, load_processor
from models.engine import Engine, Sequence, run_all
from models.types import BadRequest, CheckpointError
from tests.pictures import encoded
from tests.promise import answer_faults
from tests.tiny import FAMILIES

ROOT = Path(__file__).parents[2]


def test_every_family_is_held_to_its_promises() -> None:
    assert FAMILIES.keys() == set(get_args(Family)) == MODEL_TYPES.keys()


@pytest.fixture(scope="module", params=list(FAMILIES.values()), ids=list(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(request.param(tmp_path_factory.mktemp("checkpoint")))


def photograph(width: int, height: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def about(picture: bytes, question: str = "What is it?", key: str = "") -> Request:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return Request(key, [{"role": "user", "content": content}], images=[picture], sampling=Sampling(max_new_tokens=8))


def requests(temperature: float = 0.0, seed: int = 0) -> list[Request]:
    """Return requests with none, one and two images, of unlike lengths and limits."""
    made = []
    for i, sizes in enumerate([[], [(60, 40)], [(10, 50), (33, 33)], [(60, 40)], [(5, 5)], [], [(100, 30), (30, 100)]]):
        content = [{"type": "image"} for _ in sizes] + [{"type": "text", "text": "What is it? " * (i % 3 + 1)}]
        pictures = [photograph(*size, seed=i) for size in sizes]
        sampling = Sampling(max_new_tokens=4 + 3 * (i % 4), temperature=temperature, seed=seed + i)
        made.append(Request(f"row{i}", [{"role": "user", "content": content}], images=pictures, sampling=sampling))
    return made


def ids(answers: list[Answer]) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in answers]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_answers_as_its_rows_one_by_one(checkpoint: str, temperature: float) -> None:
    together = ask(checkpoint, requests(temperature), slots=3)
    alone = [ask(checkpoint, [request])[0] for request in requests(temperature)]
    assert answer_faults(together, alone) == []
    assert len(set(ids(together))) == len(together)


def test_answers_come_in_the_order_of_the_requests(checkpoint: str) -> None:
    forwards = ids(ask(checkpoint, requests(), slots=2))
    assert ids(ask(checkpoint, requests()[::-1], slots=2))[::-1] == forwards


@pytest.mark.parametrize("slots", [1, 2, 64])
def test_the_number_of_slots_changes_no_answer(checkpoint: str, slots: int) -> None:
    assert ids(ask(checkpoint, requests(1.0), slots=slots)) == ids(ask(checkpoint, requests(1.0)))


def test_a_seed_answers_alike_after_a_restart_and_another_differently(checkpoint: str) -> None:
    first = ids(ask(checkpoint, requests(1.0, seed=5)))
    assert ids(ask(checkpoint, requests(1.0, seed=5))) == first
    assert ids(ask(checkpoint, requests(1.0, seed=500))) != first


def test_every_emitted_id_has_its_log_probability(checkpoint: str) -> None:
    for answer in ask(checkpoint, requests(0.7)):
        assert len(answer.logprobs) == len(answer.token_ids)
        assert all(logprob <= 0 for logprob in answer.logprobs)
        assert 0 <= answer.image_tokens < answer.prompt_tokens


def test_a_picture_matters(checkpoint: str) -> None:
    first, second, again = ask(checkpoint, [about(photograph(40, 40, seed)) for seed in (1, 2, 1)])
    assert first.logprobs != pytest.approx(second.logprobs, abs=1e-3)
    assert first.token_ids == again.token_ids


def test_an_image_is_looked_at_once_however_many_questions_there_are_about_it(checkpoint: str) -> None:
    pictures = [photograph(40, 60, seed) for seed in range(3)]
    asked = [about(pictures[i % 3], f"Question {i}?") for i in range(12)]
    processor, model = load_processor(checkpoint), load_model(checkpoint, device="cpu")
    engine = Engine(model, slots=2, max_length=512)
    sequences = [Sequence("", processor.prepare(one), one.sampling, processor.stop_ids, None) for one in asked]
    run_all(engine, sequences)
    assert model.image_cache.num_encoded == 3
    together = [sequence.completion for sequence in sequences]
    assert [one and one.token_ids for one in together] == [ask(checkpoint, [one])[0].token_ids for one in asked]


def test_text_is_answered_alike_by_a_model_loaded_without_what_images_need(checkpoint: str) -> None:
    text = [request for request in requests() if not request.images]
    beside = about(photograph(20, 20, 1))
    assert ids(ask(checkpoint, text)) == ids(ask(checkpoint, [*text, beside]))[:-1]
    bare, whole = load_model(checkpoint, device="cpu", text_only=True), load_model(checkpoint, device="cpu")
    names = {name for name, _ in bare.named_parameters()}
    assert names < {name for name, _ in whole.named_parameters()}
    assert not [name for name in names if "vision" in name or "multi_modal" in name or "cross" in name]


def test_a_model_loaded_without_what_images_need_refuses_them(checkpoint: str) -> None:
    processor = load_processor(checkpoint, text_only=True)
    with pytest.raises(BadRequest, match="found 1 image, but a model loaded with text_only sees none"):
        processor.prepare(about(photograph(9, 9, 1)))


def choosing() -> list[Request]:
    """Return the requests with choices of one token, of several, of unlike lengths, with blanks and control tokens."""
    choices = [
        ("yes", "no"),
        (" circle", " triangle", " square"),
        ("A",),
        ("\n\nred", "green, not <|eot_id|> red", "A"),
    ]
    return [replace(one, choices=choices[i % 4]) for i, one in enumerate(requests(temperature=1.0))]


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_choices_are_scored_alike_alone_and_in_company(checkpoint: str, slots: int) -> None:
    mixed = [one for pair in zip(choosing(), requests(), strict=True) for one in pair]
    together = ask(checkpoint, mixed, slots=slots)
    assert answer_faults(together, [ask(checkpoint, [one])[0] for one in mixed]) == []
    for request, answer in zip(mixed, together, strict=True):
        assert len(answer.choice_logprobs) == len(answer.choice_tokens) == len(request.choices)
        if request.choices:
            best = max(range(len(request.choices)), key=answer.choice_logprobs.__getitem__)
            assert answer.text == request.choices[best].strip()
            assert sum(answer.logprobs) == pytest.approx(answer.choice_logprobs[best])
            assert (len(answer.token_ids), answer.finish_reason) == (answer.choice_tokens[best], "stop")


def test_a_choice_is_as_likely_as_when_its_tokens_are_forced_one_by_one(checkpoint: str) -> None:
    asked = Request(prompt="What color is it?", choices=(" red, green or blue",))
    [scored] = ask(checkpoint, [asked])
    given = load_processor(checkpoint, text_only=True).prepare(asked)
    [ids] = given.choices
    engine = Engine(load_model(checkpoint, device="cpu", text_only=True), slots=4, max_length=512)
    # Each token by itself, behind a prompt that holds those before it.
    forced = [
        replace(given, token_ids=np.concatenate((given.token_ids, ids[:place])), choices=(ids[place : place + 1],))
        for place in range(len(ids))
    ]
    sequences = [Sequence("", one, Sampling()) for one in forced]
    run_all(engine, sequences)
    one_by_one = [one.completion.logprobs[0] for one in sequences if one.completion is not None]
    assert scored.logprobs == pytest.approx(one_by_one, abs=1e-4) and len(ids) > 3


def test_equal_choices_are_equally_likely_and_the_first_is_the_answer(checkpoint: str) -> None:
    [answer] = ask(checkpoint, [Request(prompt="yes", choices=(" green", " red, red", " green", " red, red"))])
    assert answer.choice_logprobs[:2] == answer.choice_logprobs[2:]


def test_the_order_of_choices_says_nothing_about_them(checkpoint: str) -> None:
    choices = (" circle", " a square or a circle", " triangle", " a square")
    there, back = ask(checkpoint, [Request(prompt="It is", choices=some) for some in (choices, choices[::-1])])
    assert there.choice_logprobs == pytest.approx(back.choice_logprobs[::-1], abs=1e-4)
    assert there.text == back.text


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"choices": ("yes", "")}, r"request 0 \('bad'\): choice 1 is '', expected a text"),
        ({"choices": ("yes",), "grid": (2, 2)}, r"request 0 \('bad'\): found "),
        ({"choices": ("yes",), "sampling": Sampling(guidance_scale=2)}, "guidance_scale 2 without a grid"),
    ],
)
def test_choices_that_make_no_sense_are_refused(checkpoint: str, fault: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        ask(checkpoint, [replace(Request("bad", prompt="yes"), **fault)])


def sharing() -> list[Request]:
    """Return questions of which several begin with the same pictures, with the same text, or with both; some do not."""
    examples = "Is it a circle? yes. Is it a square? no. What color is it? red. " * 4
    made = []
    for i in range(14):
        pictures = [photograph(60, 40, seed) for seed in ([i % 2], [], [0, 1])[i % 3]]
        text = {"type": "text", "text": f"{examples if i % 5 else ''}Question {i}: {'what is it? ' * (i % 4)}"}
        messages = [{"role": "user", "content": [*({"type": "image"} for _ in pictures), text]}]
        sampling = Sampling(max_new_tokens=3 + i % 4, temperature=i % 2, seed=i)
        choices = (("A", "B"), ("a red circle", "a square", "green"))[i % 2] if i % 4 == 3 else ()
        shared = None if i == 8 else examples
        made.append(Request(f"row{i}", messages, images=pictures, sampling=sampling, choices=choices, shared=shared))
    return made


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_what_several_prompts_begin_with_is_read_once_and_changes_no_answer(checkpoint: str, slots: int) -> None:
    together, alone = ask(checkpoint, sharing(), slots=slots), [ask(checkpoint, [one])[0] for one in sharing()]
    for found, expected in zip(together, alone, strict=True):
        assert (found.token_ids, found.text) == (expected.token_ids, expected.text)
        assert found.logprobs == expected.logprobs  # bit for bit: this is what a cut must not change
        assert found.choice_logprobs == expected.choice_logprobs
    whole = ask(checkpoint, [replace(one, shared=None) for one in sharing()])
    assert answer_faults(together, whole) == []


@pytest.mark.parametrize("is_told", [True, False])
def test_a_beginning_goes_through_the_decoder_once_where_requests_tell_of_it(checkpoint: str, is_told: bool) -> None:
    examples = "Is it a circle? yes. Is it a square? no. " * 8
    asked = [about(photograph(60, 40, 1), f"{examples}Is it {i}?") for i in range(8)]
    processor, model = load_processor(checkpoint), load_model(checkpoint, device="cpu")
    inputs = [processor.prepare(replace(one, shared=examples if is_told else None)) for one in asked]
    sequences = [Sequence("", given, Sampling(max_new_tokens=4), processor.stop_ids) for given in inputs]
    engine = Engine(model, slots=3, max_length=512)
    run_all(engine, sequences)
    assert engine.num_asked == sum(one.prompt_length for one in sequences)
    assert engine.num_prefilled < 0.35 * engine.num_asked if is_told else engine.num_prefilled == engine.num_asked


def test_several_devices_answer_as_one(checkpoint: str) -> None:
    for asked in (choosing(), requests(), sharing()):
        several, one = (ask(checkpoint, asked, device=device) for device in (["cpu", "cpu"], "cpu"))
        assert answer_faults(several, one) == []


def test_no_requests_are_no_answers(checkpoint: str) -> None:
    assert ask(checkpoint, []) == []


def test_an_error_names_the_request(checkpoint: str) -> None:
    bad = about(b"not a picture", key="the-bad-row")
    with pytest.raises(BadRequest, match=r"request 2 \('the-bad-row'\): cannot decode"):
        ask(checkpoint, [*requests()[:2], bad])


def test_a_request_that_is_too_long_is_named_with_its_length(checkpoint: str) -> None:
    long = Request("long", prompt="What is it? " * 2000)
    with pytest.raises(BadRequest, match=r"request 1 \('long'\): the prompt has \d+ tokens .* max_length is 1024"):
        ask(checkpoint, [requests()[0], long])


def test_a_path_that_is_no_checkpoint_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        ask(str(tmp_path / "nowhere"), requests())
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        ask(str(tmp_path), requests())
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"says model_type 'llama'; expected one of aria, .*mllama"):
        ask(str(tmp_path), requests())


def run_alone(code: str) -> str:
    """Run code in a process that has loaded nothing, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_models_run_where_ray_pydantic_and_fsspec_are_not_installed(checkpoint: str) -> None:
    code = f"""
import sys
for name in ("ray", "pydantic", "fsspec", "s3fs", "pyarrow", "pandas", "transformers"):
    sys.modules[name] = None  # importing it fails
import models
answer, = models.ask({checkpoint!r}, [models.Request(prompt="yes", sampling=models.Sampling(max_new_tokens=2))])
print(len(answer.token_ids))
"""
    assert run_alone(code) in ("1", "2")


def test_a_model_is_checked_and_loaded_without_torchs_compiler(checkpoint: str) -> None:
    code = f"""
import sys
import models
models.check_weights({checkpoint!r})
models.load_model({checkpoint!r}, device="cpu")
print([name for name in ("torch._dynamo", "sympy", "triton") if name in sys.modules])
"""
    assert run_alone(code) == "[]"


def test_the_cpu_half_never_imports_torch(checkpoint: str) -> None:
    code = f"""
import sys
sys.modules["torch"] = None  # importing it fails
import models
from models.types import Completion
processor = models.load_processor({checkpoint!r})
model_input = processor.prepare(models.Request(prompt="yes"))
print(processor.to_answer(model_input, Completion(tuple(model_input.token_ids), (), "stop"), models.Sampling()).text)
"""
    assert run_alone(code) == "yes"
