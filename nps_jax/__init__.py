"""NPGMF, normality-prior guided image anomaly detection, in JAX/Flax."""
