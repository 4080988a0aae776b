"""The record of a run: a JSON Lines file of schema 2, appended as results come, and validated when it is read.

Its lines, each one object written whole in one append:

- `run`, first: family, adapter (both as references), versions, seed, flags with their values (plainest first), dims,
  the selected checks with what they prove, how many cases are planned, what was asked for, and what a case may take;
- `case`: the case's id and every field of its `CaseSpec`, before its outcomes;
- `outcome`: the case's id and every field of an `Outcome` that is not None, with its fingerprint;
- `row`: what came of one circumstance of the case, before the outcome of the check that was the first to need it: what
  of the circumstance is not plain, its seconds, what Hugging Face refused or the adapter does not offer, the
  observables that passed with no error beyond the least noise, and of each other one its verdict, its worst error over
  bound and the place of that;
- `done`: the case's id and seconds, after its outcomes: a run that is taken up again runs the cases without it;
- `lost`: the case in which a process died, the check that it was at, and how; the case is run again, alone;
- `evidence`: what one check compared on the smallest case of a failure: its places, and how one of them differs;
- `alone`: what became of a failure whose check ran once more on its smallest case, alone in a fresh process;
- `ladder`: that case's hook points in causal order, each with its error and its bound, forward and backward;
- `baseline`: what the run is held against: the file, what narrowed the run that it was made of, and on how many cases
  each check looked then;
- `known`: after it, one for each of its entries: the entry, and what became of it when its case was run again;
- `found`: of a fuzzing campaign: a distinct failure at its minimal case, and how it was shrunk;
- `resumed`: the run was taken up again, with how many workers, and when;
- `end`: counts by verdict, the exit status, why the run stopped, and the seconds since it began or was resumed.

JSON has no spelling for numbers that are not finite; they stand as the strings `"inf"`, `"-inf"` and `"nan"`. A later
line for the same case and check, or case and circumstance, replaces the earlier one. Lines of other kinds are left
aside. Schema 1, which has no `row`, is still read.
"""

from verifier.record.folder_lock import lock_folder
from verifier.record.lines import FILE, EndLine, LostProcess, Record, RecordedOutcome, RunLine
from verifier.record.merging import merge_records
from verifier.record.reading import durations, read, read_content
from verifier.record.shards import OF_ANOTHER_RUN, join_shards
from verifier.record.writing import PREVIOUS, RecordLost, Writer

__all__ = [
    "FILE",
    "OF_ANOTHER_RUN",
    "PREVIOUS",
    "EndLine",
    "LostProcess",
    "Record",
    "RecordLost",
    "RecordedOutcome",
    "RunLine",
    "Writer",
    "durations",
    "join_shards",
    "lock_folder",
    "merge_records",
    "read",
    "read_content",
]
