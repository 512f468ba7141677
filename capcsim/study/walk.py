"""The one way through the stages: trained, then in each round asked, priced and simulated, and judged at the end."""

from dataclasses import dataclass
from functools import partial

from capcsim import registry
from capcsim.backend import Backend, Capabilities
from capcsim.errors import InputError
from capcsim.learning.ensemble import Bought, Ensemble, nothing_bought
from capcsim.learning.samples import Dataset
from capcsim.scenario import Scenario
from capcsim.simulation.world import Simulated
from capcsim.study.asked import Asked, ask, saturation
from capcsim.study.books import Books, Spent
from capcsim.study.judged import Judged, judge
from capcsim.study.means import Means
from capcsim.study.priced import Priced, price
from capcsim.study.simulated import Happened, Round, Simulation, asked_until
from capcsim.study.trained import Trained, adopt, train


@dataclass(frozen=True)
class Walked:
    """The values of all stages, of the last round where there are several."""

    trained: Trained
    capabilities: Capabilities
    asked: Asked
    priced: Priced
    happened: Happened
    judged: Judged
    saturation: float | None

    @property
    def scenario(self) -> Scenario:
        """What was asked for."""
        return self.trained.ensemble.scenario

    @property
    def dataset(self) -> Dataset:
        """What the parties' samples are from."""
        return self.trained.ensemble.dataset

    @property
    def simulated(self) -> Simulated:
        """What the world tells."""
        return self.happened.simulated

    @property
    def spent(self) -> Spent:
        """What the ledger tells."""
        return self.happened.spent


def walk(ensemble: Ensemble, backend: Backend, books: Books, means: Means) -> Walked:
    """All stages of the ensemble's scenario; what was made before, in memory or on disk, is not made again."""
    scenario, accountant = ensemble.scenario, books.ledger.accountant
    simulation, trained = Simulation(scenario, books, backend, means), train(ensemble, means)
    bought: list[Bought] = [nothing_bought() for _ in ensemble.queriers]
    rounds: list[Round] = []
    for round_ in range(scenario.queries.rounds):
        earlier = rounds[-1] if rounds else None
        trained = adopt(trained, bought, means) if earlier else trained
        until = asked_until(scenario, accountant, round_)
        asked = ask(trained, backend, earlier.asked if earlier else None, bought, until, round_, means)
        turns = simulation.turns(asked, trained.changed)
        make = partial(price, ensemble, asked, earlier.priced if earlier else None, simulation.foresee(turns))
        priced = books.priced(asked, round_, partial(make, backend, accountant.mechanism, means))
        rounds.append(Round(asked, priced, turns))
        happened = simulation.run(rounds[-1])
        bought = happened.bought(asked)
    books.ledger.commit()
    judged = judge(trained, bought, means)
    clamped = saturation(ensemble, asked, backend)
    return Walked(trained, backend.capabilities, asked, priced, happened, judged, clamped)


def load_backend(scenario: Scenario) -> Backend:
    """The scenario's backend; what is wrong with its options names their section."""
    try:
        return registry.load(scenario.protocol.backend, scenario.protocol.options)
    except InputError as error:
        raise InputError(f"protocol.options: {error}") from None
