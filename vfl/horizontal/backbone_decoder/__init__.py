"""Part backbone-decoder: clients hold the backbone of a smaller second model and train its decoder alone."""
