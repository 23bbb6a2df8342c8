"""The demo: the whole story under load, with an audit."""
