"""`verifier run` as a user runs it: what it shows, keeps, and ends with."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from equal_results import have_same_result
from user_adapters import FEW, verdicts

from verifier import record
from verifier.judging.outcome import Verdict


def test_a_right_adapter_conforms(verifier, tmp_path):
    ended = verifier(
        "run", "falcon", "--adapter", "mine:Right", "--where", FEW, "--only", "build.a*", "--out", tmp_path
    )
    assert ended.status == 0
    assert ended.out.splitlines()[-1] == "falcon × mine:Right (right 1.0): CONFORMS: 4 of 4 looked at"
    assert verdicts(tmp_path, "build.adapter") == {Verdict.PASS: 4}
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_record_says_what_was_run(verifier, tmp_path):
    verifier(
        *("run", "falcon", "--adapter", "mine:Right", "--where", FEW, "--only", "build.adapter", "--seed", 5),
        *("--dtype", "float32", "--workers", 1, "--out", tmp_path),
    )
    lines = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    run, *middle, end = lines
    assert (run["kind"], run["schema"]) == ("run", 2)
    assert (run["family"], run["adapter"], run["adapter_name"], run["adapter_version"]) == (
        "falcon",
        "mine:Right",
        "right",
        "1.0",
    )
    assert {"python", "torch", "transformers", "hypothesis"} <= run["versions"].keys()
    assert run["seed"] == 5
    assert run["flags"]["alibi"] == [False, True]
    assert run["asked"] == {"only": ["build.adapter"], "where": [FEW], "dtype": ["float32"], "device": "cpu"}
    assert [line["kind"] for line in middle] == ["case", "outcome", "done"] * 4
    assert {"config", "valid", "seed", "dtypes", "batch", "length"} <= middle[0].keys()
    assert (end["counts"], end["exit"], end["stop"]) == ({"pass": 4}, 0, "complete")


@pytest.mark.slow
def test_one_seed_gives_one_record_however_many_workers(verifier, tmp_path):
    for workers in (1, 3):
        verifier(
            *("run", "falcon", "--adapter", "mine:Silent", "--where", FEW, "--only", "build", "--only", "*.logits"),
            *("--workers", workers, "--out", tmp_path / str(workers)),
        )
    first, second = (tmp_path / workers / record.FILE for workers in ("1", "3"))
    assert have_same_result(first, second)
    assert sum(entry.outcome.verdict.gates for entry in record.read(first).entries) > 0


def test_an_adapter_whose_wrap_raises_fails_each_case_by_itself(verifier, tmp_path):
    ended = verifier("run", "falcon", "--adapter", "mine:Raises", "--where", FEW, "--only", "build", "--out", tmp_path)
    assert ended.status == 1
    assert verdicts(tmp_path, "build.adapter") == {Verdict.ERROR: 4}
    assert verdicts(tmp_path, "build.forward") == {Verdict.SKIP: 4}
    assert "RuntimeError: cannot \\x1b[31mwrap\\x1b[0m <b>this</b>" in ended.out
    assert "Traceback" not in ended.out + ended.err
    assert "1 bug in 4 cases" in ended.out.splitlines()[-1]
    assert "<b>this</b>" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("adapter", "how"), [("Segfaults", "SIGSEGV"), ("Quits", "exit status 7")])
def test_a_crash_costs_its_case_only(verifier, tmp_path, adapter, how):
    ended = verifier(
        *("run", "falcon", "--adapter", f"mine:{adapter}", "--where", FEW, "--only", "reference.acceptance"),
        *("--only", "build", "--workers", 2, "--out", tmp_path),
    )
    assert ended.status == 1
    assert verdicts(tmp_path, "reference.acceptance") == {Verdict.PASS: 4}
    assert verdicts(tmp_path, "build.adapter") == {Verdict.PASS: 2, Verdict.CRASH: 2}
    assert verdicts(tmp_path, "build.forward") == {Verdict.PASS: 2, Verdict.SKIP: 2}
    crashes = [entry.outcome for entry in record.read(tmp_path).entries if entry.outcome.verdict is Verdict.CRASH]
    assert all(how in outcome.message for outcome in crashes)
    assert all(("wrap" if adapter == "Segfaults" else "goodbye, cruel config") in outcome.detail for outcome in crashes)


def test_an_adapter_that_ends_the_process_at_import_is_told_in_one_line(verifier, in_folder, tmp_path):
    (in_folder / "quits.py").write_text("import os; os._exit(7)")
    ended = verifier("run", "falcon", "--adapter", "quits:Adapter", "--out", tmp_path)
    assert ended.status == 3
    assert ended.line == ("verifier: adapter 'quits:Adapter' ended the process at import: it ended with exit status 7")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_raises_at_import_is_told_in_one_line_and_leaves_the_others_alone(
    verifier, in_folder, tmp_path
):
    (in_folder / "late.py").write_text("raise RuntimeError('not today')")
    narrow = ("--where", FEW, "--only", "build.adapter", "--out", tmp_path)
    ended = verifier("run", "falcon", "--adapter", "late:Adapter", "--adapter", "mine:Right", *narrow)
    assert ended.status == 3
    assert "verifier: adapter 'late:Adapter' raised at import: RuntimeError: not today" in ended.err.splitlines()
    assert "Traceback" not in ended.err
    assert ended.out.splitlines()[-1] == "falcon × mine:Right (right 1.0): CONFORMS: 4 of 4 looked at"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == [
        "falcon-mine-Right/record.jsonl",
        "falcon-mine-Right/report.html",
    ]


OUTDATED = """
from mine import Right

