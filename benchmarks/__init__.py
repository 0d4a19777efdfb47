"""Measures this package against llama-server on the same machine, in the same run."""
