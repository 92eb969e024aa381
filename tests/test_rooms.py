"""The three rooms import only downward, a CPU process never pays for torch, and the README tells the truth."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import distributions
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
ROOMS = ("models", "pipeline", "jobs")
TRAINING = "training"  # makes the demo's checkpoints; in a checkout only, and no room knows it
# What no file of a room may import, at its top or inside a function.
FORBIDDEN = {
    "models": {"pipeline", "jobs", "tests", TRAINING, "ray", "fsspec", "s3fs", "pydantic", "transformers", "pickle"},
    "pipeline": {"jobs", "tests", TRAINING, "torch", "transformers", "pickle"},
    "jobs": {"tests", TRAINING, "torch", "ray", "fsspec", "s3fs", "transformers", "pickle"},
    TRAINING: {"pipeline", "tests", "ray", "fsspec", "s3fs", "transformers", "pickle"},
}
# The rooms and files of the pipeline, from below: none imports one that stands after it.
PIPELINE = [
    "redaction", "settings", "storage", "input", "pipeline_settings", "job", "rows", "steps", "state", "results",
    "execution", "preflight", "run", "estimate", "retry", "verification", "verify",
]  # fmt: skip
FILES = [path.relative_to(ROOT) for room in (*ROOMS, TRAINING) for path in sorted((ROOT / room).rglob("*.py"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = README.split("## Where things live")[1].split("```")[1]

WITHOUT_TORCH = """
import sys
from models import load_processor
import models.types, models.images, models.tokenizer, models.aria.processor, models.emu3.processor, models.emu3.grid
load_processor("jobs/demo/checkpoints/aria")
load_processor("jobs/demo/checkpoints/mllama")
print([name for name in ("torch", "ray", "fsspec", "pydantic", "pyarrow") if name in sys.modules])
"""


def imported_modules(path: Path) -> Iterator[str]:
    """Give everything that a file imports, wherever in it; of `from a import b` both a and a.b, often a module."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import hides where it leads"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(path: Path) -> set[str]:
    """Give the first word of everything that a file imports."""
    return {name.split(".")[0] for name in imported_modules(path)}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_nothing_from_above_or_from_another_rooms_trade(path):
    assert imported(path) & FORBIDDEN[path.parts[0]] == set()


