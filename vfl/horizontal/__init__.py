"""Jobs of rounds: the two sides, what a part may do at each place of a round, and a folder for each part."""
