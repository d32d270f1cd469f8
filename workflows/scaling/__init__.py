"""Parts of the scaling study: crystals, runs, power laws, pictures."""
