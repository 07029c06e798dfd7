"""Results as text, LaTeX and plain data; importing the package registers every kind of result."""

from quasistatic.show import adaptive_text

__all__ = ["adaptive_text"]
