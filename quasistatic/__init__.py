"""Where does an optimizer drift along its minima? Derive it, print it, compile it, check it."""

from quasistatic import zoo
from quasistatic.dynamics import Law, SlowDynamics, assert_agrees, derive, load, manifold_flow, simulate, sweep
from quasistatic.errors import (
    HyperparameterError,
    NoPotential,
    OutputError,
    ParseError,
    ProblemError,
    QuasistaticError,
    RuleError,
    SimulationDiverged,
    SlowStateWarning,
    StartError,
    SweepError,
    UnstableError,
    ValidationFailed,
)
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import CovarianceNoise, HessianNoise, IsotropicNoise, LabelNoise
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.model.trace import optimizer
from quasistatic.sweeps.table import SweepTable
from quasistatic.symbols import absolute as abs
from quasistatic.symbols import block_mean, clip, exp, function, log, maximum, mean, minimum, sign, sqrt, symbols

__version__ = "0.1.0"

__all__ = [
    "ArrayProblem", "CovarianceNoise", "HessianNoise", "HyperparameterError", "IsotropicNoise", "LabelNoise", "Law", "NoPotential",
    "OutputError", "ParseError", "Problem", "ProblemError", "QuasistaticError", "Rule", "RuleError", "SimulationDiverged", "SlowDynamics",
    "SlowStateWarning", "StartError", "SweepError", "SweepTable", "UnstableError", "ValidationFailed", "abs", "assert_agrees",
    "block_mean", "clip", "derive", "exp", "function", "load", "log", "manifold_flow", "maximum", "mean", "minimum", "optimizer",
    "sign", "simulate", "sqrt", "sweep", "symbols", "zoo",
]  # fmt: skip
