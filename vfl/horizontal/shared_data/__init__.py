"""Part shared-data: each round's mean is adjusted on rows that the aggregator holds."""
