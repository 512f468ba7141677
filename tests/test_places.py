"""Groups, sites, machines and latencies: who works where, and what cannot be."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from capcsim.errors import ScenarioError
from capcsim.scenario import PRESETS, Member, Network, Scenario, parse_scenario

Make = Callable[..., Scenario]
Changes = dict[str, Any]
CLINICS = {"count": 3, "queriers": 1, "site": "berlin", "machine": "server"}
LABS = {"count": 4, "queriers": 2, "per_querier": 2, "site": "paris", "parties_per_machine": 2}
_PLACES = {
    "parties": {},
    "groups": {"clinics": CLINICS, "labs": LABS},
    "sites": {"berlin": {"up_bps": 1e8, "place": "berlin"}, "paris": {"place": "paris"}},
    "guardian": {"site": "berlin"},
    "machines.server": {"cores": 16, "speed": 2.0, "up_bps": 5e8, "background": 0.25},
}


def places(**changes: Any) -> Changes:
    """Two groups at two sites."""
    return {**copy.deepcopy(_PLACES), **changes}


PRESET = {"network.latency_s": None, "network.latency_preset": "azure-europe", "network.latency_within_s": 0.001}


def test_groups_say_how_many_parties_there_are_and_those_that_ask_come_first(scenario: Make) -> None:
    found = scenario(places())
    assert (found.parties.count, found.parties.queriers) == (7, 3)
    assert [member.name for member in found.members] == [
        *("clinics 0", "labs 0", "labs 1"),
        *("clinics 1", "clinics 2", "labs 2", "labs 3"),
    ]
    assert [found.wanted(querier) for querier in range(3)] == [found.queries.per_querier, 2, 2]


def test_without_groups_all_parties_are_one(scenario: Make) -> None:
    found = scenario({"parties.count": 3, "parties.queriers": 2, "machines.parties_per_machine": 2})
    assert found.members == (Member("parties", 0), Member("parties", 1), Member("parties", 2))
    assert [member.name for member in found.members] == ["party 0", "party 1", "party 2"]
    assert found.group_of(2).parties_per_machine == 2


def test_a_scenario_with_groups_is_read_again_from_what_it_writes(scenario: Make) -> None:
    found = scenario(places(**PRESET))
    assert parse_scenario(found.model_dump(mode="json")) == found


def test_latencies_are_those_of_the_pair_else_of_the_preset_else_of_all(scenario: Make) -> None:
    found = scenario(places(**PRESET))
    # Berlin to Paris 19 ms and back 18 ms there and back: one way is a quarter of both.
    assert found.latency_s("berlin", "paris") == found.latency_s("paris", "berlin") == pytest.approx(0.00925)
    assert found.latency_s("paris", "paris") == 0.001
    between = {"berlin": {"paris": 0.3, "berlin": 0.2}}
    found = scenario(places(**PRESET, **{"network.latency_between_s": between}))
    assert (found.latency_s("berlin", "paris"), found.latency_s("paris", "berlin")) == (0.3, 0.3)
    assert (found.latency_s("berlin", "berlin"), found.latency_s("paris", "paris")) == (0.2, 0.001)
    found = scenario(places(**{"network.latency_between_s": {"berlin": {"paris": 0.3}, "paris": {"berlin": 0.4}}}))
    assert (found.latency_s("berlin", "paris"), found.latency_s("paris", "berlin")) == (0.3, 0.4)
    assert found.latency_s("paris", "paris") == found.network.latency_s


def test_presets_have_a_round_trip_for_each_pair_of_places() -> None:
    for preset in PRESETS.values():
        assert len(preset.round_trip_ms) == len(preset.places)
        for number, row in enumerate(preset.round_trip_ms):
            assert len(row) == len(preset.places)
            assert [place for place, ms in enumerate(row) if ms == 0] == [number]
            assert all(abs(ms - preset.round_trip_ms[other][number]) <= 6 for other, ms in enumerate(row))
        assert "Azure" in preset.source


def test_another_network_takes_the_place_of_lines_and_backbones(scenario: Make) -> None:
    found = scenario(places(**PRESET, **{"sites.berlin.utc_offset_h": 1.0, "sites.paris.utc_offset_h": 2.0}))
    own = Network(latency_s=0.5, party=found.network.party, guardian=found.network.guardian)
    moved = found.on_network(own)
    assert moved.latency_s("berlin", "paris") == moved.latency_s("paris", "paris") == 0.5
    assert moved.sites["berlin"].up_bps is None
    assert [site.utc_offset_h for site in moved.sites.values()] == [1.0, 2.0], "clocks stay"
    assert moved.machines.kinds["server"].up_bps is None
    assert moved.machines.kinds["server"].cores == 16
    assert found.on_network(found.network) is found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"groups.clinics.site": "rome"}, r"groups\.clinics\.site = 'rome': a site; the scenario has berlin, paris"),
        ({"groups.clinics.site": None}, r"groups\.clinics\.site is missing: one of berlin, paris, as there are sites"),
        ({"guardian.site": None}, r"guardian\.site is missing: one of berlin, paris"),
        ({"dealer.site": "rome"}, r"dealer\.site = 'rome'"),
        ({"groups.labs.machine": "toaster"}, r"groups\.labs\.machine = 'toaster': one of party, guardian, server"),
        ({"groups.labs.queriers": 5}, r"groups\.labs\.queriers = 5: at most its count = 4"),
        (
            {"groups.labs.queriers": 0, "groups.clinics.queriers": 0},
            r"groups\.clinics\.queriers = 0: at least 1 in one",
        ),
        ({"groups.labs.count": 0}, r"groups\.labs\.count = 0"),
        ({"groups.labs.colour": "red"}, r"groups\.labs\.colour"),
        ({"parties.count": 8}, r"parties\.count = 8: nothing: the groups have 7"),
        ({"groups.labs.per_querier": 31}, r"groups\.labs\.per_querier = 31: at most data\.pool_per_querier = 30"),
        ({"sites.berlin.place": "atlantis"}, r"sites\.berlin\.place = 'atlantis'"),
        ({"sites.ber lin": {}}, r"sites\.ber lin = 'ber lin': a name of letters, digits, - and _"),
        ({"machines.server.cores": 0}, r"machines\.server\.cores = 0"),
        ({"machines.server.background": 1.0}, r"machines\.server\.background = 1\.0"),
        (
            {"machines.server.cpu": "a", "machines.party.cpu": "a"},
            r"machines\.server\.cores = 16: 2, as machines\.party",
        ),
        ({"network.latency_s": None}, r"network\.latency_within_s is missing: .* two machines of berlin"),
        (
            {"network.latency_s": None, "network.latency_within_s": 0.1},
            r"network\.latency_between_s\.berlin\.paris is missing",
        ),
        ({"network.latency_between_s": {"rome": {}}}, r"network\.latency_between_s\.rome = 'rome': a site"),
        ({"network.latency_between_s": {"paris": {"berlin": -1.0}}}, r"network\.latency_between_s\.paris\.berlin = -1"),
        ({"network.latency_preset": "moon"}, r"network\.latency_preset = 'moon'"),
    ],
)
def test_what_cannot_be_is_told_with_its_key(scenario: Make, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        scenario(places(**copy.deepcopy(changes)))


def test_without_sites_a_latency_is_needed(scenario: Make) -> None:
    with pytest.raises(
        ScenarioError, match=r"network\.latency_s is missing: seconds, one way, between any two machines"
    ):
        scenario({"network.latency_s": None})
