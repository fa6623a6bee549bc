"""Lets R drive the traps: in the place of the class stands a function of R."""


class Maker:
    """Makes optimizers as the class does, through R's `optimizer_adadelta()`.

    Its documentation is R's help page, of which traps 10 and 11 want to know what it says.
    """

    def __init__(self, function, documentation):
        self.function, self.__doc__ = function, documentation

    def __call__(self, **arguments):
        return self.function(**arguments)

    def from_config(self, config):
        return self.function(**config)
