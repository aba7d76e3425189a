"""One thin script per DVC stage: it reads its sections, calls the package, and names its outs."""
