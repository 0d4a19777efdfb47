"""Shipped hook implementations, one concern a file; reached by dotted name only."""
