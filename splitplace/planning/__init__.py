"""Answers to "will my Pis make it?" and "what if": calibrated simulations of a cluster, in plain words.

`kinds` knows kinds of nodes, `question` what is asked, `forecast` runs the simulator over seeds, `standing`
says what fits where, `advice` says yes, perhaps or no and looks for the cheapest change that helps.
`idle_nodes` says what a network takes on a running system's nodes, without simulations. No I/O but the
tables that come with the package.
"""
