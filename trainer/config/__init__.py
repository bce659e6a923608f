"""What a run is told, checked before anything is computed. Imports no Keras, no JAX."""
