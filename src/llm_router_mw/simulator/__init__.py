"""The production scheduler on a clock that jumps: what would happen, before it does."""
