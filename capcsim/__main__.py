"""`python -m capcsim` is the same as `capcsim`."""

from capcsim.cli import main

main()
