"""In whatever order the codes of pictures stand in the vocabulary, Emu3 sees and draws what the reference does."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from models.emu3.vocabulary import Vocabulary, visual_token
from models.engine import Engine, run_all
from models.engine import Sequence as Answering
from models.types import Sampling
from tests.models.test_emu3 import FIRST, PAD, ROWS, SIZES, Size, drawing, drawn_by_reference, loaded, logits_of
from tests.models.test_emu3 import write_reference as write


@dataclass(frozen=True)
class Shuffled(Size):
    """A size whose codes have the ids of others."""

    @property
    def vocabulary(self) -> dict[str, int]:
        codes = self.vq["codebook_size"]
        order = np.random.default_rng(0).permutation(codes).tolist()
        return super().vocabulary | {visual_token(code): FIRST + order[code] for code in range(codes)}


SHUFFLED = Shuffled(SIZES["grouped_heads"].text, SIZES["grouped_heads"].vq)


def test_pictures_are_seen_as_the_reference_sees_them(tmp_path: Path) -> None:
    reference, ours = write(tmp_path, SHUFFLED), loaded(tmp_path)
    sequences = [Answering("", row.ours(SHUFFLED), Sampling(max_new_tokens=8)) for row in ROWS]
    run_all(Engine(ours, slots=2, max_length=128), sequences)
    for row, sequence in zip(ROWS, sequences, strict=True):
        inputs = row.theirs(SHUFFLED)
        with torch.inference_mode():
            expected = reference(**inputs).logits[0]
            out = reference.generate(**inputs, do_sample=False, max_new_tokens=8, eos_token_id=None, pad_token_id=PAD)
        torch.testing.assert_close(logits_of(ours, row.ours(SHUFFLED)), expected, atol=1e-4, rtol=1e-4)
        assert sequence.token_ids == out[0, inputs["input_ids"].shape[1] :].tolist()


def test_pictures_are_drawn_as_the_reference_draws_them(tmp_path: Path) -> None:
    reference, ours = write(tmp_path, SHUFFLED), loaded(tmp_path)
    drawn = [drawing([10, 11], (3, 4), 3.0), drawing([13, 14, 15], (5, 3), 1.5)]
    run_all(Engine(ours, slots=4, max_length=128), drawn)
    for one in drawn:
        rows, columns = one.model_input.layout
        assert one.token_ids == drawn_by_reference(reference, SHUFFLED, one)
        ids = torch.tensor([one.token_ids])
        lines = ids[:, :-3].view(-1, rows, columns + 1)
        expected = reference.model.vocabulary_mapping.convert_bpe2img(lines)[0]
        vocabulary = ours.config.vocabulary
        assert vocabulary is not None and vocabulary.places is not None
        codes = vocabulary.codes_of(lines[0, :, :-1].numpy())
        assert codes.tolist() == expected.tolist()
        assert codes.tolist() != (lines[0, :, :-1] - FIRST).tolist()
        with torch.inference_mode():
            pixels = reference.model.decode_image_tokens(ids, height=rows, width=columns)[0]
        levels = ((pixels * 0.5 + 0.5) * 255).clamp(0, 255).permute(1, 2, 0)
        painted = ours.decode_picture(one.model_input.layout, one.token_ids)
        assert np.abs(painted - levels.numpy()).max() < 1 + 1e-3  # cut off to whole levels


@pytest.mark.parametrize("places", [None, (0, 1, 2, 3, 4, 5), (3, 5, 0, 1, 4, 2)])
def test_a_code_comes_back_from_its_id(places: tuple[int, ...] | None) -> None:
    vocabulary = Vocabulary(40, 6, 1, 2, 3, 4, 5, 6, places)
    ids = np.array([[40 + place for place in places or range(6)]] * 2)
    assert vocabulary.codes_of(ids).tolist() == [list(range(6))] * 2
