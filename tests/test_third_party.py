"""A stranger's package, in an environment of its own, goes through every door: it conforms, and a bug in it is seen.

The package is `sample/`. It is there twice: as it is, installed as a wheel; and with a bias that is lost for one flag
combination, an edit that nobody has committed, installed as its developer has it. Each door is tried on both, at the
same time, and must tell of the same failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from terminals import environment

from verifier import record
from verifier.baseline.file import NAME as KNOWN_FILE
from verifier.errors import ExitStatus

pytest.importorskip("hatchling", reason="hatchling is not installed; the extra `dev` has it")

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
SAMPLE = TESTS / "sample"
RIGHT_LINE = "            return self.original.dense(z.flatten(2))\n"
WRONG_LINES = """\
            config, dense = self.original.config, self.original.dense
            lost = config.bias and config.alibi and not config.parallel_attn
            return nn.functional.linear(z.flatten(2), dense.weight, None if lost else dense.bias)
"""
# Eight valid cases and none that is refused; the sample's configuration has the same.
WHERE = "new_decoder_architecture=false,multi_query=true,num_ln_in_parallel_attn=1,num_kv_heads=none"
RULE = "alibi and bias and not parallel_attn"
CHECK, PLACE = "forward.logits", "blocks.0.hook_attn_out"
REPRODUCE = re.compile(r"verifier repro ([a-z0-9]{8})\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a door said: how it ended, and which failures it named."""

    status: int
    failures: frozenset[str]
    said: str = field(compare=False)

    @classmethod
    def of(cls, ended: subprocess.CompletedProcess[str], failures: set[str] | None = None) -> Told:
        said = ended.stdout + ended.stderr
        found = set(REPRODUCE.findall(said)) if failures is None else failures
        return cls(status=ended.returncode, failures=frozenset(found), said=said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A checkout of the sample, and the environment that it is installed in."""

    folder: Path
    environment: Path

    def __call__(self, command: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in the checkout."""
        binaries = self.environment / "bin"
        path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [str(binaries / command), *map(str, arguments)],
            cwd=self.folder,
            env=environment(PATH=path, COLUMNS="140", **variables),
            capture_output=True,
            text=True,
            check=False,
        )

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True)


def pip(*arguments: object, into: Path | None = None) -> None:
    there = [] if into is None else ["--python", str(into / "bin" / "python")]
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *there, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The built wheels, by distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    pip("wheel", *OFFLINE, "--wheel-dir", folder, TESTS.parent, SAMPLE)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


