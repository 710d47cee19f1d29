"""Templates of new packages, for `privbench new`."""
