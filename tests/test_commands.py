"""Every command that our pages and YAML files show is one, and is run: here as it is typed, or where this file says.

A new command fails these tests until it stands in one of the lists below. `ON_A_STORE` and `IN_A_FOLDER` are run as
they are typed: the first on outputs that stand in a bucket called `bucket` of a real S3 server, the second in a folder
that holds what they name. `ON_RAY` waits for `pytest -m ray`. `ELSEWHERE` says why a command is not run as it is typed,
and what runs its like.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import COMMANDS, main
from jobs.arguments import parse
from jobs.config import RunSettings
from jobs.preset import resolve_presets
from jobs.settings_help import all_settings
from jobs.starters import find_config
from pipeline.settings import check_settings, load_settings, read_values
from pipeline.storage.store import Store
from tests import s3 as s3_server
from tests.end_to_end.shards import png, write_shards
from tests.jobs.benchmark_folders import HUB_IMAGE, hub_image, write_parquet
from tests.jobs.benchmark_rows import ROWS
from tests.jobs.scored import rows, write_scored
from tests.pipeline.outputs import leave_output, settings_of

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "tests/benchmarks/README.md",
    *sorted((ROOT / "jobs").rglob("*.md")),
]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PROGRAMS = ("triptych", "make", "pip", "pytest", "python", "ray", "export", "eval", "bash")

ON_A_STORE = [
    "triptych score s3://bucket/evaluations/docvqa --rule infovqa_val=vqa/m4c --to s3://bucket/evaluations/docvqa_m4c",
    "triptych compare s3://bucket/evaluations/before s3://bucket/evaluations/after --threshold -0.01",
    "triptych submit s3://bucket/evaluations/docvqa docvqa_test.json --benchmark docvqa_test",
    "triptych status s3://bucket/evaluations/docvqa --watch",
    "triptych report s3://bucket/evaluations/docvqa",
    "triptych verify s3://bucket/evaluations/docvqa",
    "triptych verify s3://bucket/captions",
    "triptych verify s3://bucket/captions --json",
    "triptych verify s3://bucket/captions model.device=cpu read.storage.endpoint_url=http://…",
    "triptych report s3://bucket/captions write.storage.endpoint_url=http://minio:9000",
    "triptych retry s3://bucket/captions write.storage.endpoint_url=http://minio:9000 read.storage.region=eu-west-1",
    "triptych retry s3://bucket/captions",
    "triptych export s3://bucket/captions --to s3://bucket/photos --as metadata",
    "triptych score answers.jsonl --data s3://bucket/benchmarks/pope --benchmark pope --to pope_scored",
    "triptych view s3://bucket/evaluations/docvqa",
]
IN_A_FOLDER = [
    "triptych init caption --to mine.yaml",
    "triptych init caption",
    "triptych settings slots",
    "triptych settings WORD",
    "triptych settings --markdown",
    "triptych settings --markdown > docs/settings.md",
    "triptych settings --json-schema > triptych.schema.json",
    "triptych list benchmarks",
    "triptych list rules",
    "triptych score OUTPUT --to DIR --rule textvqa_val=vqa/vlmevalkit",
    "triptych score answers.jsonl --to DIR --data URI --benchmark docvqa_val --id questionId --response answer",
    "triptych compare A B --threshold -0.01",
    "triptych submit OUTPUT FILE --benchmark vqav2_test",
    "triptych submit --check FILE --benchmark vqav2_test --ids questions.json",
    "triptych export captions --to photos --as sidecars",
    "triptych export OUTPUT --to FOLDER --as metadata",
    'eval "$(triptych completion)"',
]
ON_RAY = [
    "triptych run configs/caption_aria.yaml model.path=jobs/demo/checkpoints/aria read.uri=MYFOLDER write.uri=captions",
    "triptych plan configs/caption_aria.yaml model.path=jobs/demo/checkpoints/aria read.uri=MYFOLDER "
    "write.uri=captions plan.price_per_device_hour=2.50",
]
# Why a command is not run here as it is typed, and what runs it or its like.
ELSEWHERE: Mapping[str, list[str]] = {
    "needs released weights: its settings are checked here, and tests/jobs/test_demo.py runs the same with the toy": [
        "triptych run configs/caption_aria.yaml model.path=/weights/Aria read.uri=s3://bucket/photos/*.tar "
        "write.uri=s3://bucket/captions",
        "triptych run configs/caption_aria.yaml read.uri=s3://bucket/photos/*.tar write.uri=s3://bucket/captions",
        "triptych run configs/caption_aria.yaml read.uri=s3://bucket/photos/*.tar write.uri=s3://bucket/captions "
        "write.webdataset=true",
        "triptych run configs/caption_mllama.yaml model.path=/weights/Llama-3.2-11B-Vision "
        "job.template='{image}{question}'",
        "triptych run configs/caption_mllama.yaml read.uri=s3://bucket/photos/*.tar write.uri=s3://bucket/captions",
        "triptych run configs/caption_video_aria.yaml read.uri=s3://bucket/films write.uri=s3://bucket/captions",
        "triptych run configs/synthesize_emu3.yaml read.uri=s3://bucket/prompts.parquet write.uri=s3://bucket/pictures",
        "triptych run configs/vqa_aria.yaml read.uri=s3://bucket/questions/*.parquet write.uri=s3://bucket/answers",
        "triptych run configs/vqa_docvqa.yaml read.uri=s3://bucket/benchmarks write.uri=s3://bucket/evaluations/docvqa",
        "triptych run configs/vqa_emu3.yaml read.uri=s3://bucket/questions/*.parquet write.uri=s3://bucket/answers",
        "triptych run configs/vqa_mllama.yaml read.uri=s3://bucket/questions/*.parquet write.uri=s3://bucket/answers",
        "triptych run configs/vqa_mmmu.yaml read.uri=s3://bucket/benchmarks write.uri=s3://bucket/evaluations/mmmu",
        "triptych run configs/vqa_vqav2.yaml read.uri=s3://bucket/benchmarks write.uri=s3://bucket/evaluations/vqav2",
        "triptych plan configs/caption_aria.yaml read.uri=… write.uri=…",
        "triptych plan … plan.price_per_device_hour=2.50 --json > plan.json",
    ],
    "needs what the run before it leaves; the like of another data set is in ON_A_STORE of tests/test_commands.py": [
        "triptych submit s3://bucket/evaluations/vqav2 vqav2_test.json --benchmark vqav2_test",
        "triptych view OUTPUT",
    ],
    "needs what a plan of the same run has said: tests/jobs/test_report_plan.py": [
        "triptych report OUTPUT --plan plan.json",
    ],
    "needs a model that can judge: tests/jobs/test_judge.py has one": [
        "triptych score OUTPUT --to DIR --judge /weights/Aria",
    ],
    "needs a cluster: tests/end_to_end/test_cluster.py makes small ones": [
        "triptych run configs/caption_aria.yaml ray.address=auto",
        "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=…",
        "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…",
        "ray start --head --port=6379 --num-gpus=8 --object-store-memory=20000000000",
        "ray start --address=HEAD:6379 --num-gpus=8 --object-store-memory=20000000000",
        "ray start --head",
        "ray start --num-gpus",
        "ray start --object-store-memory",
    ],
    "takes a minute, in full several: tests/jobs/test_demo.py runs it with --quick": [
        "triptych demo",
        "triptych demo --quick",
    ],
    "takes minutes, and .ci/run runs it or what it runs": [
        "make test",
        "make test-kernels",
        "make ci",
        "pytest -m chaos",
    ],
    "fetches packages, and tests reach no network; its target stands in Makefile, its extra in pyproject.toml": [
        "make demo",
        "pip install -c constraints.txt -e .",
        "pip install triptych",
        "pip install 'triptych[captions]'",
        "pip install 'triptych[heic]'",
        "pip install gcsfs",
        "pip install adlfs",
        "pip install huggingface_hub",
        "pip install aiohttp",
        "pip install llama-cpp-python gguf safetensors",
    ],
    "takes minutes to hours, by hand; its options are checked here, and docs/chaos.md says what came of it": [
        "python -m tests.chaos",
        "python -m tests.chaos --kinds driver --times 20 --rows 4000",
        "python -m tests.chaos --seed 7 --folder /scratch",
    ],
    "is called in a process of its own by tests/chaos/drivers.py": ["python -m jobs run CONFIG"],
    "measures for minutes, by hand; its options are checked here, and tests/benchmarks/README.md has its tables": [
        "python -m tests.benchmarks.decoding",
        "python -m tests.benchmarks.drawing",
        "python -m tests.benchmarks.generation",
        "python -m tests.benchmarks.memory",
        "python -m tests.benchmarks.overhead",
        "python -m tests.benchmarks.prefixes",
        "python -m tests.benchmarks.preprocess",
        "python -m tests.benchmarks.reports",
        "python -m tests.benchmarks.row_groups",
        "python -m tests.benchmarks.scale",
        "python -m tests.benchmarks.scoring",
        "python -m tests.benchmarks start",
    ],
    "needs a GPU; tests/gpu/test_rehearsal.py runs the same on a make-believe one": [
        "pytest -m gpu tests/gpu",
        "python -m tests.benchmarks device",
    ],
    "trains for 20 minutes, by hand; tests/training/test_training.py trains a little": ["python -m training aria"],
    "writes a file of the package anew; tests/jobs/test_demo_data.py holds it against the like": [
        "python -m jobs.demo.data",
    ],
    "opens a browser, as tests/jobs/test_browser.py does, which makes the pictures of a small output": [
        "python -m tests.screenshots",
    ],
    "prints what tests/pipeline/test_zoo.py holds docs/inputs.md against": ["python -m tests.zoo"],
    "takes another folder of cases, which tests/jobs/test_vectors.py reads as it reads ours": [
        "TRIPTYCH_VECTORS=folder pytest tests/jobs/test_vectors.py",
    ],
}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def is_command(text: str) -> bool:
    """Whether a text begins as one of the programs' commands does, after what is set for it alone."""
    words = [word for word in text.split() if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    return len(words) > 1 and words[0] in PROGRAMS


def lines_of(block: str) -> Iterator[str]:
    """Give the commands of a shell block, without what is said of them."""
    for line in block.replace("\\\n", " ").splitlines():
        if text := " ".join(re.sub(r"(^|\s)#\s.*$", "", line).split()):
            yield text


def commands_of(path: Path) -> Iterator[str]:
    """Give all commands that a page shows in blocks or within a sentence, or a YAML file in its comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        yield from filter(is_command, re.findall(r"^# +(\S.*)$", text, re.MULTILINE))
        return
    for language, block in FENCE.findall(text):
        if language == "sh":
            yield from lines_of(block)
    yield from filter(is_command, (" ".join(code.split()) for code in INLINE.findall(FENCE.sub("", text))))


def is_mention(command: str) -> bool:
    """Whether it only names a program's command, as in a sentence about it."""
    words = command.split()
    return words[0] in ("triptych", "make", "ray") and len(words) == 2


SHOWN = sorted({command for path in [*PAGES, *CONFIGS] for command in commands_of(path)})
OURS = [command for command in SHOWN if command.startswith("triptych ")]
LISTED = [*ON_A_STORE, *IN_A_FOLDER, *ON_RAY, *(command for commands in ELSEWHERE.values() for command in commands)]


def words_of(command: str) -> list[str]:
    """Return the words behind `triptych`, without where its output goes."""
    return shlex.split(command.split(" > ")[0])[1:]


def test_every_command_stands_in_one_list_and_no_list_has_another() -> None:
    assert len(SHOWN) > 60
    shown = {command for command in SHOWN if not is_mention(command) or command in LISTED}
    assert sorted(shown - {*LISTED}) == [], "run these in a test, or say in ELSEWHERE what runs their like"
    assert sorted({*LISTED} - shown) == [], "no page shows these any more"
    assert len(LISTED) == len({*LISTED})


def test_a_block_that_is_no_shells_holds_no_command() -> None:
    blocks = [found for path in PAGES for found in FENCE.findall(path.read_text(encoding="utf-8"))]
    assert {language for language, _ in blocks} <= {"sh", "python", "yaml", ""}
    begins = ("$ ", "triptych ", "make ", "pip ", "python -m ")
    lines = [line.strip() for language, block in blocks if language != "sh" for line in block.splitlines()]
    hidden = [line for line in lines if line.startswith(begins)]
    assert hidden == []


@pytest.mark.parametrize("reason", ELSEWHERE)
def test_what_runs_a_commands_like_is_there(reason: str) -> None:
    named = re.findall(r"[\w./]*\w\.(?:py|md|toml)\b|\.ci/run|Makefile", reason)
    assert named and [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", OURS)
def test_a_command_of_ours_is_one_with_settings_that_there_are(command: str) -> None:
    if is_mention(command):
        assert command.split()[1] in COMMANDS
        return
    asked = parse(words_of(command))
    settings = [word for word in getattr(asked, "overrides", ()) if "=" in word]
    known = {one.path for one in all_settings()}
    assert {word.partition("=")[0] for word in settings} <= known
    if asked.command in ("run", "plan") and asked.config != "…":
        config = find_config(str(ROOT / asked.config))
        check_settings(RunSettings, *_values(config, settings))


def _values(config: str, overrides: list[str]) -> tuple[dict[str, Any], str, list[str]]:
    values, faults = read_values(config, overrides)
    return values, config, list(faults)


@pytest.mark.parametrize("command", [command for command in SHOWN if not command.startswith("triptych ")])
def test_a_command_of_another_program_names_what_is_there(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    if words[:2] == ["python", "-m"]:
        found = importlib.util.find_spec(words[2])
        assert found is not None and found.origin is not None
        folder = Path(found.origin).parent
        main_file = folder / "__main__.py" if found.submodule_search_locations else Path(found.origin)
        source = main_file.read_text(encoding="utf-8")
        assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []
    if words[:2] == ["pip", "install"] and (extra := re.search(r"\[(\w+)\]", command)):
        assert re.search(rf"^{extra[1]} = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def put(folder: Path, uri: str) -> None:
    """Store the files of a folder."""
    store = Store(uri)
    for path in folder.rglob("*"):
        if path.is_file():
            store.publish(path.relative_to(folder).as_posix(), path.read_bytes())


def write_questions(path: Path, name: str, id_name: str, count: int = 2) -> None:
    """Write a few rows of a published data set, each with an id of its own."""
    made = [{**ROWS[name], id_name: str(number), "image": hub_image(number)} for number in range(count)]
    write_parquet(path, made, image=HUB_IMAGE)


@pytest.fixture(scope="module")
def endpoint(s3_endpoint: str, aria: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket with photographs, data sets, and what runs of a tiny model left of them, before and after a change."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**s3_server.ENVIRONMENT, "AWS_ENDPOINT_URL": s3_endpoint}.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        s3_server.make_bucket(s3_endpoint, "bucket")
        s3_server.forget_connections()
        put(write_shards(folder / "photos", shards=2, rows=2), "s3://bucket/photos")
        for name in ("docvqa", "infovqa"):
            place = folder / "benchmarks/DocVQA" / {"docvqa": "DocVQA", "infovqa": "InfographicVQA"}[name]
            write_questions(place / "validation-0.parquet", f"{name}_val", "questionId")
            write_questions(place / "test-0.parquet", f"{name}_test", "questionId")
        write_questions(folder / "benchmarks/pope/test-0.parquet", "pope", "id")
        put(folder / "benchmarks", "s3://bucket/benchmarks")
        (folder / "answers.jsonl").write_text('{"id": "0", "response": "yes"}\n{"id": "1", "response": "No."}\n')
        caption = {"kind": "caption"}
        leave_output(settings_of("s3://bucket/photos/*.tar", aria, "s3://bucket/captions", caption))
        where = ["read.uri=s3://bucket/benchmarks", "write.uri=s3://bucket/evaluations/docvqa"]
        tiny = [f"model.path={aria}", "model.device=cpu", "generate.slots=4", "generate.max_length=1024"]
        names = ("docvqa_val", "docvqa_test", "infovqa_val", "infovqa_test")
        tiny += ["write.unit_rows=2", *(f"job.benchmarks.{name}.max_new_tokens=4" for name in names)]
        asked = load_settings(RunSettings, ROOT / "configs/vqa_docvqa.yaml", [*where, *tiny])
        settings, faults = resolve_presets(asked)
        assert faults == []
        leave_output(settings)
        for name in ("before", "after"):
            assert main(["score", "s3://bucket/evaluations/docvqa", "--to", f"s3://bucket/evaluations/{name}"]) == 0
        yield s3_endpoint
    s3_server.forget_connections()


@pytest.mark.parametrize("command", ON_A_STORE)
def test_a_command_about_a_bucket_works_as_it_is_typed(
    endpoint: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(re.sub(r"http://(…|minio:9000)", endpoint, command))
    if words[0] == "view":
        look_at(words)
        return
    code = main(words)
    said = capsys.readouterr()
    assert (code, said.err.count("triptych:")) == (0, 0), said.err
    assert said.out.strip()


def look_at(words: list[str]) -> None:
    """View an output in a process of its own, fetch its page, and press Ctrl-C."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("open ").strip()
        try:
            with urllib.request.urlopen(address) as page:
                assert b"8 of 8 rows" in page.read() or b"8 rows" in page.read()
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def made(aria: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that commands about local files name, called as they call it."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "docs").mkdir()
    (folder / "photos").mkdir()
    for number in range(3):
        (folder / f"photos/{number}.png").write_bytes(png(number))
    leave_output(settings_of(folder / "photos", aria, folder / "captions", {"kind": "caption"}))
    for name, id_name in (("textvqa_val", "question_id"), ("vqav2_test", "question_id")):
        write_questions(folder / f"data/{name}.parquet", name, id_name)
    sets = {name: {"path": f"{name}.parquet", "max_new_tokens": 4} for name in ("textvqa_val", "vqav2_test")}
    job = {"kind": "vqa", "preset": "vlmevalkit", "benchmarks": sets}
    leave_output(settings_of(folder / "data", aria, folder / "OUTPUT", job, generate={"sampling": {}}))
    write_questions(folder / "URI/validation.parquet", "docvqa_val", "questionId")
    lines = [json.dumps({"questionId": str(number), "answer": "0.28"}) for number in range(2)]
    (folder / "answers.jsonl").write_text("\n".join(lines))
    for name in "AB":
        write_scored(folder / name, rows([1.0, 0.0, 1.0]))
    (folder / "questions.json").write_text(json.dumps({"questions": [{"question_id": 0}, {"question_id": 1}]}))
    (folder / "answered.json").write_text(json.dumps([{"question_id": number, "answer": "a"} for number in (0, 1)]))
    return folder


@pytest.mark.parametrize("command", IN_A_FOLDER)
def test_a_command_about_a_folder_works_as_it_is_typed(
    made: Path, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    if command.startswith("eval "):
        script = f'triptych() {{ {shlex.quote(sys.executable)} -m jobs "$@"; }}; {command}; complete -p triptych'
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "complete -o default -F _triptych triptych\n"), done.stderr
        return
    if "--check FILE" in command:
        shutil.copy("answered.json", "FILE")
    if command.startswith("triptych export OUTPUT"):  # of images that have names
        shutil.rmtree("OUTPUT")
        Path("captions").rename("OUTPUT")
    words = words_of(command)
    code = main(words)
    said = capsys.readouterr()
    assert (code, said.err.count("triptych:")) == (0, 0), said.err
    assert said.out.strip()
    if " > " in command and (ROOT / (target := command.split(" > ")[1])).exists():
        assert said.out == (ROOT / target).read_text(encoding="utf-8")
    if words[0] == "export":
        written = sorted(path.name for path in Path(words[words.index("--to") + 1]).iterdir())
        assert "metadata.jsonl" in written or "0.txt" in written
