"""Runs a script as several processes of this machine that share one mesh:

    XLA_FLAGS=--xla_force_host_platform_device_count=2 \\
        python scripts/launch.py --processes=2 -- \\
        python scripts/evaluate.py --config=CONFIG.py --config.mesh='{"data": 4}' --workdir=DIR

Each line of output begins with the number of its process. When one fails, however it ends, the
others are ended too, and the last line says which one it was. On Cloud TPU every worker runs the
script itself, with --distributed and nothing else.
"""

from absl import flags

from speccascade.runtime import app

_PROCESSES = flags.DEFINE_integer("processes", 2, "How many.", lower_bound=1)


def main(argv):
    from speccascade.runtime import launch

    launch.launch(argv[1:], _PROCESSES.value)


if __name__ == "__main__":
    app.run(main, launches=True)
