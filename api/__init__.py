"""The edge: HTTP and the command line turned into calls on a Party. Knows nothing about learning."""
