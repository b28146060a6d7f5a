"""A farm of simulated RePAST chips: second-order training on analog hardware, with its cost."""

__version__ = "0.1.0"
