"""Monte Carlo sampling of occupations and spins, with a cheap model that proposes."""
