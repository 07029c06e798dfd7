"""The rules of the zoo by what the library does with them; every rule of the zoo is in one of the lists."""

LINEAR = ("sgd", "heavy_ball", "heavy_ball_velocity", "ema_momentum", "nesterov", "qhm", "aggmo")
ADAPTIVE = ("adam", "adamw", "rmsprop", "adagrad", "amsgrad", "adam_mini", "adalayer", "adam_power")
KINKED = ("signsgd", "lion", "clipped_sgd", "norm_clipped_sgd")

#: Rules that have a law for any loss, as a kernel, and a result on every problem: what tests of formulas and documents go through.
DERIVED = LINEAR
#: Rules with slow states that are a filter behind a preconditioner: their results are in tests of their own.
PRECONDITIONED = tuple(name for name in ADAPTIVE if name != "amsgrad")
#: Rules that pass the validation of their result on the example problem with the example values.
VALIDATED = (*DERIVED, *PRECONDITIONED)
