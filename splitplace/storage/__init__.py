"""Files that must survive: where they lie, the model store, the state of learners."""
