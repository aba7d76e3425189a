"""Statistics of the training people: what ROIs are made of, overlaps, sizes, and the class weights that follow."""
