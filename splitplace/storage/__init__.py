"""Files that must survive: the model store and the state of learners."""
