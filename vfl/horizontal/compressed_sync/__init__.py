"""Part compressed-sync: parameters are codes of a few bits wherever they rest and wherever they travel."""