class Subject:
    capabilities = changes = frozenset()
    def __init__(self, model):
        self.model = model
    def forward(self, inputs):
        raise NotImplementedError
    def close(self):
        pass

class Adapter(Right):
    def wrap(self, model):
        return Subject(model)
"""


@pytest.mark.parametrize("isolation", ["--isolation", "--no-isolation"])
def test_an_adapter_of_the_old_protocol_is_told_once_what_to_change(verifier, in_folder, tmp_path, isolation):
    (in_folder / "outdated.py").write_text(OUTDATED)
    ended = verifier(
        "run",
        "falcon",
        "--adapter",
        "outdated:Adapter",
        "--where",
        FEW,
        "--only",
        "hooks",
        "--out",
        tmp_path,
        isolation,
    )
    assert ended.status == 3
    told = [line for line in ended.err.splitlines() if "is written for an older verifier" in line]
    assert len(told) == 1
    assert "outdated.py: Subject is written" in told[0]
    assert "derive the class of subjects from verifier.adapter.Subject" in told[0]
    assert "Traceback" not in ended.err + ended.out


def test_where_nothing_is_left_nothing_is_claimed(verifier, tmp_path):
    ended = verifier(
        "run", "falcon", "--adapter", "mine:Right", "--where", FEW, "--only", "build.refusal", "--out", tmp_path
    )
    assert ended.status == 4
    assert "INCONCLUSIVE (no check that looks at the adapter ran: " in ended.out.splitlines()[-1]


def test_refused_cases_alone_are_inconclusive(verifier, tmp_path):
    ended = verifier("run", "falcon", "--adapter", "mine:Right", "--where", "num_kv_heads=5", "--out", tmp_path)
    assert ended.status in (1, 4)  # 1 where the adapter wraps what HF refuses
    assert "CONFORMS" not in ended.out.splitlines()[-1].replace("NOT CONFORM", "")


def test_flags_that_no_case_has_together_are_inconclusive(verifier, tmp_path):
    ended = verifier("run", "falcon", "--where", "hidden_size=12,num_kv_heads=24", "--out", tmp_path)
    assert ended.status == 4
    assert "no case of 'falcon'" in ended.line


def test_the_configured_adapter_is_the_default(verifier, in_folder, tmp_path, monkeypatch):
    (in_folder / "pyproject.toml").write_text('[tool.verifier]\nadapter = "mine:Right"\n')
    try:
        ended = verifier("run", "falcon", "--where", FEW, "--only", "build.adapter", "--out", tmp_path)
        listed = verifier("list", "adapters")
    finally:
        (in_folder / "pyproject.toml").unlink()
    assert ended.out.splitlines()[-1] == "falcon × mine:Right (right 1.0): CONFORMS: 4 of 4 looked at"
    assert "mine:Right\n" in listed.out


@pytest.mark.slow
def test_the_command_itself_does_not_import_torch(folder, tmp_path):
    script = (
        "import sys\nfrom verifier.cli import main\nstatus = main(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\nsys.exit(status)"
    )
    arguments = ["run", "falcon", "--adapter", "mine:Right", "--where", FEW, "--only", "build.adapter"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--out", str(tmp_path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("arguments", [["list", "hooks"], ["--help"]])
def test_a_reader_that_goes_away_is_no_noise(started, arguments):
    process = started(*arguments)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "status"), [("Right", 0), ("Raises", 1)])
def test_a_run_whose_reader_goes_away_ends_with_its_verdict(started, tmp_path, adapter, status):
    narrow = ("--where", FEW, "--only", "build.adapter", "--out", tmp_path)
    process = started("run", "falcon", "--adapter", f"mine:{adapter}", *narrow)
    process.stdout.close()
    assert "Error" not in process.stderr.read()
    assert process.wait() == status
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("kind", "name"), [("families", "falcon"), ("adapters", "bridge"), ("presets", "falcon-40b")])
def test_what_there_is_is_listed(verifier, kind, name):
    ended = verifier("list", kind)
    assert ended.status == 0
    assert name in ended.out.splitlines()


def test_checks_are_listed_with_what_they_prove(verifier):
    lines = verifier("list", "checks").out.splitlines()
    assert len(lines[lines.index("build.adapter") + 1].split()) > 5


def test_hooks_are_listed_for_one_family_or_all(verifier):
    every, falcon = verifier("list", "hooks"), verifier("list", "hooks", "falcon")
    assert "blocks.{i}.attn.hook_q [batch, pos, head, d_head]" in falcon.out.splitlines()
    assert "hook_pre_linear" in every.out
    assert "hook_pre_linear" not in falcon.out  # Falcon's MLP has no gate


@pytest.mark.parametrize(
    ("adapter", "words", "marked"),
    [
        (
            "Quits",
            "bias (fails 2 of 2, passes 2 of 2)",
            "<code>bias</code> <small>(fails 2 of 2, passes 2 of 2)</small>",
        ),
        ("Raises", "every case that the check looked at", "every case that the check looked at"),
    ],
)
def test_a_failure_is_explained_by_the_flags_that_its_cases_share(verifier, tmp_path, adapter, words, marked):
    ended = verifier(
        "run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", f"mine:{adapter}", "--out", tmp_path
    )
    assert [line.split(maxsplit=1)[1] for line in ended.out.splitlines() if line.split()[:1] == ["rule"]] == [words]
    assert f"<dt>rule</dt><dd>{marked}" in (tmp_path / "report.html").read_text()


RIGHT = ("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "mine:Right")


@pytest.mark.slow
def test_the_cases_of_a_file_are_run(verifier, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    verifier("run", "falcon", "--where", FEW, "--only", "build.adapter", "--adapter", "mine:Right", "--out", first)
    chosen = [*record.read(first).cases.values()][1:3]
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(json.dumps(spec.to_json()) + "\n\n" for spec in chosen))
    for cases, wanted in ((file, {spec.id for spec in chosen}), (first / record.FILE, set(record.read(first).cases))):
        ended = verifier(
            "run", "falcon", "--cases", cases, "--only", "build", "--adapter", "mine:Right", "--out", second
        )
        assert ended.status == 0
        assert set(record.read(second).cases) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no case"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: not an object"),
        ('{"family": "falcon"}', "line 1: a case has no `config`"),
        ('{"family": "llama", "config": {}}', "holds cases of the family 'llama', not of 'falcon'"),
        ('{"family": "falcon", "config": {}, "length": 2}', "line 1: a case's `length` must be a whole number from 6"),
        ('{"family": "falcon", "config": {}, "seed": -1}', "line 1: a case's `seed` must be a whole number from 0"),
        (
            '{"family": "falcon", "config": {}, "batch": 1000000000000}',
            "line 1: a case's `batch` must be a whole number from 1",
        ),
        (
            '{"family": "falcon", "config": {"rope_theta": 1e400}}',
            "line 1: not JSON that can be read: '1e400' is beyond every number",
        ),
        ('{"family": "falcon", "config": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1: nested too deep"),
        (
            '{"family": "falcon", "config": {}}\n{"family": "falcon", "config": {}, "device": "cuda"}',
            "holds cases of several devices, cpu, cuda: run each device's alone",
        ),
    ],
)
def test_a_file_without_such_cases_is_told(verifier, tmp_path, text, said):
    file = tmp_path / "cases.jsonl"
    file.write_text(text)
    ended = verifier("run", "falcon", "--cases", file, "--adapter", "mine:Right", "--out", tmp_path / "out")
    assert ended.status == 2
    assert said in ended.line


def test_every_check_looks_at_the_cases_of_a_file_where_that_is_asked_for(verifier, tmp_path):
    file = tmp_path / "cases.jsonl"
    config = {"hidden_size": 16, "num_attention_heads": 2, "vocab_size": 60, "num_hidden_layers": 1}
    file.write_text(json.dumps({"family": "falcon", "config": config}))
    globs = ("--only", "reference.attention", "--only", "build.adapter")
    for more, looked in (((), {"build.adapter"}), (("--everywhere",), {"reference.attention", "build.adapter"})):
        ended = verifier("run", "falcon", "--cases", file, "--adapter", "mine:Right", *globs, *more, "--out", tmp_path)
        assert ended.status == 0
        assert {one.outcome.check for one in record.read(tmp_path).entries} == looked


@pytest.mark.parametrize("isolation", ["--isolation", "--no-isolation"])
def test_a_case_that_asks_for_what_hugging_face_has_not_is_nobodys_failure(verifier, tmp_path, isolation):
    file = tmp_path / "cases.jsonl"
    file.write_text(
        '{"family": "falcon", "config": {"hidden_size": 16, "num_attention_heads": 2}, "attention": "eagre"}'
    )
    ended = verifier("run", "falcon", "--cases", file, "--adapter", "mine:Right", "--out", tmp_path, isolation)
    assert ended.status == 2
    said = ended.err.splitlines()[-1]
    assert "asks for attention 'eagre', which is none of sdpa, eager (did you mean 'eager'?)" in said
    # What was done before it is there to be read.
    kept = record.read(tmp_path)
    assert kept.end is not None
    assert kept.end.exit == ended.status
    assert verifier("report", tmp_path, "--gate").status == 3


@pytest.mark.slow
def test_limits_are_kept_in_the_record_and_their_units_are_known(verifier, tmp_path):
    arguments = (
        "run",
        "falcon",
        "--where",
        FEW,
        "--only",
        "build.adapter",
        "--adapter",
        "mine:Right",
        "--out",
        tmp_path,
    )
    for more, limits in (
        ((), {"timeout": 60, "memory": 2 * 2**30}),
        (("--timeout", "1.5m", "--memory", "512M"), {"timeout": 90, "memory": 512 * 2**20}),
        (("--timeout", "0", "--memory", "0"), {"timeout": None, "memory": None}),
    ):
        assert verifier(*arguments, *more).status == 0
        assert record.read(tmp_path).run.limits == limits


def test_the_slowest_cases_are_named_on_request(verifier, tmp_path):
    arguments = (
        "run",
        "falcon",
        "--where",
        FEW,
        "--only",
        "build.adapter",
        "--adapter",
        "mine:Right",
        "--out",
        tmp_path,
    )
    ended = verifier(*arguments, "--slowest", 2)
    lines = ended.out.splitlines()
    done = record.read(tmp_path).done
    named = [line.split()[2] for line in lines[lines.index("Slowest cases") + 1 :][:2]]
    assert named == sorted(done, key=lambda case: -done[case])[:2]
    assert "Slowest" not in verifier(*arguments).out


@pytest.mark.slow
def test_without_isolation_it_runs_in_the_process_itself(verifier, tmp_path):
    arguments = ("run", "falcon", "--where", FEW, "--only", "build", "--adapter", "mine:Silent")
    apart, here = tmp_path / "apart", tmp_path / "here"
    assert verifier(*arguments, "--out", apart).status == verifier(*arguments, "--out", here, "--no-isolation").status
    assert have_same_result(apart / record.FILE, here / record.FILE)


def test_the_debugger_stops_at_a_failure(verifier, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("p 6 * 7\nq\n"))
    ended = verifier(
        "run", "falcon", "--where", FEW, "--only", "build", "--adapter", "mine:Raises", "--out", tmp_path, "--pdb"
    )
    assert ended.status == 130
    assert "(Pdb) 42" in ended.out
    assert [entry.outcome.verdict for entry in record.read(tmp_path).entries if entry.outcome.verdict.gates] == [
        "error"
    ]
