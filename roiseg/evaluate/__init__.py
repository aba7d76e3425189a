"""How good a head is: figures, plots, pictures and COCO results."""
