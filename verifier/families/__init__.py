"""The model families: only this package names one."""
