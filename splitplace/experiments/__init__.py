"""The paper's experiments, repeated on the simulator.

`catalogue/` holds the experiments, each an `Experiment` of `plan`. `running` runs the simulations that they
need. `statistics`, `findings`, `tables` and `plots` evaluate the runs, and `page` writes them down.
"""
