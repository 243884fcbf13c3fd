"""`python -m vuemantics_pipeline` is `vuemantics`."""

from vuemantics_pipeline.cli import main

main()
