"""One file for each form that the tables have had. A file that was in a release is never changed."""
