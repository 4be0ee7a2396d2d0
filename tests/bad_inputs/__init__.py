"""Inputs that are damaged, and what programs say of them: one line and exit code 2."""
