"""Model files of real shapes with random weights: as slow as the real ones, and made in seconds."""
