"""Questions to a scenario: its stages as values, and the ways through them (run, compare)."""
