"""What the user asked for: frozen models with the units in the names, a file a section.

`load_scenario` and `parse_scenario` read them. What no model can be is one ScenarioError that gives the key's path,
the value found, and what is allowed. The rest of capcsim imports from here, not from the files.
"""

from capcsim.scenario.calendar import Calendar, Hours
from capcsim.scenario.data import (
    AnyData,
    ArrayData,
    BundledData,
    Data,
    GivenData,
    HeartData,
    ImageData,
    MedMnist,
    NoData,
    TableData,
)
from capcsim.scenario.errors import explain
from capcsim.scenario.faults import Faults
from capcsim.scenario.files import find_scenario, load_scenario, parse_scenario, shipped_scenarios, tree_of
from capcsim.scenario.groups import Group
from capcsim.scenario.latencies import PRESETS
from capcsim.scenario.machines import Machine, Machines
from capcsim.scenario.members import Member
from capcsim.scenario.models import FROM_PYTHON, Kind, ModelKind, Models, NetworkKind, TreesKind
from capcsim.scenario.network import Access, Network
from capcsim.scenario.parties import Parties
from capcsim.scenario.prices import Prices
from capcsim.scenario.privacy import AnyPrivacy, ConfidentPrivacy, GNMaxPrivacy, LNMaxPrivacy, Privacy
from capcsim.scenario.protocol import Protocol
from capcsim.scenario.queries import Queries, Selection
from capcsim.scenario.scenario import Scenario
from capcsim.scenario.services import Service
from capcsim.scenario.sites import Site
from capcsim.scenario.workload import AtOnce, Poisson, Trace, Working, Workload, is_open

__all__ = [
    "FROM_PYTHON",
    "PRESETS",
    "Access",
    "AnyData",
    "AnyPrivacy",
    "ArrayData",
    "AtOnce",
    "BundledData",
    "Calendar",
    "ConfidentPrivacy",
    "Data",
    "Faults",
    "GNMaxPrivacy",
    "GivenData",
    "Group",
    "HeartData",
    "Hours",
    "ImageData",
    "Kind",
    "LNMaxPrivacy",
    "Machine",
    "Machines",
    "MedMnist",
    "Member",
    "ModelKind",
    "Models",
    "Network",
    "NetworkKind",
    "NoData",
    "Parties",
    "Poisson",
    "Prices",
    "Privacy",
    "Protocol",
    "Queries",
    "Scenario",
    "Selection",
    "Service",
    "Site",
    "TableData",
    "Trace",
    "TreesKind",
    "Working",
    "Workload",
    "explain",
    "find_scenario",
    "is_open",
    "load_scenario",
    "parse_scenario",
    "shipped_scenarios",
    "tree_of",
]
