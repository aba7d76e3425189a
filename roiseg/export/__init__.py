"""A trained head as files that run without torch."""
