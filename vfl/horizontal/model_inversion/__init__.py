"""Part model-inversion: rows found in models balance the classes that clients lack."""
