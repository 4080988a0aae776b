"""A shape for each verdict, so that none is told by colour alone."""

from verifier.judging.outcome import Verdict

SHAPES = {
    Verdict.PASS: "✓",
    Verdict.REDUCED: "≈",
    Verdict.FAIL: "✗",
    Verdict.ERROR: "!",
    Verdict.CRASH: "☠",
    Verdict.TIMEOUT: "◷",
    Verdict.SKIP: "–",
    Verdict.UPSTREAM: "↑",
    Verdict.KNOWN: "◇",
}