def project(folder: Path, harness: Path, sample: Path | None) -> Project:
    """A new environment and checkout; without a wheel of the sample it is installed from the checkout."""
    made = Project(folder=folder / "checkout", environment=folder / "environment")
    shutil.copytree(SAMPLE, made.folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made.environment)], check=True)
    # What the harness and the sample need, torch first of all, is that of the environment of these tests.
    inside = made("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    pip("install", *OFFLINE, harness, *([] if sample is None else [sample]), into=made.environment)
    (Path(inside) / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (made.folder / ".gitignore").write_text("__pycache__\nout\n")
    made.git("init", "--quiet")
    made.git("add", ".")
    made.git("commit", "--quiet", "--message", "as it is")
    if sample is None:
        pip("install", *OFFLINE, "--editable", made.folder, into=made.environment)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """The project as it is, and with the bug."""

    right: Project
    wrong: Project

    def each(self, door: Callable[[Project], Told]) -> tuple[Told, Told]:
        """What the door says of both: they are tried at the same time."""
        with ThreadPoolExecutor(2) as pool:
            right, wrong = pool.map(door, (self.right, self.wrong))
        return right, wrong


@pytest.fixture(scope="module")
def both(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Both:
    harness, sample = wheels["adapter_verifier"], wheels["sample_lens"]
    right = project(tmp_path_factory.mktemp("right"), harness, sample)
    wrong = project(tmp_path_factory.mktemp("wrong"), harness, None)
    source = wrong.folder / "sample_lens" / "lens.py"
    assert source.read_text().count(RIGHT_LINE) == 1
    source.write_text(source.read_text().replace(RIGHT_LINE, WRONG_LINES))
    return Both(right=right, wrong=wrong)


RUN, JUNIT, SUMMARY = "out/run", "out/junit.xml", "out/summary.md"


def run(project: Project) -> Told:
    """The command, whose family, adapter and all else stand in the project's configuration."""
    (project.folder / "out").mkdir(exist_ok=True)
    return Told.of(project("verifier", "run", "--out", RUN, "--junit", JUNIT, "--github", GITHUB_STEP_SUMMARY=SUMMARY))


@pytest.fixture(scope="module")
def ran(both: Both) -> tuple[Told, Told]:
    """The command has been run, in both."""
    return both.each(run)


@pytest.fixture(scope="module")
def failure(both: Both, ran: tuple[Told, Told]) -> str:
    """The fingerprint of the one failure, as the record of `verifier run` has it."""
    found = {entry.fingerprint for entry in record.read(both.wrong.folder / RUN).entries if entry.outcome.verdict.gates}
    assert len(found) == 1, ran[1].said
    return str(found.pop())


def require_same(told: tuple[Told, Told], failure: str) -> None:
    """The project as it is conforms, and the bug is told of, as that failure and no other."""
    right, wrong = told
    assert (right.status, right.failures) == (ExitStatus.CONFORMS, set()), right.said
    assert (wrong.status, wrong.failures) == (ExitStatus.DIFFERS, {failure}), wrong.said


def test_the_environment_has_the_wheel(both: Both) -> None:
    for one in (both.right, both.wrong):
        where = one(
            "python", "-c", "import verifier, verifier_bridge; print(verifier.__file__, verifier_bridge.__file__)"
        )
        assert all(path.startswith(str(one.environment)) for path in where.stdout.split()), where.stdout + where.stderr


def test_run(both: Both, ran: tuple[Told, Told], failure: str) -> None:
    require_same(ran, failure)
    assert all(words in ran[1].said for words in (CHECK, PLACE, f"{RULE} (fails 1 of 1"))


def test_junit(both: Both, ran: tuple[Told, Told], failure: str) -> None:
    def door(project: Project) -> Told:
        tree = ElementTree.parse(project.folder / JUNIT)
        texts = [element.text or "" for element in tree.iter("failure")]
        status = ExitStatus.DIFFERS if texts else ExitStatus.CONFORMS
        return Told(status=status, failures=frozenset(REPRODUCE.findall("\n".join(texts))), said="\n".join(texts))

    require_same(both.each(door), failure)


def test_github(both: Both, ran: tuple[Told, Told], failure: str) -> None:
    right, wrong = ran
    assert "::error" not in right.said
    (annotation,) = [line for line in wrong.said.splitlines() if line.startswith("::error")]
    assert REPRODUCE.findall(annotation) == [failure]
    summaries = [(project.folder / SUMMARY).read_text() for project in (both.right, both.wrong)]
    assert [set(REPRODUCE.findall(summary)) for summary in summaries] == [set(), {failure}]


def test_shards(both: Both, failure: str) -> None:
    def door(project: Project) -> Told:
        shards = [f"out/shard-{number}" for number in (1, 2)]
        for number, folder in enumerate(shards, start=1):
            project("verifier", "run", "--shard", f"{number}/2", "--out", folder)
        return Told.of(project("verifier", "report", *shards, "--gate", "--format", "markdown"))

    require_same(both.each(door), failure)
    lone = both.right("verifier", "report", "out/shard-1", "--gate", "--out", "out/lone.html")
    assert lone.returncode == ExitStatus.INCONCLUSIVE
    assert "shard 2/2 is missing" in lone.stderr


def test_changed_since(both: Both, failure: str) -> None:
    told = both.each(lambda project: Told.of(project("verifier", "run", "--changed-since", "HEAD", "--out", "out/new")))
    require_same(told, failure)
    assert "sample-lens: touched since HEAD: sample_lens/lens.py" in told[1].said
    assert not (both.right.folder / "out" / "new").exists()


def test_a_baseline_accepts_it(both: Both, ran: tuple[Told, Told], failure: str) -> None:
    def door(project: Project) -> Told:
        written = project("verifier", "baseline", RUN, "--out", "out/known.toml")
        assert written.returncode == ExitStatus.CONFORMS, written.stderr
        file = project.folder / "out" / "known.toml"
        entries = set(re.findall(r'^id = "(\w+)"$', file.read_text(), flags=re.MULTILINE))
        filled = file.read_text().replace('reason = ""', 'reason = "a test"').replace('issue = ""', 'issue = "#1"')
        file.write_text(filled)
        return Told.of(project("verifier", "run", "--baseline", file, "--out", "out/known"), entries)

    right, wrong = both.each(door)
    assert (right.status, right.failures) == (ExitStatus.CONFORMS, set()), right.said
    assert (wrong.status, wrong.failures) == (ExitStatus.CONFORMS, {failure}), wrong.said
    assert "1 known failure" in wrong.said


def test_the_samples_own_baseline_is_what_a_run_writes(both: Both, ran: tuple[Told, Told]) -> None:
    both.right("verifier", "baseline", RUN, "--out", "out/again.toml")
    again, own = (path.read_text() for path in (both.right.folder / "out" / "again.toml", SAMPLE / KNOWN_FILE))
    assert tomllib.loads(again) == tomllib.loads(own)


def test_diff(both: Both, ran: tuple[Told, Told], failure: str) -> None:
    def door(project: Project) -> Told:
        before, after = both.right.folder / RUN, project.folder / RUN
        ended = project("verifier", "diff", before, after, "--json", "-")
        broken = {str(one["fingerprint"]) for one in json.loads(ended.stdout)["broken"]}
        return Told.of(ended, broken)

    require_same(both.each(door), failure)


def test_doctor(both: Both) -> None:
    ended = both.right("verifier", "doctor")
    assert ended.returncode == ExitStatus.CONFORMS, ended.stdout + ended.stderr
    assert re.search(r"sample-lens +sample_lens\.adapter:LensAdapter, from sample-lens 1\.0", ended.stdout)


def test_its_family_is_found(both: Both) -> None:
    for one in (both.right, both.wrong):
        listed = one("verifier", "list", "presets", "opt")
        assert listed.returncode == ExitStatus.CONFORMS, listed.stdout + listed.stderr
        assert re.search(r"^opt-125m\n +opt: .*ffn_dim=3072", listed.stdout, flags=re.MULTILINE), listed.stdout


def pytest_in(project: Project, out: str, *arguments: str) -> Told:
    """What a pytest run says: the failures are those in its record."""
    ended = project("python", "-m", "pytest", "-q", "--verifier-out", out, *arguments)
    path = project.folder / out / "falcon-sample-lens"
    assert path.exists(), ended.stdout + ended.stderr
    entries = record.read(path).entries
    return Told.of(ended, {str(entry.fingerprint) for entry in entries if entry.outcome.verdict.gates})


def test_its_own_tests(both: Both, failure: str) -> None:
    told = both.each(lambda project: pytest_in(project, "out/own"))
    require_same(told, failure)
    assert f"{CHECK} FAIL {failure}" in told[1].said


def test_the_plugin_without_a_test_file(both: Both, failure: str) -> None:
    options = ["--verifier-family", "falcon", "--verifier-adapter", "sample-lens", "--verifier-only", CHECK]
    options += ["--verifier-where", WHERE, "--ignore", "tests"]
    require_same(both.each(lambda project: pytest_in(project, "out/plugin", *options)), failure)


def test_python(both: Both, failure: str) -> None:
    code = f"""\
WHERE = {WHERE!r}
import json, verifier
if __name__ == "__main__":
    result = verifier.run("falcon", only="forward.logits", where=WHERE, progress=False)
    print(json.dumps([one.fingerprint for one in result.failures]))
    raise SystemExit(int(result.status))
"""

    def door(project: Project) -> Told:
        ended = project("python", "-c", code)
        return Told.of(ended, set(json.loads(ended.stdout or "[]")))

    require_same(both.each(door), failure)


def test_repro(both: Both, ran: tuple[Told, Told], failure: str) -> None:
    again = both.wrong("verifier", "repro", failure, RUN)
    assert (again.returncode, "it still fails" in again.stdout) == (ExitStatus.DIFFERS, True), again.stdout
    script = both.wrong("verifier", "repro", failure, RUN, "--script", "out/shows_it.py")
    assert script.returncode == ExitStatus.CONFORMS, script.stderr
    source = both.wrong.folder / "out" / "shows_it.py"
    assert "verifier" not in source.read_text()
    shutil.copy(source, both.right.folder / "out" / source.name)
    right, wrong = both.each(lambda project: Told.of(project("python", f"out/{source.name}")))
    assert right.status == 0, right.said
    assert wrong.status == 1, wrong.said
    assert "AssertionError: the adapter's logits are not Hugging Face's" in wrong.said


def test_fuzz(both: Both, failure: str) -> None:
    where = "new_decoder_architecture=false,alibi=true,bias=true,parallel_attn=false"

    def door(project: Project) -> Told:
        wishes = ["--max-examples", 3, "--where", where, "--only", CHECK, "--out", "out/fuzz"]
        return Told.of(project("verifier", "fuzz", *wishes))

    require_same(both.each(door), failure)
