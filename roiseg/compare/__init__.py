"""Runs beside each other: which figures differ and how surely, where, by which params, and what each feature is worth."""
