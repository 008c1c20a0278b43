"""A stand-in for Colab's own module, which is nowhere but there: the names and signatures that notebooks use."""
