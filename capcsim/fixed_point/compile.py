"""The way in: which compiler takes a model."""

import sys
from typing import Any

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point.network import Network

LAYERS = (
    "Linear",
    "Conv2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "ReLU",
    "MaxPool2d",
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "Flatten",
    "Dropout",
    "Identity",
    "residual addition",
    "LogisticRegression",
    "MLPClassifier",
    "DecisionTreeClassifier",
    "RandomForestClassifier",
    "ExtraTreesClassifier",
    "AdaBoostClassifier",
)
"""What can be compiled: layers of torch modules, and scikit-learn's estimators."""


def compile_model(model: Any) -> Network:
    """A torch module in eval mode, or a fitted scikit-learn classifier, as integer layers.

    The model is not changed. Every check is made here; raises UnsupportedModel, naming the layer and the reason.
    """
    # Whoever holds a model has imported its library: nothing has to be imported to recognise it.
    torch, sklearn = sys.modules.get("torch"), sys.modules.get("sklearn.base")
    if torch and isinstance(model, torch.nn.Module):
        from capcsim.fixed_point.torch_models import compile_torch

        return compile_torch(model)
    if sklearn and isinstance(model, sklearn.BaseEstimator):
        from capcsim.fixed_point.estimators import compile_estimator

        return compile_estimator(model)
    raise UnsupportedModel(type(model).__name__, "only torch modules and scikit-learn classifiers can be compiled")
