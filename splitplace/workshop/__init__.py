"""Offline tools: train networks, split them, measure the fragments and pack applications.

Floors, from top to bottom; a floor imports only from floors below it (`lint-imports` checks this):

- `report`: tables, drawings and pages about what the other floors made.
- `recipes`: how the shipped applications are trained and built. `user_networks`: applications from a user's
  network.
- `packing`: fragments become an application in the model store. `compression`: smaller and faster variants.
- `cutting`: where a network is cut and what each part costs. `training`: the training loop and its losses.
- `onnx`, `datasets`, `networks`: ONNX graphs, labelled images, and network architectures in torch.
"""
