"""`verifier baseline`: write a run's failures down as known, for a person to say why each is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from verifier import record
from verifier.baseline.file import NAME, read
from verifier.baseline.making import make_baseline
from verifier.baseline.renewing import carry_over
from verifier.baseline.writing import remove, write
from verifier.errors import ExitStatus, UsageError
from verifier.output import text
from verifier.requests import configuration


def baseline(paths: Sequence[Path], out: Path | None, fingerprints: Sequence[str] = ()) -> ExitStatus:
    """Write the baseline of a run, or take entries out of one.

    Args:
        paths: the record, or the shards of one run.
        out: the baseline; None for the configured one.
        fingerprints: the entries to take out.

    Raises:
        UsageError: a record cannot be read or is not whole, several records are not shards of one run, the file is no
            baseline or one of another family or adapter, it has no such entry, or it cannot be written.
    """
    if bool(paths) == bool(fingerprints):
        raise UsageError("name a RECORD to write the baseline of, or entries to take out of it with --remove ID")
    out = out or _configured_baseline()
    if fingerprints:
        remove(out, fingerprints)
        print(f"{out}: {text.plural(len(fingerprints), 'entry', 'entries')} removed")
        return ExitStatus.CONFORMS
    records = record.join_shards([record.read(path) for path in paths])
    if len(records) > 1:
        raise UsageError(
            f"{str(records[0].path)!r} and {str(records[1].path)!r} are no shards of one run: a baseline is made of one"
        )
    made = make_baseline(records[0], str(out))
    carried = 0
    before = read(out, finished=False) if out.exists() else None
    if before is not None and (before.family, before.adapter) != (made.family, made.adapter):
        raise UsageError(
            f"{str(out)!r} is the baseline of {before.family} × {before.adapter}, and the record is of {made.family} × "
            f"{made.adapter}: name another file with --out"
        )
    if before is not None:
        made, carried = carry_over(before, made, records[0])
    write(out, made)
    old = {one.fingerprint for one in before.failures} if before else set()
    new = {one.fingerprint for one in made.failures}
    print(
        f"{out}: {text.plural(len(new), 'known failure')} ({len(new - old)} added, {len(old - new)} removed, "
        f"{len(new & old)} kept)"
    )
    if carried:
        print(
            f"{text.plural(carried, 'added entry has', 'added entries have')} the reason given for a check that is gone"
        )
    written = read(out, finished=False)
    unfinished = [
        one.fingerprint for one in written.failures if not one.reason.strip() or not (one.issue.strip() or one.expires)
    ]
    if unfinished:
        print(
            f"{text.plural(len(unfinished), 'entry', 'entries')} to be filled in, with a reason and an issue or a day, "
            f"before `verifier run --baseline` takes it"
        )
    return ExitStatus.CONFORMS


def _configured_baseline() -> Path:
    """Name the baseline that the project configures, or the usual file.

    Raises:
        UsageError: the project configures several.
    """
    paths: tuple[Path, ...] = configuration.read(Path.cwd()).settings.get("baseline", ())
    if len(paths) > 1:
        raise UsageError("the project names several baselines: say which with --out FILE")
    return paths[0] if paths else Path(NAME)
