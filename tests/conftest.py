"""Settings of every test: eight fake devices, and the same hypothesis examples in every run."""

import hypothesis
import jax

# For meshes of two axes. Set in this process alone: scripts that tests
# start see the machine as it is.
jax.config.update("jax_num_cpu_devices", 8)

hypothesis.settings.register_profile(
    "repeatable", deadline=None, derandomize=True, database=None, max_examples=20
)
hypothesis.settings.load_profile("repeatable")
