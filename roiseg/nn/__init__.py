"""Building blocks of heads."""
