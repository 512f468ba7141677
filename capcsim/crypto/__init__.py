"""Rings and shares, two-party programs, and the default steps 1c and 3. Knows no scenario and no simulation."""
