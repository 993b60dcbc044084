"""Ground truth for composed privacy profiles, independent of the library under test."""
