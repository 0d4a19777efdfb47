"""What the engine is measured in, one file per kind of load."""
