"""The commented YAML files of configs/, which the wheel carries too: found by name, and written out to start from.

Nothing but paths and text, so `--help` stays quick.
"""

from collections.abc import Mapping
from pathlib import Path

# The one to start a job from.
OF_JOBS: Mapping[str, str] = {"caption": "caption_aria", "vqa": "vqa_aria", "synthesize": "synthesize_emu3"}


def starters() -> dict[str, Path]:
    """Return the files by their names, without `.yaml`."""
    carried = Path(__file__).parent / "configs"  # in a wheel; in a checkout they stand beside the rooms
    folder = carried if carried.is_dir() else Path(__file__).parent.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(config: str) -> str:
    """Return the file that `triptych run CONFIG` means: a path, else one of ours by its name or a job's.

    Raises:
        ConfigError: It is no file, and a word that is none of these names.
    """
    ours = starters()
    name = OF_JOBS.get(config, config)
    if Path(config).exists() or not config.isidentifier():
        return config
    if name not in ours:
        from pipeline import ConfigError, near  # not above: `--help` has no need of it

        hint = near(config, [*OF_JOBS, *ours]) or "; `triptych list configs` names ours"
        raise ConfigError("the command line", [f"run: found no file {config}, and none of our own of that name{hint}"])
    return str(ours[name])


def starter_text(name: str, to: str) -> str:
    """Return one of our files as it stands elsewhere: what it says to type names that place."""
    file = OF_JOBS.get(name, name)
    return starters()[file].read_text(encoding="utf-8").replace(f"configs/{file}.yaml", to)


def summary(path: Path) -> str:
    """Return the first sentence of a file's head."""
    head = path.read_text(encoding="utf-8").partition("\n#\n")[0].replace("\n# ", " ").removeprefix("# ")
    return head.split("\n")[0].partition(". ")[0].removesuffix(".") + "."
