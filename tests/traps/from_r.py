"""Let R run the traps: a function of R takes the place of the class."""


class Maker:
    """Make optimizers as the class does, through R's `optimizer_adadelta()`.

    Its documentation is R's help page, which traps 10 and 11 read.
    """

    def __init__(self, function, documentation):
        self.function, self.__doc__ = function, documentation

    def __call__(self, **arguments):
        return self.function(**arguments)

    def from_config(self, config):
        return self.function(**config)