def test_the_wheel_holds_the_three_rooms_with_the_demos_checkpoints_and_no_training():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert sorted(build["targets"]["wheel"]["packages"]) == sorted(ROOMS)
    files = {Path(file.distribution_path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {path.parts[0] for path in files} == set(ROOMS)
    assert [path for path in files if TRAINING in path.parts] == []
    assert {path for path in FILES if path.parts[0] in ROOMS} <= files
    checkpoints = {path.parent.name for path in files if path.name == "model.safetensors"}
    assert checkpoints == {"aria", "mllama", "emu3"}


def test_every_room_of_the_pipeline_has_its_place_and_imports_none_above_it():
    files = [path for path in FILES if path.parts[0] == "pipeline" and len(path.parts) > 1 and path.stem != "__init__"]
    rooms = {path: path.parts[1].removesuffix(".py") for path in files}
    assert set(rooms.values()) == set(PIPELINE)
    wrong = [
        f"{path} imports {name}"
        for path, room in rooms.items()
        for name in imported_modules(path)
        if name.startswith("pipeline.") and PIPELINE.index(name.split(".")[1]) > PIPELINE.index(room)
    ]
    assert wrong == []


def test_jobs_come_to_the_pipeline_by_its_doors_and_the_pipeline_does_not():
    doors = {"pipeline", "pipeline.run", "pipeline.retry", "pipeline.verify", "pipeline.estimate"}
    trees = {path: ast.parse((ROOT / path).read_text(encoding="utf-8")) for path in FILES}
    used = {
        path: {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        for path, tree in trees.items()
    }
    jobs = {name for path, names in used.items() if path.parts[0] == "jobs" for name in names}
    assert {name for name in jobs if name.split(".")[0] == "pipeline"} <= doors
    assert [path for path, names in used.items() if path.parts[0] == "pipeline" and "pipeline" in names] == []


@pytest.mark.parametrize("room", (*ROOMS, TRAINING))
def test_no_modules_import_each_other_in_a_circle(room):
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    arrows = {
        name: {one for one in imported_modules(path) if one in modules} - {name} for name, path in modules.items()
    }
    below = TopologicalSorter({name: found for name, found in arrows.items() if name.split(".")[0] == room})
    assert len(list(below.static_order())) > 10  # raises CycleError, which names the circle


def test_a_cpu_actor_loads_no_torch_and_the_models_no_ray():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_costs_neither_ray_nor_torch():
    code = "import sys, jobs.__main__, jobs.arguments\njobs.arguments.command_parser()\n"
    code += "print('ray' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def listed() -> list[str]:
    """Give the paths of the README's tree; an indented name stands below the last folder less indented."""
    paths, above = [], [""]
    for line in TREE.strip().splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 2
        names = [name for name in re.split(r"\s{2,}", line.strip())[0].split(" ") if name]
        above = above[: depth + 1]
        paths += [f"{above[depth]}{name}" for name in names]
        above.append(f"{above[depth]}{names[0]}")
    return paths


def test_everything_in_the_readmes_tree_exists():
    assert len(listed()) > 40
    assert [path for path in listed() if not (ROOT / path).exists()] == []


def test_every_module_stands_in_the_readmes_tree():
    known = listed()
    files = [path.as_posix() for path in FILES if path.name != "__init__.py"]
    whole = [
        path
        for path in known
        if path.endswith("/") and not any(other.startswith(path) for other in known if other != path)
    ]
    missing = [path for path in files if path not in known and not path.startswith(tuple(whole))]
    assert missing == []


def test_the_readmes_yaml_fits_the_settings():
    import yaml

    from jobs.config import RunSettings
    from pipeline.settings import check_settings

    least = {"read": {"uri": "in"}, "model": {"path": "m"}, "write": {"uri": "out"}, "job": {"kind": "caption"}}
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        check_settings(RunSettings, {**least, **yaml.safe_load(block)}, block)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert len(README.splitlines()) <= 300
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert [link for link in links if not os.path.exists(ROOT / link)] == []


def test_the_map_names_every_file_of_the_pipeline_and_nothing_that_is_not_there():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = {path for path, _ in re.findall(r"`((?:jobs|pipeline|models)/[\w/.]+)(?:: ([\w.]+))?`", page)}
    assert len(named) > 30 and [path for path in named if not (ROOT / path).exists()] == []
    wrong = [
        f"{path}: {name}"
        for path, name in re.findall(r"`([\w/]+\.py): ([\w.]+)`", page)
        if not re.search(rf"(def|class) {name.split('.')[-1]}\b", (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert wrong == []
    room, listed_there = "", set()
    for cell, files in re.findall(r"^\| (`[\w/]+/`|top|) ?\| (`.+?`) \|", page, re.MULTILINE):
        room = cell.strip("`").replace("top", "") if cell else room
        listed_there |= {f"pipeline/{room}{name}" for name in re.findall(r"`([\w.]+)`", files)}
    files_there = {path.as_posix() for path in FILES if path.parts[0] == "pipeline" and path.name != "__init__.py"}
    assert listed_there == files_there


NAMED = re.compile(r"(?<![\w/])(?:jobs|pipeline|models|training|tests)/[\w/]+\.py\b")


def test_every_module_that_a_text_names_is_there():
    texts = [ROOT / path for path in FILES] + [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {(path.name, name) for path in texts for name in NAMED.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 50
    assert sorted((file, name) for file, name in named if not (ROOT / name).exists()) == []


def test_our_packages_are_found_before_any_other_of_their_names(tmp_path):
    if not any(found.name == "triptych" for found in distributions()):
        pytest.skip("triptych is not installed in this environment: pip install -e .")
    code = "import jobs, models.types, pipeline; print(jobs.__file__, models.__file__, pipeline.__file__)"
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [str(ROOT / room / "__init__.py") for room in ("jobs", "models", "pipeline")]
