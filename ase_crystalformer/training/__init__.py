"""From labelled crystals to a model: recipe, objective, loop, evaluation."""
