"""Fuzzing a family's config space: every distinct failure, each shrunk to its minimal case.

`fields` says what may vary, and how a choice becomes a case. `campaign` decides which case is next: those that are
kept from before, each value alone, a covering of all pairs of values, then random ones that Hypothesis steers towards
errors near their bounds. Each thread of a campaign runs its cases in a process of its own, which may die; `ledger` is
what the threads share. `minimizing` makes a finding of a failure: Hypothesis shrinks it (`shrinking`), outside the
process in which it fails, it is run again in fresh processes, and kept (`kept`).
"""
