"""What is wrong with a run's settings is said before anything starts, in the words of the setting."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import ledger
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight import Ready, check
from pipeline.settings import ConfigError, check_settings, dump_settings
from pipeline.storage import Store
from tests.end_to_end.shards import write_shards
from tests.pipeline.toys import ToyJob
from tests.tiny import tiny_mllama


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mllama of two tiles at most."""
    return tiny_mllama(tmp_path_factory.mktemp("mllama"), vision={"max_num_tiles": 2}, images={"max_image_tiles": 2})


def settings(tmp_path: Path, checkpoint: Path, **sections: dict[str, Any]) -> PipelineSettings:
    shards = write_shards(tmp_path / "in", shards=1, rows=4)
    values: dict[str, Any] = {
        "read": {"uri": str(shards)},
        "model": {"path": str(checkpoint)},
        "write": {"uri": str(tmp_path / "out"), "unit_rows": 4},
    }
    return check_settings(
        PipelineSettings, values | {name: values.get(name, {}) | section for name, section in sections.items()}
    )


def checked(settings: PipelineSettings) -> Ready:
    return check(settings, ToyJob(required=()), Store(settings.write.uri))


def fault(settings: PipelineSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        checked(settings)
    (found,) = caught.value.faults
    return found


def test_more_tiles_than_the_checkpoint_takes_are_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    asked = settings(tmp_path, checkpoint, preprocess={"max_image_tiles": 4})
    assert "max_image_tiles is 4; expected 1 to 2" in fault(asked)
    assert checked(settings(tmp_path, checkpoint, preprocess={"max_image_tiles": 2})).units[0].num_rows == 4


def test_an_image_setting_of_another_family_is_a_fault(tmp_path: Path, checkpoint: Path) -> None:
    asked = settings(tmp_path, checkpoint, preprocess={"max_image_size": 490})
    assert "max_image_size is 490, but Mllama has no such image setting" in fault(asked)


def test_text_only_needs_nothing_that_images_need(tmp_path: Path, checkpoint: Path) -> None:
    blind = Path(shutil.copytree(checkpoint, tmp_path / "blind"))
    (blind / "preprocessor_config.json").unlink()
    assert "does not say how images are prepared" in fault(settings(tmp_path, blind))
    assert checked(settings(tmp_path, blind, model={"text_only": True})).units


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("preprocess", {"today": "2031-03-02"}, "preprocess.today: was '2024-07-26', now '2031-03-02'"),
        ("preprocess", {"max_image_tiles": 1}, "preprocess.max_image_tiles: was nothing, now 1"),
        ("model", {"text_only": True}, "model.text_only: was False, now True"),
    ],
)
def test_a_run_is_not_gone_on_with_settings_that_change_its_prompts(
    tmp_path: Path, checkpoint: Path, section: str, change: dict[str, Any], said: str
) -> None:
    begun = settings(tmp_path, checkpoint)
    frozen = {"settings": dump_settings(begun), "weights": "w"}
    ledger.refuse_other_answers(frozen, dump_settings(begun), "w", "out")
    with pytest.raises(ConfigError) as caught:
        now = dump_settings(settings(tmp_path, checkpoint, **{section: change}))
        ledger.refuse_other_answers(frozen, now, "w", "out")
    assert caught.value.faults[0] == said
