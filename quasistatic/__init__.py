"""Where does an optimizer drift along its minima? Derive it, print it, compile it, check it."""

from quasistatic import zoo
from quasistatic.dynamics import Law, SlowDynamics, derive
from quasistatic.errors import (
    HyperparameterError,
    NoPotential,
    OutputError,
    ParseError,
    ProblemError,
    QuasistaticError,
    RuleError,
    SimulationDiverged,
    StartError,
    UnstableError,
    ValidationFailed,
)
from quasistatic.model.noise import CovarianceNoise, HessianNoise, IsotropicNoise, LabelNoise
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule, optimizer
from quasistatic.symbols import absolute as abs
from quasistatic.symbols import block_mean, clip, exp, function, log, maximum, mean, minimum, sign, sqrt, symbols
