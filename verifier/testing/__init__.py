"""The matrix inside anyone's pytest run: the same plan, cases, checks and verdicts as `verifier run`."""
