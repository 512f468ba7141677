"""`python -m capcsim` is the same as `capcsim`."""

from capcsim.endings import end_with


def main() -> None:
    """Run the command line; what happens while it is still being loaded has a clear end too."""
    end_with(_command)


def _command() -> int:
    from capcsim.cli import call

    return call()


if __name__ == "__main__":
    main()
