import subprocess
import sys

import pytest

from capcsim.errors import UnsupportedModel
from capcsim.fixed_point import LAYERS, compile_model


@pytest.mark.parametrize("model", [None, "linear", 3, object(), compile_model])
def test_only_models_are_compiled(model: object) -> None:
    with pytest.raises(UnsupportedModel, match="only torch modules and scikit-learn classifiers"):
        compile_model(model)


def test_the_layers_have_names_of_their_own() -> None:
    assert len(set(LAYERS)) == len(LAYERS)


def test_importing_the_compiler_imports_neither_torch_nor_scikit_learn() -> None:
    code = "import capcsim.fixed_point, sys; print({'torch', 'sklearn', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
