"""What a party keeps on its own disk: jobs and events in a database, models in files."""
