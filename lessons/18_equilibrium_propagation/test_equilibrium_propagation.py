"""The science of equilibrium propagation."""
