"""Training of the shipped networks and of the user's own (needs torch)."""

from videonst.training.data import Painting, list_paintings
from videonst.training.recipe import Recipe, load_recipe, make_recipe
from videonst.training.trainer import Progress, Trainer, pick_device

__all__ = ["Painting", "Progress", "Recipe", "Trainer", "list_paintings", "load_recipe", "make_recipe", "pick_device"]
