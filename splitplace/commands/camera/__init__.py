"""`splitplace camera`: frames of a camera, a video, a folder or a topic become tasks."""
