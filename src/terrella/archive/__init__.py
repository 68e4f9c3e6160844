"""Whole archives: units of work, a store that loses nothing, many workers, one catalogue."""
