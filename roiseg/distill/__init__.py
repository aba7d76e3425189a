"""A small net that learns from a larger one and from a detector's maps: what the loss alone doesn't know."""
