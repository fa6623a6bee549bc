"""A pytest plugin that replaces `keras.optimizers.Adadelta` by `adadelta.Adadelta`.

Load it with `-p in_place_of_keras_own` before Keras' own test files are imported. It runs only
their tests of Adadelta: all tests of its file, and those with Adadelta in a name or a parameter.
"""

import keras
from keras.src import optimizers
from keras.src.optimizers import adadelta as home

import adadelta

THEIRS = home.Adadelta

# On torch, Keras also uses keras.src.optimizers.Adadelta as the key to find the class that it
# creates instead, so there only the test's own import and the names of `optimizers.get` change.
modules = (home,) if keras.config.backend() == "torch" else (home, optimizers, keras.optimizers)
for module in modules:
    module.Adadelta = adadelta.Adadelta
optimizers.ALL_OBJECTS = {
    adadelta.Adadelta if cls is THEIRS else cls for cls in optimizers.ALL_OBJECTS
}
optimizers.ALL_OBJECTS_DICT.update(
    {name: adadelta.Adadelta for name, cls in optimizers.ALL_OBJECTS_DICT.items() if cls is THEIRS}
)


def pytest_collection_modifyitems(items):
    def is_ours(item):
        parameters = getattr(item.function, "__x_params_repr__", "")
        return "adadelta" in f"{item.path.name} {item.name} {parameters}".lower()

    items[:] = filter(is_ours, items)
