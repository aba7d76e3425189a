"""People against background on whole images: U-nets, what they learn on and how they are judged."""
