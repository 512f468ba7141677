"""What `capcsim compare` compares: backends with their options, and networks."""

from dataclasses import dataclass
from typing import Self

from capcsim.errors import ScenarioError, closest
from capcsim.scenario import Access, Network

MBPS = 1e6


def _network(latency_s: float, party_bps: float, guardian_bps: float) -> Network:
    party, guardian = (Access(up_bps=bps, down_bps=bps) for bps in (party_bps, guardian_bps))
    return Network(latency_s=latency_s, party=party, guardian=guardian)


NETWORKS: dict[str, Network] = {
    "lan": _network(0.0005, 1000 * MBPS, 10_000 * MBPS),
    "wan": _network(0.02, 200 * MBPS, 1000 * MBPS),
    "far": _network(0.1, 1000 * MBPS, 10_000 * MBPS),
    "slow": _network(0.05, 20 * MBPS, 200 * MBPS),
}
"""One-way latency, a party's access link, the guardian's: a data centre, offices over the internet, data centres on two
continents, poor lines."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend and the options that it is made with."""

    backend: str
    options: dict[str, bool | int | float | str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "name" or "name:option=value:option=value"; raises ScenarioError."""
        name, *settings = text.strip().split(":")
        options: dict[str, bool | int | float | str] = {}
        for setting in settings:
            key, separator, value = setting.partition("=")
            if not (key and separator and value):
                allowed = "names with options as in crypten:provider=third-party, with commas between"
                raise ScenarioError("--backends", text, allowed)
            options[key] = _value(value)
        return cls(name, options)

    def __str__(self) -> str:
        return ":".join([self.backend, *(f"{key}={value}" for key, value in self.options.items())])


def parse_choices(text: str) -> list[Choice]:
    """From "plaintext,crypten:provider=third-party"; raises ScenarioError."""
    choices = [Choice.parse(part) for part in text.split(",")]
    names = [str(choice) for choice in choices]
    if len(set(names)) < len(names):
        raise ScenarioError("--backends", text, "each of them once")
    return choices


def parse_networks(text: str) -> dict[str, Network]:
    """From "lan,wan"; raises ScenarioError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in NETWORKS:
            allowed = f"some of {', '.join(NETWORKS)}, with commas between{closest(name, NETWORKS)}"
            raise ScenarioError("--networks", name, allowed)
    return {name: NETWORKS[name] for name in names}


def _value(text: str) -> bool | int | float | str:
    """As in TOML, a bare word being a string."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
