"""Measure the size of a report of many cases, and the time to make it and to open it in Chromium.

    python benchmarks/page.py --cases 10000 --checks 60

The cases are invented: their configs are random, some of them (`--failing`, one in a hundred) fail in one of twenty
ways, and each check measures an error.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from verifier import record
from verifier.analysis.view import view_record
from verifier.cases.spec import CaseSpec
from verifier.errors import ExitStatus
from verifier.judging.outcome import Outcome, Verdict
from verifier.report import html
from verifier.report.embedded_data import embed_data

FLAGS = {f"flag_{number}": [False, True] for number in range(6)}
BUGS = 20


def _write_record(folder: Path, cases: int, checks: int, failing: float) -> None:
    draw = random.Random(0)
    names = [f"area_{number % 10}.check_{number}" for number in range(checks)]
    line = record.RunLine(
        family="made-up",
        adapter="made-up",
        adapter_name="made-up",
        adapter_version="1",
        versions={},
        seed=0,
        started="2024-01-01T00:00:00+00:00",
        flags=FLAGS,
        dims={},
        checks=[{"id": name, "doc": "", "applies": "valid"} for name in names],
        planned={"valid": cases, "refused": 0},
        asked={},
        workers=2,
    )
    with record.Writer(folder) as writer:
        writer.run(line)
        for _ in range(cases):
            config = {name: draw.random() < 0.5 for name in FLAGS}
            spec = CaseSpec(family="made-up", config={**config, "hidden_size": draw.randrange(10**9)})
            writer.case(spec)
            bug = draw.randrange(BUGS) if draw.random() < failing else None
            for number, name in enumerate(names):
                fails = bug is not None and number == bug % checks
                writer.outcome(
                    spec.id,
                    Outcome(
                        check=name,
                        verdict=Verdict.FAIL if fails else Verdict.PASS,
                        where=f"blocks.0.place_{bug}" if fails else None,
                        message="off by 5.0e-01 (rms)" if fails else None,
                        measured=0.5 if fails else 10 ** draw.gauss(-15, 0.5),
                        bound=1e-14,
                        seconds=0.01,
                    ),
                )
            writer.done(spec.id, 0.1)
        writer.end(status=ExitStatus.DIFFERS, stop="complete", seconds=1.0)


def _time_opening(page: Path) -> float | None:
    """Measure the seconds until the page has filtered itself for the first time; None if there is no browser."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        began = time.perf_counter()
        chrome.get(page.as_uri())
        while chrome.execute_script("return document.documentElement.dataset.ready") != "yes":
            time.sleep(0.005)
        return time.perf_counter() - began
    finally:
        chrome.quit()


def main() -> None:
    """Make the record and its page, open the page, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--checks", type=int, default=60)
    parser.add_argument("--failing", type=float, default=0.01, metavar="SHARE", help="of the cases")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _write_record(place, options.cases, options.checks, options.failing)
        began = time.perf_counter()
        kept = record.read(place)
        read = time.perf_counter()
        everything = view_record(kept)
        computed = time.perf_counter()
        page = place / "report.html"
        page.write_text(html.render([everything]), encoding="utf-8")
        rendered = time.perf_counter()
        size, bytes_of_record = page.stat().st_size, kept.path.stat().st_size
        opened = _time_opening(page)
    print(f"{options.cases:,} cases × {options.checks} checks, a record of {bytes_of_record / 1e6:.1f} MB")
    print(f"read {read - began:.1f} s, computed {computed - read:.1f} s, rendered {rendered - computed:.1f} s")
    print(f"page {size / 1e6:.2f} MB, left out: {embed_data(kept).left_out or 'nothing'}")
    print("no browser to open it in" if opened is None else f"opened in {opened:.2f} s")


if __name__ == "__main__":
    main()
