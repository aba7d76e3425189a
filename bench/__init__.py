"""Side-by-side measurements; see each file."""
