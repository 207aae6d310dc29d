"""Digital chest phantoms: a parametric chest, X-rayed by Beer-Lambert attenuation, with exact lung masks."""

from .film import draw_phantom

__all__ = ["draw_phantom"]
