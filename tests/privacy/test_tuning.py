import numpy as np
import pytest

from capcsim.errors import InputError
from capcsim.privacy.mechanisms import GNMax
from capcsim.privacy.noise import real_noise
from capcsim.privacy.tuning import label_accuracy, tune
from capcsim.privacy.votes import VoteCounts
from tests.privacy.test_golden import GOLDEN

CLEAR = np.array([[40, 6, 4], [5, 39, 6], [2, 8, 40]])


def test_the_noise_is_the_most_that_accuracy_bears() -> None:
    found = tune(VoteCounts(CLEAR), max_loss=0.02)
    curve = dict(zip(found.sigmas, found.accuracies, strict=True))
    assert found.accuracy_without_noise == 1
    assert curve[found.sigma] >= 0.98
    following = found.sigmas[found.sigmas.index(found.sigma) + 1]
    assert curve[following] < 0.98
    assert tune(VoteCounts(CLEAR), max_loss=0.2).sigma > found.sigma


def test_on_the_papers_kind_of_votes_it_finds_the_papers_noise() -> None:
    """Section 4.4 chose sigma 40 for 250 models with high agreement."""
    votes = VoteCounts(np.array(GOLDEN["streams"]["svhn_like_K250"]["votes"][::10]))
    assert 30 < tune(votes, sigmas=np.arange(10, 70, 5.0).tolist()).sigma < 55


def test_true_labels_are_the_measure_where_there_are_any() -> None:
    found = tune(VoteCounts(CLEAR, true_labels=np.array([0, 1, 1])), sigmas=[1.0, 5.0])
    assert found.accuracy_without_noise == pytest.approx(2 / 3)
    assert found.reference == "true labels"


def test_expected_accuracy_is_what_sampling_gives() -> None:
    mechanism, games = GNMax(15.0), 10_000
    right = CLEAR.argmax(axis=1)
    labels = (CLEAR[:, None] + real_noise(mechanism, (3, games, 3))).argmax(axis=2)
    sampled = (labels == right[:, None]).mean()
    assert label_accuracy(CLEAR, right, mechanism) == pytest.approx(sampled, abs=6 * 0.5 / (3 * games) ** 0.5)


def test_the_output_says_that_tuning_is_not_private() -> None:
    told = tune(VoteCounts(CLEAR), sigmas=[1.0]).to_json()
    assert told["private"] is False
    assert "tuning on private votes is itself not private" in told["warning"]


@pytest.mark.parametrize(
    ("options", "says"), [({"max_loss": 0.0}, "max_loss"), ({"sigmas": [500.0]}, "even sigma = 500")]
)
def test_what_cannot_be_tuned(options: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        tune(VoteCounts(CLEAR), **options)  # type: ignore[arg-type]
