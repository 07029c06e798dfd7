"""The rules of the zoo by what the library does with them; every rule of the zoo is in one of the lists."""

LINEAR = ("sgd", "heavy_ball", "heavy_ball_velocity", "ema_momentum", "nesterov", "qhm", "aggmo")
ADAPTIVE = ("adam", "adamw", "rmsprop", "adagrad", "amsgrad", "adam_mini", "adalayer", "adam_power")
KINKED = ("signsgd", "lion", "clipped_sgd", "norm_clipped_sgd")

#: Rules that have a law for any loss, as a kernel, and a result on every problem: what tests of formulas and documents go through.
DERIVED = LINEAR
#: Rules whose result on the valley passes its validation with the example values.
VALIDATED = LINEAR
