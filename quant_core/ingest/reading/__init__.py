"""From a path to a model that is known to be sound: recognised, parsed and checked, with nothing in it executed."""
