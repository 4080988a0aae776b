"""The page as a browser has it: it reads without scripts, and with them it filters, jumps, copies and opens windows."""

from __future__ import annotations

import http.server
import importlib.util
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from made_records import outcome, specs

from verifier import record
from verifier.analysis.bugs import find_bugs
from verifier.analysis.view import view_record
from verifier.errors import ExitStatus
from verifier.judging.error_map import difference
from verifier.judging.evidence import Evidence, Ladder, Rung
from verifier.judging.outcome import Verdict
from verifier.record import Record
from verifier.report import html

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = [
    *(name for name, found in {"chromium": BROWSER, "chromium-driver": DRIVER}.items() if found is None),
    *(name for name in ("selenium", "axe_core_python") if importlib.util.find_spec(name) is None),
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

HOSTILE = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 1'> \x1b[31m \u202e"
Z = "blocks.0.attn.hook_z"


# --- pages -----------------------------------------------------------------------------------------------------------


def _fails(spec, check):
    if check == "qkv.rows" and spec.config["kv_heads"] == 4:
        return outcome(check, Verdict.FAIL, where="blocks.0.attn.q.weight", message="rows differ", measured=1, bound=0)
    if check == "forward.logits":
        bad = spec.config["alibi"]
        measured = 0.5 if bad else 3e-15
        return outcome(
            check,
            Verdict.FAIL if bad else Verdict.PASS,
            where=Z if bad else None,
            message="off by 5.0e-01" if bad else None,
            measured=measured,
            bound=1e-14,
        )
    if check == "reference.acceptance" and spec.config["bias"]:
        return outcome(check, Verdict.UPSTREAM, where="eager", message="HF against HF")
    return None


def _dies(spec, check):
    if check == "build.adapter" and spec.config["bias"]:
        verdict = Verdict.CRASH if spec.config["alibi"] else Verdict.TIMEOUT
        return outcome(check, verdict, message=HOSTILE, exception="SIGSEGV", detail=HOSTILE * 50)
    if check == "qkv.rows" and spec.config["kv_heads"] == 1:
        return outcome(check, Verdict.ERROR, message=HOSTILE, exception=HOSTILE, site=HOSTILE, detail=HOSTILE)
    return outcome(check, Verdict.SKIP, message=HOSTILE) if check == "forward.logits" else None


def _looked_at(kept: Record, folder: Path) -> Record:
    """The record with evidence of each failure."""
    right = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = right.clone()
    given[:, :, 1] += 0.5
    verdicts = {"hook_embed": Verdict.PASS, Z: Verdict.FAIL, "logits": Verdict.FAIL}
    rungs = tuple(
        Rung(where=where, verdict=verdict, measured=0.5 if verdict is Verdict.FAIL else 1e-16, bound=1e-14)
        for where, verdict in verdicts.items()
    )
    lines = (folder / record.FILE).read_text().splitlines(keepends=True)
    found = find_bugs(kept, upstream=False)
    with record.Writer(folder, onto=kept) as writer:
        for one in found:
            writer.evidence(
                Evidence(
                    case=one.smallest.id,
                    check=one.entry.outcome.check,
                    fingerprint=one.fingerprint,
                    places=rungs,
                    more=0,
                    difference=difference(Z, given, right, bound=1e-14),
                )
            )
        for case in dict.fromkeys(one.smallest.id for one in found):
            writer.evidence(Ladder(case=case, forward=rungs, backward=rungs, missing={}))
        writer.end(status=ExitStatus.DIFFERS, stop="complete", seconds=12.5)
    assert len((folder / record.FILE).read_text().splitlines()) > len(lines)
    return record.read(folder)


@pytest.fixture
def pages(make, tmp_path: Path) -> dict[str, Path]:
    """Four pages: one that conforms, one that differs and was looked at, one with deaths and hostile texts, two
    records side by side."""
    refused = partial(specs, lambda config: config["alibi"] and config["kv_heads"] == 4)
    views = {
        "conforms": view_record(make(specs())),
        "dies": view_record(make(refused(), _dies, adapter=HOSTILE, adapter_name=HOSTILE)),
        "differs": view_record(_looked_at(make(refused(), _fails), tmp_path)),
    }
    made = {name: html.render([one]) for name, one in views.items()}
    made["two"] = html.render([views["differs"], views["conforms"]])
    folder = tmp_path / "pages"
    folder.mkdir()
    for name, page in made.items():
        (folder / f"{name}.html").write_text(page)
    return {name: folder / f"{name}.html" for name in made}


# --- browsers --------------------------------------------------------------------------------------------------------


def _start(*, scripts: bool = True):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_window_size(1400, 1000)
    return driver


@pytest.fixture(scope="module")
def browser() -> Iterator:
    driver = _start()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def scriptless() -> Iterator:
    driver = _start(scripts=False)
    yield driver
    driver.quit()


class Shown:
    """A page in the browser."""

    def __init__(self, driver, path: Path, address: str = "") -> None:
        self.driver = driver
        driver.get("about:blank")
        driver.get_log("browser")
        driver.get(f"{path.as_uri()}{address}")
        self.until("return document.documentElement.dataset.ready === 'yes'")

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 20).until(lambda driver: driver.execute_script(script, *arguments))

    def press(self, keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def visible(self, selector: str) -> list[str]:
        """The texts of what is there and not hidden."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].filter(one => one.checkVisibility())"
            ".map(one => one.innerText)",
            selector,
        )

    def filter(self, words: str) -> str:
        """What the page says that it shows."""
        before = self.run("return document.getElementById('matched').textContent")
        self.run(
            "const box = document.getElementById('filter'); box.value = arguments[0];"
            "box.dispatchEvent(new Event('input', {bubbles: true}))",
            words,
        )
        self.until("return document.getElementById('matched').textContent !== arguments[0]", before)
        return self.run("return document.getElementById('matched').textContent")

    @property
    def title(self) -> str:
        """Of the window that is open."""
        return self.run("return document.querySelector('dialog[open] h2')?.textContent ?? ''")

    @property
    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def show(browser):
    return partial(Shown, browser)


@pytest.mark.parametrize("name", ["conforms", "differs", "dies", "two"])
def test_a_page_opens_with_no_error_and_loads_nothing_else(show, pages, name):
    page = show(pages[name])
    assert page.errors == []
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    assert page.run("return window.evil") is None
    assert page.run("return document.querySelectorAll('img, iframe, object').length") == 0


@pytest.mark.parametrize("name", ["conforms", "differs", "dies", "two"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 1400), ("light", 390)])
def test_an_accessibility_scan_is_clean(browser, show, pages, name, scheme, width):
    import axe_core_python

    axe = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    try:
        page = show(pages[name])
        page.run("for (const one of document.querySelectorAll('details')) one.open = true")
        browser.execute_cdp_cmd("Runtime.evaluate", {"expression": axe})
        found = browser.execute_async_script(
            "const done = arguments[0]; axe.run(document).then(done, error => done({error: String(error)}))"
        )
        assert "error" not in found
        assert found["passes"]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


# --- without scripts -------------------------------------------------------------------------------------------------


def _read(driver) -> str:
    return driver.find_element("tag name", "main").text


def _reads(text: str) -> None:
    assert "DOES NOT CONFORM" in text
    assert "alibi (fails 4 of 4, passes 6 of 6)" in " ".join(text.split())
    assert "kv_heads == 4" in text
    assert "verifier repro" in text
    assert "differs in head 1 (of 3)" in text


def test_it_reads_without_scripts(scriptless, pages):
    scriptless.get(pages["differs"].as_uri())
    text = _read(scriptless)
    _reads(text)
    # Nothing offers what only a script can do.
    assert not scriptless.find_element("id", "tools").is_displayed()
    assert "Copy link" not in text
    assert "needs scripts" in text
    every = scriptless.find_element("css selector", "details.every")
    every.find_element("tag name", "summary").click()
    rows = every.find_elements("css selector", "tr[data-case]")
    assert len(rows) == 12
    assert sum("refused by HF: HF says no" in row.text for row in rows) == 2


def test_it_reads_where_the_host_forbids_scripts_and_styles(scriptless, pages):
    class Strict(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            self.send_header("Content-Security-Policy", "default-src 'none'; sandbox")
            super().end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Strict, directory=str(pages["differs"].parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        scriptless.get(f"http://127.0.0.1:{server.server_port}/differs.html")
        _reads(_read(scriptless))
        assert not scriptless.find_element("id", "tools").is_displayed()
    finally:
        server.shutdown()
        server.server_close()


# --- filters, addresses, keys ----------------------------------------------------------------------------------------


def test_a_filter_narrows_everything_and_is_part_of_the_address(show, pages):
    page = show(pages["differs"])
    assert page.filter("alibi=true check:forward.* verdict:fail") == "4 cases, 4 outcomes, 1 finding"
    assert len(page.visible("article.finding")) == 1
    assert len(page.visible("details.every tr[data-case]")) == 4
    assert len(page.visible("[data-table] tbody tr")) == 4
    assert len(page.visible("[id$=parity] ~ div tr[data-check]")) == 1
    address = page.run("return location.hash")
    again = show(pages["differs"], address)
    assert again.run("return document.getElementById('filter').value") == "alibi=true check:forward.* verdict:fail"
    assert len(again.visible("article.finding")) == 1
    again.run("document.getElementById('clear').click()")
    assert len(again.visible("article.finding")) == 3
    assert again.run("return location.hash") == ""


@pytest.mark.parametrize(
    ("words", "cases"),
    [
        ("kv_heads=4", 4),
        ("kv_heads!=4", 8),
        ("valid:no", 2),
        ("verdict:upstream", 6),
        ("area:qkv verdict:fail", 2),
        ("rows differ", 2),
        ("nothing-like-that", 0),
    ],
)
def test_words_of_a_filter_mean_what_they_say(show, pages, words, cases):
    page = show(pages["differs"])
    assert page.filter(words).startswith(f"{cases} case")


def test_a_failure_has_the_address_of_its_fingerprint(show, pages):
    page = show(pages["differs"])
    fingerprint = page.run("return document.querySelectorAll('article.finding')[1].id")
    there = show(pages["differs"], f"#{fingerprint}")
    assert there.run("return document.activeElement.id") == fingerprint
    assert there.run("const top = document.activeElement.getBoundingClientRect().top; return top > 0 && top < 200")


def test_a_case_and_a_cell_have_addresses_that_open_windows_on_them(show, pages):
    page = show(pages["differs"])
    case = page.run("return document.querySelector('tr[data-case] td.fail').closest('tr').dataset.case")
    whole_case = show(pages["differs"], f"#{case}")
    assert whole_case.title == f"Case {case}"
    assert len(whole_case.visible("#drill tbody tr")) == 4
    assert f"verifier repro {case} " in whole_case.visible("#drill-body")[0]
    assert whole_case.run("return document.querySelector('details.every').open")
    cell = show(pages["differs"], f"#{case}-qkv")
    assert cell.title == f"Case {case}: qkv"
    assert len(cell.visible("#drill tbody tr")) == 1


def test_a_click_on_a_cell_opens_its_window(show, pages):
    page = show(pages["differs"])
    page.run("document.querySelector('details.every').open = true")
    identity = page.run("return document.querySelector('tr[data-case] td.fail').id")
    page.run("document.getElementById(arguments[0]).click()", identity)
    page.until("return document.getElementById('drill').open")
    assert page.run("return location.hash") == f"#{identity}"


def test_keys_go_through_the_findings_and_to_the_filter(show, pages):
    page = show(pages["differs"])
    ids = page.run("return [...document.querySelectorAll('article.finding')].map(one => one.id)")
    seen = []
    for key in "jjk":
        page.press(key)
        page.until("return document.activeElement.id !== arguments[0]", seen[-1] if seen else "")
        seen.append(page.run("return document.activeElement.id"))
    assert seen == [ids[0], ids[1], ids[0]]
    page.press("?")
    assert page.title == "Keys and filters"
    page.press("\ue00c")  # escape
    page.until("return !document.getElementById('help').open")
    page.press("/")
    assert page.run("return document.activeElement.id") == "filter"
    page.press("jk?")
    assert page.run("return document.getElementById('filter').value") == "jk?"
    page.press("\ue00c")
    assert page.run("return document.activeElement.id") != "filter"


def test_no_key_is_a_trap(show, pages):
    # Everything that can be reached by tabulator can be left by it.
    page = show(pages["conforms"])
    seen = set()
    for _ in range(120):
        page.press("\ue004")
        here = page.run("const all = [...document.querySelectorAll('*')]; return all.indexOf(document.activeElement)")
        if here in seen:
            break
        seen.add(here)
    assert len(seen) > 20


# --- windows, copies, exports ----------------------------------------------------------------------------------------


def _copied(page, selector):
    """What a button gives to the clipboard, which a headless browser has none of."""
    page.run("navigator.clipboard.writeText = async text => { window.copied = text }")
    page.run("document.querySelector(arguments[0]).click()", selector)
    page.until("return document.querySelector(arguments[0]).textContent === 'Copied'", selector)
    return page.run("return window.copied")


def test_buttons_copy_the_link_the_command_and_the_bug_report(show, pages):
    page = show(pages["differs"])
    identity = page.run("return document.querySelector('article.finding').id")
    assert _copied(page, "[data-copy-link]") == f"{pages['differs'].as_uri()}#{identity}"
    assert _copied(page, "[data-copy$=command]").startswith(f"verifier repro {identity} ")
    report = _copied(page, "[data-copy$=report]")
    assert report.startswith("### toy: mine differs from Hugging Face")
    assert f"verifier repro {identity}" in report


def test_a_copied_filter_is_its_address(show, pages):
    page = show(pages["differs"])
    page.filter("alibi=true")
    assert _copied(page, "#copy-filter") == f"{pages['differs'].as_uri()}#q=alibi%3Dtrue"


def test_where_the_clipboard_is_refused_the_browser_s_old_way_copies(show, pages):
    page = show(pages["differs"])
    page.run("document.addEventListener('copy', () => { window.copied = document.activeElement.value })")
    page.run("navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))")
    page.driver.find_element("css selector", "[data-copy$=command]").click()
    assert page.until("return window.copied").startswith("verifier repro ")
    assert page.run("return document.querySelectorAll('textarea').length") == 0


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_what_is_filtered_can_be_exported(show, pages, tmp_path, kind):
    page = show(pages["dies"])
    folder = tmp_path / "downloads"
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": True}
    )
    page.filter("verdict:error")
    page.run("document.querySelector(`[data-export=${arguments[0]}]`).click()", kind)
    file = folder / f"outcomes.{kind}"
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page.driver, 20).until(lambda _driver: file.exists() and file.stat().st_size)
    text = file.read_text()
    if kind == "json":
        rows = json.loads(text)
        assert {row["verdict"] for row in rows} == {"error"}
        assert "</script>" in rows[0]["said"]
    else:
        header, *rows = text.splitlines()
        assert header.startswith("case,check,verdict,")
        assert rows
        assert all('"error"' in row for row in rows)


def test_the_matrix_is_grouped_by_any_flag(show, pages):
    page = show(pages["differs"])
    page.run("document.querySelector('details.every').open = true")
    assert [head.split(":")[0] for head in page.visible("details.every .grouphead")] == ["bias = false", "bias = true"]
    page.run(
        "const select = document.querySelector('[data-group]'); select.value = '2';"
        "select.dispatchEvent(new Event('change'))"
    )
    heads = page.visible("details.every .grouphead")
    assert [head.split(":")[0] for head in heads] == ["kv_heads = none", "kv_heads = 1", "kv_heads = 4"]
    assert "4 combinations" in heads[0]
    assert len(page.visible("details.every tr[data-case]")) == 12


def test_a_check_s_errors_are_plotted_a_mark_a_case(show, pages):
    page = show(pages["differs"], "#check=forward.logits")
    assert page.title == "Errors of forward.logits"
    assert page.run("return document.querySelectorAll('#drill svg rect title').length") == 10
    assert page.run("return document.querySelectorAll('#drill svg rect.over').length") == 4
    page.run(
        "const select = document.getElementById('plot-by'); select.value = 'alibi';"
        "select.dispatchEvent(new Event('change'))"
    )
    assert page.run("return [...document.querySelectorAll('#drill svg text')].map(one => one.textContent)") == [
        "false (6)",
        "true (4)",
    ]


def test_two_records_stand_side_by_side_and_apart(show, pages):
    page = show(pages["two"])
    assert page.run("return document.querySelectorAll('section[data-record]').length") == 2
    assert "Side by side" in page.visible("h2")
    case = page.run("return document.querySelector('#r2 tr[data-case]').dataset.case")
    second = show(pages["two"], f"#r2-{case}")
    assert second.title == f"Case {case}"
    # The same case of the other record: its window says that record's outcomes.
    assert "FAIL" not in second.visible("#drill-body")[0]
